"""Draw what a bundle detects on a few frames beside where the targets truly are.

    python scripts/draw_detections.py acm.irstd -o docs/detections.png

Frames come from --data, else from real data sets where they are present ($IRSTD_DATA, or
`shared/data` beside the project), else from the simulator.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import irstd
from irstd.components import label_components
from irstd.frames import Frame, list_labelled, read_frame, read_mask
from irstd.runtime.draw import annotate
from irstd.simulate import default_scenes
from irstd.types import Detections

ROOT = Path(__file__).resolve().parent.parent
REAL_SETS = (("irstd_1k", "val.txt"), ("nudt_sirst", "val.txt"), ("sirst_v1", "test.txt"))
COLUMNS, ROWS = 4, 2
CELL_PX = 384
CROP_PX = 128
GAP_PX = 8
BACKGROUND = 24
TRUE_COLOUR = (120, 220, 120)  # BGR
MISS_COLOUR = (80, 80, 255)
TRUE_RADIUS_PX = 9
MATCH_PX = 3.0

Labelled = tuple[str, Frame, NDArray[np.bool_]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="labelled data folder")
    options = parser.parse_args(argv)
    cells = []
    with irstd.open_bundle(options.bundle) as detector:
        for name, frame, mask in choose(options.data, COLUMNS * ROWS):
            cells.append(draw_cell(name, frame, mask, detector(frame)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.out), tile(cells)):
        print(f"{options.out}: cannot be written", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(cells)} frames")
    return 0


def choose(data: Path | None, count: int) -> list[Labelled]:
    """Return labelled frames with targets, spread evenly over what there is."""
    found = list(_from(data, None, count) if data else _real(count) or _simulated(count))
    return found[:count]


def _real(count: int) -> list[Labelled]:
    root = Path(os.environ.get("IRSTD_DATA", ROOT.parent / "shared" / "data"))
    present = [(root / name, listed) for name, listed in REAL_SETS if (root / name).is_dir()]
    share = -(-count // max(1, len(present)))
    return [item for folder, listed in present for item in _from(folder, listed, share)]


def _from(folder: Path, listed: str | None, count: int) -> Iterator[Labelled]:
    files = list_labelled(folder, folder / listed if listed else None, masks_required=True)
    for file in files[:: max(1, len(files) // count)][:count]:
        assert file.mask is not None
        yield folder.name, read_frame(file.image), read_mask(file.mask)


def _simulated(count: int) -> list[Labelled]:
    return [("simulated", scene.frame, scene.mask) for scene in default_scenes(count)]


def draw_cell(
    name: str, frame: Frame, mask: NDArray[np.bool_], detections: Detections
) -> NDArray[np.uint8]:
    """Return a square cut around the first target, with what was found and what is true."""
    truth = label_components(mask)
    top, left = _corner(frame.shape, truth.centroid_yx)
    window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
    shown = annotate(frame[window], _inside(detections, top, left))
    zoom = shown.shape[0] / frame[window].shape[0]
    for y, x in truth.centroid_yx - (top, left):
        if not (0 <= y < CROP_PX and 0 <= x < CROP_PX):
            continue
        offsets = detections.centroid_yx - (y + top, x + left)
        hit = bool((np.hypot(*offsets.T) < MATCH_PX).any())
        centre = (round((x + 0.5) * zoom), round((y + 0.5) * zoom))
        colour = TRUE_COLOUR if hit else MISS_COLOUR
        cv2.circle(shown, centre, round(TRUE_RADIUS_PX * zoom), colour, 1, cv2.LINE_AA)
    cell = cv2.resize(shown, (CELL_PX, CELL_PX), interpolation=cv2.INTER_AREA)
    cv2.putText(
        cell, name, (8, CELL_PX - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (230, 230, 230), 1,
        cv2.LINE_AA,
    )  # fmt: skip
    return np.asarray(cell, np.uint8)


def _corner(shape: tuple[int, ...], centres_yx: NDArray[np.float64]) -> tuple[int, int]:
    middle = centres_yx[0] if len(centres_yx) else np.array(shape) / 2
    corner = [
        int(np.clip(round(c) - CROP_PX // 2, 0, max(0, extent - CROP_PX)))
        for c, extent in zip(middle, shape, strict=True)
    ]
    return corner[0], corner[1]


def _inside(detections: Detections, top: int, left: int) -> Detections:
    """Return the detections within the cut, in its pixels."""
    centroid = detections.centroid_yx - np.array([top, left], np.float32)
    kept = ((centroid >= 0) & (centroid < CROP_PX)).all(axis=1)
    shift = np.array([left, top, left, top], np.float32)
    return Detections(
        centroid_yx=centroid[kept],
        box_xyxy=detections.box_xyxy[kept] - shift,
        score=detections.score[kept],
        area_px=detections.area_px[kept],
        covariance_yx=detections.covariance_yx[kept],
        peak_logit=detections.peak_logit[kept],
    )


def tile(cells: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put cells into rows with a gap between them."""
    rows = -(-len(cells) // COLUMNS)
    step = CELL_PX + GAP_PX
    sheet = np.full((rows * step + GAP_PX, COLUMNS * step + GAP_PX, 3), BACKGROUND, np.uint8)
    for index, cell in enumerate(cells):
        y, x = (GAP_PX + step * place for place in divmod(index, COLUMNS))
        sheet[y : y + CELL_PX, x : x + CELL_PX] = cell
    return sheet


if __name__ == "__main__":
    sys.exit(main())
