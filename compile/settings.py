"""What a build is asked for, resolved from flags and YAML into one frozen value at the edge."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from irstd.compile.accuracy import parse_budget
from irstd.compile.quantize import FORMS
from irstd.calibration.observers import METHODS
from irstd.errors import UsageError
from irstd.targets import find_target
from irstd.types import BIT_DEPTHS, Fit, Precision

OUTPUT_KINDS = ("auto", "logits", "probabilities")
NORMALIZE_MAX = "max"


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What the training code did to a frame before the network.

    Attributes:
        mean: Grey levels, one a channel.
        std: Grey levels, one a channel, above 0.
        per_frame_max: Divide each frame by its own maximum first; then mean and std are of that.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    per_frame_max: bool = False

    def for_channels(self, channels: int) -> "Normalization":
        """Return this with one value a channel; a single one serves all.

        Raises:
            UsageError: Three values for a network of one channel.
        """
        if len(self.mean) == channels:
            return self
        if len(self.mean) != 1:
            raise UsageError(
                f"--normalize has {len(self.mean)} channels, the network takes {channels}"
            )
        return Normalization(self.mean * channels, self.std * channels, self.per_frame_max)

    def scaled(self, factor: float) -> "Normalization":
        """Return this for frames whose grey levels are `factor` times as large."""
        if self.per_frame_max:
            return self
        mean = tuple(value * factor for value in self.mean)
        return Normalization(mean, tuple(value * factor for value in self.std))


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """One build. The long flags of `irstd-compile build` (interface.md), resolved.

    Attributes:
        source: A network name or the path of an .onnx file.
        target: Key of TARGETS.
        precision: Of the deployed graph.
        weights: Checkpoint for a named network; None takes the shipped one.
        imgsz: (height, width) px; None takes the network's default.
        normalize: None takes what the weights say.
        output: One of OUTPUT_KINDS.
        bit_depth: 8, 14 or 16.
        fit: What happens to frames of another size.
        data: Data folder; half calibrates, half verifies.
        list_file: Restricts `data` to these stems.
        verify_data: Verify on this folder instead.
        verify_list: Restricts `verify_data` to these stems.
        calibration: Key of METHODS.
        int8_form: Key of FORMS; None takes the target's.
        budget: Allowed change of accuracy by metric.
        keep: Write the bundle even if the budget is violated.
        seed: Of the split.
    """

    source: str
    target: str = "cpu"
    precision: Precision = Precision.FP32
    weights: Path | None = None
    imgsz: tuple[int, int] | None = None
    normalize: Normalization | None = None
    output: str = "auto"
    bit_depth: int = 8
    fit: Fit = Fit.PAD
    data: Path | None = None
    list_file: Path | None = None
    verify_data: Path | None = None
    verify_list: Path | None = None
    calibration: str = "minmax"
    int8_form: str | None = None
    budget: Mapping[str, float] = dataclasses.field(default_factory=dict)
    keep: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        target = find_target(self.target)
        _one_of("--output", self.output, OUTPUT_KINDS)
        _one_of("--bit-depth", self.bit_depth, BIT_DEPTHS)
        _one_of("--calibration", self.calibration, tuple(METHODS))
        if self.int8_form is not None:
            _one_of("--int8-form", self.int8_form, tuple(FORMS))
            if target.int8_form == "nvidia" and self.int8_form == "cpu":
                raise UsageError(
                    f"--int8-form cpu cannot run on {self.target}: its engines take symmetric "
                    "signed activations (nvidia)"
                )
        if self.precision is Precision.INT8 and self.data is None:
            raise UsageError("--precision int8 needs --data DIR: frames to calibrate on")
        for name, value, needs, given in (
            ("--list", self.list_file, "--data", self.data),
            ("--verify-list", self.verify_list, "--verify-data", self.verify_data),
        ):
            if value is not None and given is None:
                raise UsageError(f"{name} needs {needs} DIR")

    @property
    def form(self) -> str:
        """Key of FORMS that an INT8 graph takes."""
        return self.int8_form or find_target(self.target).int8_form

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON values; this is stored in the bundle."""
        values: dict[str, Any] = dataclasses.asdict(self)
        for key in ("weights", "data", "list_file", "verify_data", "verify_list"):
            values[key] = None if values[key] is None else Path(values[key]).name
        values["source"] = Path(self.source).name
        values["precision"], values["fit"] = self.precision.value, self.fit.value
        values["budget"] = dict(self.budget)
        return values


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", str(text).strip())
    if not match or 0 in (size := (int(match[1]), int(match[2]))):
        raise UsageError(f"--imgsz is HEIGHTxWIDTH in pixels, such as 512x640; got {text!r}")
    return size


def parse_normalization(text: str) -> Normalization:
    """Read "MEAN,STD", "M1,M2,M3,S1,S2,S3" (grey levels) or "max"."""
    if str(text).strip() == NORMALIZE_MAX:
        return Normalization((0.0,), (1.0,), per_frame_max=True)
    try:
        values = [float(part) for part in str(text).split(",")]
    except ValueError:
        values = []
    half = len(values) // 2
    mean, std = tuple(values[:half]), tuple(values[half:])
    if len(values) not in (2, 6) or not all(map(math.isfinite, values)) or min(std) <= 0:
        raise UsageError(
            f"--normalize is MEAN,STD or M1,M2,M3,S1,S2,S3 in grey levels with std above 0, "
            f"or max; got {text!r}"
        )
    return Normalization(mean, std)


def parse_precision(text: str) -> Precision:
    """Read a precision that this version builds."""
    _one_of("--precision", text, tuple(item.value for item in Precision))
    return Precision(text)


# Long flag (without dashes) -> field and how its text is read.
FLAGS: dict[str, tuple[str, Any]] = {
    "target": ("target", str),
    "precision": ("precision", parse_precision),
    "weights": ("weights", Path),
    "imgsz": ("imgsz", parse_size),
    "normalize": ("normalize", parse_normalization),
    "output": ("output", str),
    "bit-depth": ("bit_depth", int),
    "fit": ("fit", lambda text: Fit(_one_of("--fit", text, tuple(item.value for item in Fit)))),
    "data": ("data", Path),
    "list": ("list_file", Path),
    "verify-data": ("verify_data", Path),
    "verify-list": ("verify_list", Path),
    "calibration": ("calibration", str),
    "int8-form": ("int8_form", str),
    "budget": ("budget", parse_budget),
    "keep": ("keep", bool),
    "seed": ("seed", int),
}
_YAML_ONLY = ("source",)
_PATH_FLAGS = ("weights", "data", "list", "verify-data", "verify-list")


def resolve(source: str, flags: Mapping[str, Any]) -> BuildSettings:
    """Make settings from what was given on the command line.

    Args:
        source: SOURCE of the command; a `.yaml` file gives defaults that flags override.
        flags: Given long flags without dashes, as text (`keep` as bool).

    Raises:
        UsageError: An unknown key or a value that is not valid.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    if Path(source).suffix in (".yaml", ".yml"):
        source, defaults = _read_yaml(Path(source))
        given = {**defaults, **given}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field, read = FLAGS[key]
        try:
            values[field] = read(value)
        except (TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"--{key}: cannot take {value!r}") from error
    return BuildSettings(source=source, **values)


def _read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a build configuration; paths in it are relative to the file."""
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(raw, dict) or "source" not in raw:
        raise UsageError(f"{path}: wanted a mapping with the key source and any long flags")
    known = [*_YAML_ONLY, *FLAGS]
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise UsageError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    values = {key: value for key, value in raw.items() if key in FLAGS and value is not None}
    for key, value in values.items():
        if isinstance(value, dict | list):
            raise UsageError(f"{path}: {key} takes one value as its flag does, got {value!r}")
        if key in _PATH_FLAGS:
            values[key] = path.parent / str(value)
        elif key == "keep":
            if not isinstance(value, bool):
                raise UsageError(f"{path}: keep is true or false, got {value!r}")
        elif key not in ("bit-depth", "seed"):
            values[key] = str(value)
    source = str(raw["source"])
    if source.endswith(".onnx"):
        source = str(path.parent / source)
    return source, values


def _one_of(flag: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise UsageError(f"{flag}: {value!r} is not one of {listed}")
    return value
