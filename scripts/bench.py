"""Measure the shipped network on this machine: `make bench`.

    python scripts/bench.py [--seconds S] [--out benchmarks/results]

Builds ACM 256x256 in INT8 and FP32, then measures INT8 in its chosen engine against FP32 in ONNX
Runtime, in turns on one thread, and INT8 at 30 Hz. Writes latency-acm.json and paced-acm.json into
--out, each with the command that made it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from irstd.files import write_atomic
from irstd.simulate import SceneConfig, write_scene

CALIBRATION_FRAMES = 120
RATE_HZ = 30
UNSTABLE = 7
LATENCY, PACED = "latency-acm.json", "paced-acm.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--data", type=Path, help="data folder instead of simulated frames")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = options.data.resolve() if options.data else folder / "data"
        if options.data is None:
            write_scene(data, SceneConfig(frames=CALIBRATION_FRAMES, scene="mix", seed=1))
        int8, fp32 = "acm-int8.irstd", "acm-fp32.irstd"
        build = ("irstd-compile", "build", "acm")
        run(folder, *build, "--precision", "int8", "--data", data, "-o", int8)
        run(folder, *build, "-o", fp32)
        seconds = ("--seconds", options.seconds)
        codes = [
            run(
                folder, "irstd-bench", "latency", int8, "--against", fp32,
                "--against-engine", "onnxruntime", *seconds, "--out", LATENCY,
            ),
            run(
                folder, "irstd-bench", "paced", int8, "--fps", RATE_HZ, *seconds, "--out", PACED,
            ),
        ]  # fmt: skip
        for report in (LATENCY, PACED):
            write_atomic(options.out / report, (folder / report).read_bytes())
    return max(codes)


def run(folder: Path, *words: object) -> int:
    """Run one of our commands in a folder, so that reports name no path of this machine.

    An unstable measurement (exit code 7) is told, not fatal.
    """
    line = [str(word) for word in words]
    print("\n$ " + " ".join(line), flush=True)
    executable = Path(sys.executable).with_name(line[0])
    code = subprocess.run([str(executable), *line[1:]], cwd=folder, check=False).returncode
    if code not in (0, UNSTABLE):
        sys.exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
