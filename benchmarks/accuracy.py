"""Accuracy of a bundle as it is deployed: its own preprocessing, engine, padding and tiling."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.footage import add_to_hash
from irstd.errors import InputError
from irstd.frames import Frame, LabelledFiles, read_labelled
from irstd.metrics import Scores, evaluate


class Scoring(Protocol):
    """What an accuracy measurement needs of a detector; `irstd.runtime` has the real one."""

    def probabilities(self, frame: Frame) -> NDArray[np.float32]:
        """Return the (H, W) probability map of one frame."""
        ...


@dataclasses.dataclass(frozen=True)
class AccuracyRun:
    """Scores, and the hash of the pixels of all frames and masks that they come from."""

    scores: Scores
    data_sha256: str


def measure_accuracy(
    detector: Scoring,
    files: Sequence[LabelledFiles],
    threshold: float,
    *,
    between: Callable[[int], None] = lambda done: None,
) -> AccuracyRun:
    """Score a detector on labelled files.

    Args:
        detector: The subject.
        files: Images with masks; the score maps of all of them are kept, 4 bytes a
            pixel.
        threshold: Probability above which a pixel is positive, in [0, 1).
        between: Called after each frame with the number done.

    Raises:
        InputError: A file that cannot be read, that does not fit the bundle, a mask that is missing
            or of another size than its image; the message names the file. Or no target at all.
    """
    digest = hashlib.sha256()

    def scored() -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        for done, pair in enumerate(files, start=1):
            frame, mask = read_labelled(pair)
            add_to_hash(digest, frame)
            add_to_hash(digest, mask)
            try:
                probability = detector.probabilities(frame)
            except InputError as error:
                raise InputError(f"{pair.image}: {error}") from error
            yield probability, mask
            between(done)

    left, right = itertools.tee(scored())  # evaluate reads both in step, so one pair is buffered
    scores = evaluate((pair[0] for pair in left), (pair[1] for pair in right), threshold)
    if not scores.targets:
        raise InputError(
            f"none of the {len(files)} frames holds a target: accuracy cannot be measured; add "
            "frames with targets"
        )
    return AccuracyRun(scores, digest.hexdigest())
