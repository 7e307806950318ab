"""Atomic writing: the whole new file or the old one, whatever happens in between."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import IO, Any

import pytest

from irstd.errors import UsageError
from irstd.files import (
    SYSTEM_BYTES,
    atomic_open,
    cache_dir,
    check_writable,
    printable,
    read_system,
    sha256_hex,
    sha256_of_file,
    to_path,
    write_atomic,
)

OLD = b"the old content"


@pytest.fixture(params=[None, OLD], ids=["new", "replaced"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path to write, where nothing is yet, or an old file."""
    path = tmp_path / "folder" / "a.bin"
    if request.param is not None:
        path.parent.mkdir()
        path.write_bytes(request.param)
    return path


def untouched(path: Path) -> bool:
    """Whether the folder holds just what it held before."""
    there = list(path.parent.iterdir()) if path.parent.exists() else []
    return there == [] or (there == [path] and path.read_bytes() == OLD)


def test_success_leaves_one_whole_file(target: Path) -> None:
    with atomic_open(target) as file:
        file.write(b"new ")
        assert not target.exists() or target.read_bytes() == OLD
        file.write(b"content")
    assert target.read_bytes() == b"new content"
    assert list(target.parent.iterdir()) == [target]


def test_text_is_written_as_utf8(target: Path) -> None:
    write_atomic(target, "Müller\n")
    assert target.read_bytes() == "Müller\n".encode()
    write_atomic(target, os.fsdecode(b"Aufnahme \xff"))
    assert target.read_bytes() == rb"Aufnahme \udcff"


def test_a_name_that_cannot_be_printed_is_escaped() -> None:
    assert printable("Aufnähme 1.irstd") == "Aufnähme 1.irstd"
    assert printable(os.fsdecode(b"a\xff\x1b[31m\n")) == r"a\udcff\x1b[31m\n"


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt(), SystemExit(1)])
def test_interruption_while_writing(target: Path, error: BaseException) -> None:
    def write_half() -> None:
        with atomic_open(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert untouched(target)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_at_every_step(target: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"new")
    assert untouched(target)


@pytest.mark.parametrize("room", [0, 1, 100, 99_999])
def test_disk_that_fills_while_writing(
    target: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The device takes `room` bytes, then no more; also when the rest is only flushed."""
    opened = os.fdopen

    def on_small_disk(handle: int, mode: str) -> IO[bytes]:
        file: Any = opened(handle, mode, buffering=0)
        taken = 0
        write = file.write

        class Small:
            def write(self, data: bytes) -> int:
                nonlocal taken
                fits = data[: room - taken]
                taken += write(fits)
                if len(fits) < len(data):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return len(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> "Small":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

        small: Any = Small()
        return small  # type: ignore[no-any-return]

    monkeypatch.setattr(os, "fdopen", on_small_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"x" * 100_000)
    assert untouched(target)


WRITE_TOO_MUCH = """
    import resource, sys
    from pathlib import Path
    from irstd.files import write_atomic
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        write_atomic(Path(sys.argv[1]), b"x" * 100_000)
    except OSError as error:
        print(error.errno)
"""

WRITE_FOR_EVER = """
    import sys, time
    from pathlib import Path
    from irstd.files import atomic_open
    with atomic_open(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        print("ready", flush=True)
        time.sleep(60)
"""


def start(script: str, path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits")
def test_system_refuses_more_bytes(target: Path) -> None:
    """The same with a real refusal, of the file-size limit."""
    process = start(WRITE_TOO_MUCH, target)
    out, err = process.communicate(timeout=60)
    assert out.split() == [str(errno.EFBIG)], err
    assert untouched(target)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupted_process(target: Path) -> None:
    process = start(WRITE_FOR_EVER, target)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert untouched(target)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_process_never_shows_half_a_file(target: Path) -> None:
    """Nothing can clean up after a kill, but the name is never half written."""
    process = start(WRITE_FOR_EVER, target)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=60)
    assert not target.exists() or target.read_bytes() == OLD
    write_atomic(target, b"next time")
    assert target.read_bytes() == b"next time"


def test_path_that_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError):  # noqa: PT011  which one differs by system
        write_atomic(folder, b"new")
    assert list(tmp_path.iterdir()) == [folder]


def test_hashes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    wanted = hashlib.sha256(data).hexdigest()
    assert sha256_of_file(tmp_path / "a") == sha256_hex(data) == wanted


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("IRSTD_CACHE", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "irstd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "irstd"
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for variable in ("HOME", "IRSTD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(UsageError, match="no home folder: set IRSTD_CACHE"):
        cache_dir()


def test_a_path_that_names_nothing_is_refused() -> None:
    assert to_path("a/b") == Path("a/b")
    for text in ("", "a\0b"):
        with pytest.raises(UsageError, match="names no file"):
            to_path(text)


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    source, link = tmp_path / "in", tmp_path / "link"
    source.touch()
    link.symlink_to(source)
    check_writable(tmp_path / "new" / "file", [source, tmp_path / "absent"])
    check_writable(source)
    for path in (source, link):
        with pytest.raises(UsageError, match="is an input"):
            check_writable(path, [source])
    with pytest.raises(UsageError, match="no regular file"):
        check_writable(Path(os.devnull))
    with pytest.raises(NotADirectoryError):
        check_writable(source / "below")
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder where nobody makes files")
def test_a_file_that_cannot_be_made_is_named_as_it_was_asked_for() -> None:
    with pytest.raises(OSError, match=r"No such file|denied|not permitted") as caught:
        write_atomic(Path("/proc/x.irstd"), b"")
    assert caught.value.filename == "/proc/x.irstd"


def test_a_failed_write_names_the_file_that_was_asked_for(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(target, b"new")
    assert caught.value.filename == str(target)


def test_what_a_system_file_says(tmp_path):
    path = tmp_path / "model"
    assert read_system(path) == read_system(tmp_path) == ""
    path.write_bytes(b"  NVIDIA Jetson \xff\n\0")
    assert read_system(path) == "NVIDIA Jetson \ufffd"


def test_of_an_endless_system_file_the_beginning_is_read():
    assert len(read_system(Path("/dev/urandom"))) <= SYSTEM_BYTES
