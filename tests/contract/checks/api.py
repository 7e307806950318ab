"""The import and the log of TensorRT, with the genuine bindings."""

import logging

import pytest

from irstd.runtime.tensorrt.api import LOG, Version, load_tensorrt, tensorrt_logger, version_of


@pytest.fixture(autouse=True)
def _empty_log():
    LOG.clear()


def test_the_genuine_bindings_are_tensorrt(trt, version):
    assert load_tensorrt() is trt
    assert version_of(trt) == Version(*version)
    assert str(version_of(trt)) == trt.__version__


def test_the_logger_is_one_that_tensorrt_takes(trt, caplog):
    logger = tensorrt_logger(trt)
    assert isinstance(logger, trt.ILogger)
    assert tensorrt_logger(trt) is logger
    severities = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)
    with caplog.at_level(logging.INFO):
        for severity in (*severities, trt.ILogger.INFO, trt.ILogger.VERBOSE):
            logger.log(severity, f"about {severity.name}")
    assert LOG.lines == (
        "[internal error] about INTERNAL_ERROR",
        "[error] about ERROR",
        "[warning] about WARNING",
        "[info] about INFO",
    )
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING", "INFO"]


def test_every_severity_has_a_name(trt):
    with_names = {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}
    assert set(trt.ILogger.Severity.__members__) == with_names


def test_null_libraries_make_nothing(trt):
    """The bindings are genuine, the libraries are not: nobody takes one for the other."""
    with pytest.raises(TypeError, match="nullptr"):
        trt.Runtime(tensorrt_logger(trt))
    with pytest.raises(TypeError, match="nullptr"):
        trt.Builder(tensorrt_logger(trt))
