"""Stage results: found again when nothing changed, made again when anything did or is damaged."""

import errno
import logging

import numpy as np
import pytest

from irstd.compile import cache as cache_module
from irstd.compile.cache import cached
from irstd.errors import BuildError


@pytest.fixture
def stage():
    """A stage that counts how often it is computed."""

    class Stage:
        computed = 0

        def __call__(self):
            self.computed += 1
            return b"result %d" % self.computed

    return Stage()


def entries(folder):
    return sorted((folder / "stages").iterdir())


def test_second_time_comes_from_the_cache(tmp_path, stage):
    parts = (b"graph", 256, {"mode": "x"})
    assert cached(tmp_path, "rewrite", parts, stage) == b"result 1"
    assert cached(tmp_path, "rewrite", parts, stage) == b"result 1"
    assert stage.computed == 1
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("other", [(b"a", 2), (b"b", 1), (b"a", "1"), (b"a",), (b"a", 1, None)])
def test_any_other_part_is_another_result(other, tmp_path, stage):
    cached(tmp_path, "rewrite", (b"a", 1), stage)
    cached(tmp_path, "rewrite", other, stage)
    assert stage.computed == 2


def test_other_stage_and_other_version_are_other_results(tmp_path, stage, monkeypatch):
    cached(tmp_path, "rewrite", (1,), stage)
    cached(tmp_path, "export", (1,), stage)
    monkeypatch.setattr(cache_module, "_makers", lambda: {"irstd": "other sources"})
    cached(tmp_path, "rewrite", (1,), stage)
    assert stage.computed == 3


def test_no_folder_computes_every_time(stage):
    assert [cached(None, "s", (), stage) for _ in range(2)] == [b"result 1", b"result 2"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
        lambda data: b"0" + data[1:],
    ],
)
def test_damaged_entry_is_made_again(damage, tmp_path, stage, caplog):
    cached(tmp_path, "s", (), stage)
    entry = entries(tmp_path)[0]
    entry.write_bytes(damage(entry.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path, "s", (), stage) == b"result 2"
    assert "damaged, made again" in caplog.text
    assert cached(tmp_path, "s", (), stage) == b"result 2"  # and is whole again


def test_entry_that_cannot_be_read_is_made_again_or_named(tmp_path, stage):
    cached(tmp_path, "s", (), stage)
    entry = entries(tmp_path)[0]
    entry.unlink()
    entry.mkdir()  # no one can read or replace this, not even root
    with pytest.raises(BuildError, match=r"cannot be written.*--cache DIR.*--no-cache"):
        cached(tmp_path, "s", (), stage)
    assert stage.computed == 2


def test_failed_stage_leaves_nothing(tmp_path):
    def fail():
        raise BuildError("no")

    with pytest.raises(BuildError):
        cached(tmp_path, "s", (), fail)
    assert not (tmp_path / "stages").exists()


def test_cache_under_a_file_cannot_be_written(tmp_path, stage):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="--no-cache"):
        cached(tmp_path / "file", "s", (), stage)


def test_full_disk_is_told_as_such(tmp_path, stage, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(cache_module, "write_atomic", full)
    with pytest.raises(OSError, match="No space left") as caught:
        cached(tmp_path, "s", (), stage)
    assert caught.value.errno == errno.ENOSPC


def test_results_are_of_these_sources_and_libraries():
    makers = cache_module._makers()
    assert len(makers["irstd"]) == 64
    assert makers["numpy"] == np.__version__
    assert set(makers) > {"onnx", "onnxsim", "onnxruntime", "torch"}
