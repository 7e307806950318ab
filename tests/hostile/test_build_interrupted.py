"""Full disks, signals and damaged caches during a build: nothing half-written, and it goes on."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from irstd import files as files_module
from irstd.bundle import read_bundle

INT8 = ("--precision", "int8")


def full_at(call, monkeypatch):
    """Let the disk be full when the `call`-th file is to be written down; return the count."""
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(files_module.os, "fsync", fsync)
    return calls


@pytest.mark.parametrize("written", range(5))
def test_full_disk_at_any_file(
    written, compile_command, tiny_onnx, make_data, tmp_path, monkeypatch
):
    """In order: rewrite, scales, two scores, bundle. Whichever fails, the others stay whole."""
    out = tmp_path / "out" / "a.irstd"
    words = ["build", tiny_onnx(), "--normalize", "80,40", *INT8, "--data", make_data(), "-o", out]
    with monkeypatch.context() as patch:
        calls = full_at(written, patch)
        code, report, err = compile_command(*words)
        assert len(calls) == written + 1
    assert (code, report["error"]["type"]) == (1, "OSError")
    assert "the disk is full" in err.splitlines()[-1]
    assert not out.exists()
    assert not list(tmp_path.rglob("*.part"))
    assert compile_command(*words)[0] == 0
    assert read_bundle(out).manifest.network == "tiny"


def test_full_disk_keeps_an_older_bundle(compile_command, tiny_onnx, tmp_path, monkeypatch):
    out = tmp_path / "a.irstd"
    words = ["build", tiny_onnx(), "--normalize", "80,40", "--no-cache", "-o", out]
    assert compile_command(*words)[0] == 0
    before = out.read_bytes()
    full_at(0, monkeypatch)
    assert compile_command(*words)[0] == 1
    assert out.read_bytes() == before


def test_file_size_limit_of_the_system(tiny_onnx, tmp_path):
    """A real limit, met inside write(): what a full quota looks like to the program."""
    resource = pytest.importorskip("resource")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    out = tmp_path / "out" / "a.irstd"
    done = subprocess.run(
        [
            sys.executable, "-m", "irstd.compile.command", "build", str(tiny_onnx()),
            "--normalize", "80,40", "--no-cache", "--json", "-o", str(out),
        ],
        preexec_fn=limit, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["error"]["type"] == "OSError"
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not list(tmp_path.rglob("*.part"))


STUCK = """
import sys
from irstd.compile import command
from irstd.compile.builders import cpu
cpu.ROUNDS, cpu.TIMING_LIMIT_S = 10**9, 1e9
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_process_exits_130_and_leaves_nothing(how, tiny_onnx, make_data, tmp_path):
    """A real signal, while engines are timed, which would go on for ever."""
    out, cache = tmp_path / "out" / "a.irstd", tmp_path / "cache"
    words = ["build", tiny_onnx(), "--normalize", "80,40", "--data", make_data(), "--cache", cache]
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, *map(str, words), "--json", "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in process.stderr:
            if "trying engines" in line:
                break
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert json.loads(stdout)["error"] == {
        "type": "KeyboardInterrupt", "message": "interrupted", "exit_code": 130,
    }  # fmt: skip
    assert stderr.splitlines()[-1] == "irstd-compile: interrupted"
    assert "Traceback" not in stderr
    assert not out.exists()
    assert not list(tmp_path.rglob("*.part"))
    assert len(list((cache / "stages").iterdir())) == 1  # the rewritten graph, for the next time


def test_cache_full_of_nonsense_is_made_again(compile_command, tiny_onnx, make_data, tmp_path):
    words = ["build", tiny_onnx(), "--normalize", "80,40", *INT8, "--data", make_data()]
    assert compile_command(*words, "-o", tmp_path / "a.irstd")[0] == 0
    for entry in (tmp_path / "cache" / "stages").iterdir():
        entry.write_bytes(os.urandom(300))
    assert compile_command(*words, "-o", tmp_path / "b.irstd")[0] == 0
    first, second = (read_bundle(tmp_path / f"{name}.irstd") for name in "ab")
    for name in ("model.onnx", "model.int8.onnx", "scales.json"):
        assert first.read(name) == second.read(name)


def test_cache_that_cannot_be_a_folder(compile_command, tiny_onnx, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["build", tiny_onnx(), "--normalize", "80,40", "-o", tmp_path / "a.irstd"]
    code, report, _ = compile_command(*words, "--cache", tmp_path / "file")
    assert (code, report["error"]["type"]) == (1, "BuildError")
    assert "--no-cache" in report["error"]["message"]
    assert compile_command(*words, "--no-cache")[0] == 0
