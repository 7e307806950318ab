"""What a build is asked for: flags and YAML, resolved at the edge into small frozen values.

No stage sees all of it: each takes the part that it needs.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irstd.calibration.observers import METHODS
from irstd.compile.checkpoint import DEFAULT_INPUT_NORM_EPS
from irstd.errors import UsageError
from irstd.files import printable
from irstd.fingerprint import to_plain
from irstd.manifest_json import INT8_FORMS
from irstd.targets import find_target
from irstd.types import BIT_DEPTHS, Fit, Precision

OUTPUT_KINDS = ("auto", "logits", "probabilities")


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

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if not (len(self.mean) == len(self.std) in (1, 3) and all(map(math.isfinite, numbers))):
            raise UsageError(f"--normalize: {numbers}; wanted finite numbers, 1 or 3 of each kind")
        if min(self.std) <= 0:
            raise UsageError(f"--normalize: standard deviation {min(self.std)}; wanted above 0")

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
class SourceSettings:
    """Where the network comes from, and how frames meet it.

    Attributes:
        name: A network name or the path of an .onnx file.
        weights: Checkpoint for a named network; None takes the shipped one.
        input_norm_eps: Of the BatchNorm on the raw input of a public checkpoint, in (0, 1), which
            its file cannot tell (docs/adr/0008-input-norm-eps.md).
        imgsz: (height, width) px; None takes the source's.
        normalize: None takes what the weights say.
        output: One of OUTPUT_KINDS.
        bit_depth: 8, 14 or 16.
        fit: What happens to frames of another size.
    """

    name: str
    weights: Path | None = None
    input_norm_eps: float = DEFAULT_INPUT_NORM_EPS
    imgsz: tuple[int, int] | None = None
    normalize: Normalization | None = None
    output: str = "auto"
    bit_depth: int = 8
    fit: Fit = Fit.PAD

    def __post_init__(self) -> None:
        one_of("--output", self.output, OUTPUT_KINDS)
        one_of("--bit-depth", self.bit_depth, BIT_DEPTHS)
        if not 0 < self.input_norm_eps < 1:
            raise UsageError(f"--input-norm-eps: got {self.input_norm_eps}, wanted 0 < eps < 1")


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """The frames that calibrate and verify.

    Attributes:
        data: Data folder; half calibrates, half verifies.
        list_file: Restricts `data` to these stems.
        verify_data: Verify on this folder instead, and calibrate on all of `data`.
        verify_list: Restricts `verify_data` to these stems.
        seed: Of the split, and of simulated frames; below 2^32.
    """

    data: Path | None = None
    list_file: Path | None = None
    verify_data: Path | None = None
    verify_list: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, value, needs, given in (
            ("--list", self.list_file, "--data", self.data),
            ("--verify-list", self.verify_list, "--verify-data", self.verify_data),
        ):
            if value is not None and given is None:
                raise UsageError(f"{flag} needs {needs} DIR")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"--seed: got {self.seed}, wanted 0 to {(1 << 32) - 1}")


@dataclasses.dataclass(frozen=True)
class LoweringSettings:
    """What the plain graph becomes.

    Attributes:
        target: Key of TARGETS.
        precision: Of the deployed graph.
        calibration: Key of METHODS.
        int8_form: One of INT8_FORMS; None takes the target's.
    """

    target: str = "cpu"
    precision: Precision = Precision.FP32
    calibration: str = "minmax"
    int8_form: str | None = None

    def __post_init__(self) -> None:
        target = find_target(self.target)
        one_of("--calibration", self.calibration, tuple(METHODS))
        if self.int8_form is None:
            return
        one_of("--int8-form", self.int8_form, INT8_FORMS)
        if target.int8_form == "nvidia" and self.int8_form == "cpu":
            raise UsageError(
                f"--int8-form cpu cannot run on {self.target}: its engines take symmetric "
                "signed activations (nvidia)"
            )

    @property
    def form(self) -> str:
        """The one of INT8_FORMS that an INT8 graph takes."""
        return self.int8_form or find_target(self.target).int8_form


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """One build: the long flags of `irstd-compile build` (interface.md), resolved.

    Attributes:
        source: Where the network comes from.
        frames: What calibrates and verifies it.
        lowering: What it becomes.
        budget: Allowed change of accuracy by metric, from `parse_budget`.
        keep: Write the bundle even if the budget is violated.
    """

    source: SourceSettings
    frames: FrameSettings = dataclasses.field(default_factory=FrameSettings)
    lowering: LoweringSettings = dataclasses.field(default_factory=LoweringSettings)
    budget: Mapping[str, float] = dataclasses.field(default_factory=dict)
    keep: bool = False

    def __post_init__(self) -> None:
        if self.lowering.precision is Precision.INT8 and self.frames.data is None:
            raise UsageError("--precision int8 needs --data DIR: frames to calibrate on")
        if self.budget and self.frames.data is None and self.frames.verify_data is None:
            raise UsageError("--budget needs labelled frames to verify on: --data DIR")

    @property
    def input_files(self) -> tuple[Path, ...]:
        """The single files that the build reads, which no output may replace."""
        source, frames = self.source, self.frames
        named = (Path(source.name), source.weights, frames.list_file, frames.verify_list)
        return tuple(path for path in named if path is not None)

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON values, paths without folders; stored in the bundle."""
        values: dict[str, Any] = {"budget": dict(self.budget), "keep": self.keep}
        for part in (self.source, self.frames, self.lowering):
            values |= dataclasses.asdict(part)
        values["source"] = printable(Path(values.pop("name")).name)
        for name, value in values.items():
            if isinstance(value, Path):
                values[name] = printable(value.name)
        plain: dict[str, Any] = to_plain(values)
        return plain


def one_of(flag: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Return `value` if it is among `choices`.

    Raises:
        UsageError: It is not; the message lists them.
    """
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise UsageError(f"{flag}: {value!r} is not one of {listed}")
    return value
