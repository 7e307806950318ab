import cv2
import numpy as np
import pytest

from irstd.benchmarks.accuracy import measure_accuracy
from irstd.errors import InputError
from irstd.frames import list_labelled
from irstd.metrics import evaluate


class ByLevel:
    """Sees a target where the frame is bright."""

    def probabilities(self, frame):
        if frame.shape == (8, 8):
            raise InputError("too small")
        return np.clip(frame.astype(np.float32) / 255, 0, 1)


def test_scores_are_those_of_the_metrics_over_the_same_frames(write_folder):
    files = list_labelled(write_folder(5))
    done = []
    run = measure_accuracy(ByLevel(), files, 0.5, between=done.append)
    frames = [cv2.imread(str(pair.image), -1) for pair in files]
    masks = [cv2.imread(str(pair.mask), -1) for pair in files]
    assert run.scores == evaluate((f.astype(np.float32) / 255 for f in frames), masks, 0.5)
    assert (run.scores.iou, run.scores.pd, run.scores.frames, run.scores.targets) == (
        100,
        100,
        5,
        5,
    )
    assert done == [1, 2, 3, 4, 5]


def test_the_threshold_is_used_and_reported(write_folder):
    files = list_labelled(write_folder(2))
    low = measure_accuracy(ByLevel(), files, 0.1).scores
    assert low.threshold == 0.1
    assert low.iou < 1  # 40 / 255 is above it: the whole frame is positive


def test_the_hash_is_of_frames_and_masks(write_folder):
    folder = write_folder(2)
    files = list_labelled(folder)
    before = measure_accuracy(ByLevel(), files, 0.5).data_sha256
    assert measure_accuracy(ByLevel(), files, 0.5).data_sha256 == before
    cv2.imwrite(str(folder / "masks" / "0.png"), np.zeros((64, 64), np.uint8))
    assert measure_accuracy(ByLevel(), files, 0.5).data_sha256 != before


def test_what_is_wrong_with_a_file_names_it(write_folder):
    folder = write_folder(3)
    cv2.imwrite(str(folder / "masks" / "1.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"masks/1\.png: a mask of \(9, 9\)"):
        measure_accuracy(ByLevel(), list_labelled(folder), 0.5)
    for kind in ("images", "masks"):
        cv2.imwrite(str(folder / kind / "1.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"images/1\.png: too small"):
        measure_accuracy(ByLevel(), list_labelled(folder), 0.5)
    (folder / "images" / "1.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1\.png: not a readable image"):
        measure_accuracy(ByLevel(), list_labelled(folder), 0.5)


def test_unlabelled_files_are_refused(write_folder, tmp_path):
    files = list_labelled(write_folder(2) / "images")
    with pytest.raises(InputError, match="no mask"):
        measure_accuracy(ByLevel(), files, 0.5)
