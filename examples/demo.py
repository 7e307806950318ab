"""The whole path on a machine with nothing but Python: no data, no GPU, no torch.

Simulates a thermal camera, compiles the shipped network to INT8, runs the bundle at a fixed rate
and shows what it detects. Each step is the command a user would type; `make demo` runs this.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from irstd.simulate import SceneConfig, write_scene

CALIBRATION_FRAMES = 120
SCENE_SECONDS = 10
FPS = 30
PICTURE = Path(__file__).parent.parent / "scripts" / "draw_detections.py"


def main() -> int:
    """Run the demo into a folder and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    folder = parser.parse_args().folder / time.strftime("%Y%m%d-%H%M%S")
    bundle, scene = folder / "acm.irstd", folder / "scene"

    print(f"simulating frames in {folder}", flush=True)
    write_scene(folder / "data", SceneConfig(frames=CALIBRATION_FRAMES, scene="mix", seed=1))
    frames = SCENE_SECONDS * FPS
    moving = SceneConfig(frames=frames, fps=FPS, scene="clouds", targets=4, scr=6, seed=2)
    write_scene(scene, moving)

    command(
        "irstd-compile", "build", "acm", "--target", "cpu", "--precision", "int8",
        "--data", folder / "data", "-o", bundle,
    )  # fmt: skip
    command("irstd-compile", "inspect", bundle)
    command("irstd-compile", "verify", bundle)
    command(
        "irstd-run", bundle, scene / "images", "--fps", FPS, "--threads", 1,
        "--out", folder / "detections.jsonl",
    )  # fmt: skip
    command("irstd-bench", "latency", bundle, "--seconds", 10)
    command("python", PICTURE, bundle, "--data", folder / "data", "-o", folder / "detections.png")

    statuses = [line["status"] for line in read_lines(folder / "detections.jsonl")]
    print(
        f"{statuses.count('delivered')} of {len(statuses)} frames delivered in time at {FPS} Hz; "
        f"see what was found in {folder / 'detections.png'}"
    )
    return 0


def command(*words: object) -> None:
    """Show a command and run it; its failure is the demo's."""
    line = [str(word) for word in words]
    print("\n$ " + " ".join(line), flush=True)
    executable = Path(sys.executable).with_name(line[0])
    done = subprocess.run([str(executable), *line[1:]], check=False)
    if done.returncode not in (0, 7):  # 7: a busy machine's timings are shown, and called unstable
        sys.exit(done.returncode)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
