"""Connected components, once for metrics and postprocessing (OpenCV underneath)."""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Components:
    """The 8-connected components of a binary map, in raster order of their first pixel.

    Attributes:
        labels: (H, W) int32; 0 is background, component i has label `order[i]`.
        order: (N,) int32, the label of each component.
        area_px: (N,) int32.
        centroid_yx: (N, 2) float64, mean pixel coordinates; pixel (0, 0) has its centre at (0, 0).
        box_xyxy: (N, 4) int32, half-open: x0, y0, x1, y1.
        first_px: (N,) int64, flat index of the first pixel in raster order.
    """

    labels: NDArray[np.int32]
    order: NDArray[np.int32]
    area_px: NDArray[np.int32]
    centroid_yx: NDArray[np.float64]
    box_xyxy: NDArray[np.int32]
    first_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)


def label_components(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> Components:
    """Find the 8-connected components of a (H, W) binary map; non-zero is foreground."""
    import cv2

    binary = np.ascontiguousarray(mask).view(np.uint8)
    _, *found = cv2.connectedComponentsWithStats(binary, connectivity=8, ltype=cv2.CV_32S)
    labels, stats = np.asarray(found[0], np.int32), np.asarray(found[1], np.int32)
    # OpenCV scans 2x2 blocks, so its label order is not raster order of the first pixel. Of
    # repeated indices the last assignment stays: hence the reversal.
    flat = labels.ravel()
    foreground = np.flatnonzero(flat)[::-1]
    first = np.zeros(len(stats), np.int64)
    first[flat[foreground]] = foreground
    order = 1 + np.argsort(first[1:]).astype(np.int32)
    x0, y0, width, height, area = stats[order].T
    return Components(
        labels=labels,
        order=order,
        area_px=area.copy(),
        centroid_yx=np.asarray(found[2], np.float64)[order, ::-1],
        box_xyxy=np.stack([x0, y0, x0 + width, y0 + height], axis=1),
        first_px=first[order],
    )
