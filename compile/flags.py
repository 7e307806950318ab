"""Reading the long flags of `irstd-compile build`, from the command line, YAML or Python."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from irstd.compile.accuracy import check_budget, parse_budget
from irstd.compile.settings import (
    BuildSettings,
    FrameSettings,
    LoweringSettings,
    Normalization,
    SourceSettings,
    one_of,
)
from irstd.errors import UsageError
from irstd.files import cache_dir, to_path
from irstd.manifest_json import MAX_SIDE_PX
from irstd.types import Fit, Precision

NORMALIZE_MAX = "max"
YAML_SUFFIXES = (".yaml", ".yml")


def parse_size(value: Any) -> tuple[int, int]:
    """Read "HEIGHTxWIDTH" or a pair of integers."""
    text = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < min(size) <= max(size) <= MAX_SIDE_PX:
        raise UsageError(
            f"--imgsz is HEIGHTxWIDTH in pixels, such as 512x640, at most {MAX_SIDE_PX}; "
            f"got {value!r}"
        )
    return size


def parse_normalization(value: Any) -> Normalization:
    """Read "MEAN,STD", "M1,M2,M3,S1,S2,S3" (grey levels), such a sequence of numbers, or "max"."""
    if isinstance(value, Normalization):
        return value
    if str(value).strip() == NORMALIZE_MAX:
        return Normalization((0.0,), (1.0,), per_frame_max=True)
    try:
        parts = value if isinstance(value, list | tuple) else str(value).split(",")
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) not in (2, 6):
        raise UsageError(
            f"--normalize is MEAN,STD or M1,M2,M3,S1,S2,S3 in grey levels, or max; got {value!r}"
        )
    half = len(numbers) // 2
    return Normalization(numbers[:half], numbers[half:])


def parse_precision(value: Any) -> Precision:
    """Read a precision that this version builds."""
    return Precision(one_of("--precision", value, tuple(item.value for item in Precision)))


def parse_fit(value: Any) -> Fit:
    """Read what happens to frames of another size."""
    return Fit(one_of("--fit", value, tuple(item.value for item in Fit)))


def _budget(value: Any) -> dict[str, float]:
    return check_budget(value) if isinstance(value, Mapping) else parse_budget(str(value))


def _whole(value: Any) -> int:
    return int(str(value))  # refuses 1.5 and True, which int() would round


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


@dataclasses.dataclass(frozen=True)
class Flag:
    """One long flag of `build`.

    Attributes:
        part: The settings it belongs to; None: it says how to build, not what.
        field: Its name there.
        read: Turns text, or the value that the text stands for, into the field's value.
    """

    part: type | None
    field: str
    read: Callable[[Any], Any]


FLAGS: dict[str, Flag] = {
    "target": Flag(LoweringSettings, "target", str),
    "precision": Flag(LoweringSettings, "precision", parse_precision),
    "calibration": Flag(LoweringSettings, "calibration", str),
    "int8-form": Flag(LoweringSettings, "int8_form", str),
    "weights": Flag(SourceSettings, "weights", to_path),
    "input-norm-eps": Flag(SourceSettings, "input_norm_eps", float),
    "imgsz": Flag(SourceSettings, "imgsz", parse_size),
    "normalize": Flag(SourceSettings, "normalize", parse_normalization),
    "output": Flag(SourceSettings, "output", str),
    "bit-depth": Flag(SourceSettings, "bit_depth", _whole),
    "fit": Flag(SourceSettings, "fit", parse_fit),
    "data": Flag(FrameSettings, "data", to_path),
    "list": Flag(FrameSettings, "list_file", to_path),
    "verify-data": Flag(FrameSettings, "verify_data", to_path),
    "verify-list": Flag(FrameSettings, "verify_list", to_path),
    "seed": Flag(FrameSettings, "seed", _whole),
    "budget": Flag(BuildSettings, "budget", _budget),
    "keep": Flag(BuildSettings, "keep", _switch),
    "cache": Flag(None, "cache", to_path),
    "no-cache": Flag(None, "no_cache", _switch),
    "dry-run": Flag(None, "dry_run", _switch),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """A build as it was asked for: what to build, and how to go about it.

    Attributes:
        settings: What to build.
        cache: Folder for stage results; None takes the user's.
        no_cache: Compute every stage anew.
        dry_run: Resolve and check, build nothing.
    """

    settings: BuildSettings
    cache: Path | None = None
    no_cache: bool = False
    dry_run: bool = False

    @property
    def cache_folder(self) -> Path | None:
        """Folder for stage results, None for none."""
        return None if self.no_cache else self.cache or cache_dir()


def resolve(source: str, flags: Mapping[str, Any]) -> Request:
    """Make a request from what was given.

    Args:
        source: SOURCE of the command; a `.yaml` file gives defaults that flags override.
        flags: Long flags without dashes, as text or as what the text stands for; None: not given.

    Raises:
        UsageError: An unknown flag or key, or a value that is not valid.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if unknown := sorted(set(given) - set(FLAGS)):
        raise UsageError(f"unknown flag {unknown[0]!r}; known: {', '.join(FLAGS)}")
    if Path(source).suffix in YAML_SUFFIXES:
        source, defaults = read_yaml(Path(source))
        given = {**defaults, **given}
    parts: dict[type | None, dict[str, Any]] = {flag.part: {} for flag in FLAGS.values()}
    for name, value in given.items():
        flag = FLAGS[name]
        parts[flag.part][flag.field] = _read(name, value)
    settings = BuildSettings(
        source=SourceSettings(source, **parts[SourceSettings]),
        frames=FrameSettings(**parts[FrameSettings]),
        lowering=LoweringSettings(**parts[LoweringSettings]),
        **parts[BuildSettings],
    )
    return Request(settings, **parts[None])


def read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a build configuration: the key `source`, and long flags; paths relative to the file.

    Returns:
        SOURCE, and the flags that are set.

    Raises:
        UsageError: Not readable, not YAML, an unknown key, or a value of a wrong kind.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("source"), str):
        raise UsageError(f"{path}: wanted a mapping with the key source and any long flags")
    known = ["source", *FLAGS]
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise UsageError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    values = {key: value for key, value in raw.items() if key in FLAGS and value is not None}
    for key, value in values.items():
        if isinstance(value, dict | list):
            raise UsageError(f"{path}: {key} takes one value as its flag does, got {value!r}")
        if FLAGS[key].read is to_path:
            values[key] = path.parent / to_path(value)
    source = raw["source"]
    return (str(path.parent / source) if source.endswith(".onnx") else source), values


def _read(name: str, value: Any) -> Any:
    try:
        return FLAGS[name].read(value)
    except UsageError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"--{name}: cannot take {value!r}") from error
