"""Every error that this SDK raises on purpose.

    IrstdError                     exit 1
      UsageError                   exit 2   a flag, key or argument is wrong
      MissingDependency            exit 3   a package or library is not installed
      DeviceError                  exit 3   the device or its driver is not usable
      CheckpointError              exit 1   a weights file does not fit the network
      ExportError                  exit 1   a graph cannot be exported or rewritten
      CalibrationError             exit 1   the calibration data cannot give scales
      BuildError                   exit 1   an engine library refused the graph
      ParityFailed                 exit 5   the built graph does not compute what the source does
      BudgetExceeded               exit 4   accuracy fell by more than the user allows
      BundleError                  exit 1   something about a bundle file
        BundleCorrupt              exit 1   a rule of docs/bundle-format.md is violated
        BundleMismatch             exit 6   a sound bundle, for another device or version
      BenchmarkInvalid             exit 7   the measurement is not stable enough to quote
      InputError (also ValueError) exit 1   a frame, mask or image is not what was asked for

A message says what was got, what was wanted and, where there is one, the command that mends it:

    try:
        detections = detector(frame)
    except irstd.errors.InputError as error:
        skip(frame, reason=error)
"""


class IrstdError(Exception):
    """Base of every error raised on purpose; catches them all."""

    exit_code = 1


class UsageError(IrstdError):
    """A flag, configuration key or argument is not one of the documented ones."""

    exit_code = 2


class MissingDependency(IrstdError):
    """A package or shared library that this call needs is not installed."""

    exit_code = 3


class DeviceError(IrstdError):
    """The device that was asked for is absent or not usable."""

    exit_code = 3


class CheckpointError(IrstdError):
    """A weights file cannot be read safely, or does not fit the network."""


class ExportError(IrstdError):
    """A network or graph cannot be turned into the plain graph that every engine reads."""


class CalibrationError(IrstdError):
    """The calibration frames cannot give usable scales."""


class BuildError(IrstdError):
    """An engine library refused the graph."""


class ParityFailed(IrstdError):
    """The built graph does not compute what its source computes, within tolerance."""

    exit_code = 5


class BudgetExceeded(IrstdError):
    """Accuracy changed by more than the budget allows."""

    exit_code = 4


class BundleError(IrstdError):
    """Base of what can be wrong with a bundle file."""


class BundleCorrupt(BundleError):
    """The file violates a rule of the bundle format."""


class BundleMismatch(BundleError):
    """The file is sound, but made for another device, engine or format version."""

    exit_code = 6


class BenchmarkInvalid(IrstdError):
    """The measurement is not stable enough to be quoted."""

    exit_code = 7


class InputError(IrstdError, ValueError):
    """A frame, mask or image file is not what was asked for."""


def one_line(error: object, limit: int = 300) -> str:
    """Return a library's message without its line breaks, cut to `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
