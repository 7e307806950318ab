"""Annotated pictures: the frame stretched to 8 bit, a bracket and a score for each target."""

import numpy as np
from numpy.typing import NDArray

from irstd.frames import Frame
from irstd.types import Detections

_WANTED_SIDE_PX = 800
_MAX_ZOOM = 4
# A few saturated pixels must not decide the contrast of the rest.
_DARK_PERCENTILE, _BRIGHT_PERCENTILE = 0.5, 99.9
_GAP_PX = 3.0  # between a target and its bracket, frame pixels
_COLOUR = (90, 230, 255)  # BGR: amber, which no grey scene contains
_OUTLINE = (20, 20, 20)
_FONT_HEIGHT_PX = 11


def annotate(frame: Frame, detections: Detections) -> NDArray[np.uint8]:
    """Draw detections over a frame.

    Only the corners of each box are drawn, some pixels away from it, so that a target of a few
    pixels stays visible. Small frames are enlarged by a whole factor, at most 4, to about 800 px.

    Args:
        frame: (H, W) of any depth.
        detections: In the frame's pixels.

    Returns:
        (zoom H, zoom W, 3) uint8 BGR.
    """
    import cv2

    height, width = frame.shape
    zoom = min(max(round(_WANTED_SIDE_PX / max(height, width)), 1), _MAX_ZOOM)
    size = (width * zoom, height * zoom)
    enlarged = cv2.resize(_stretch(frame), size, interpolation=cv2.INTER_NEAREST)
    picture = np.asarray(cv2.cvtColor(enlarged, cv2.COLOR_GRAY2BGR), np.uint8)
    for box, score in zip(detections.box_xyxy, detections.score, strict=True):
        # Pixel edges run from -0.5; in the enlarged picture from 0.
        x0, y0 = (box[:2] + 0.5 - _GAP_PX) * zoom
        x1, y1 = (box[2:] + 0.5 + _GAP_PX) * zoom
        corners = round(x0), round(y0), round(x1) - 1, round(y1) - 1
        _draw_bracket(picture, corners)
        _draw_score(picture, corners, f"{score:.2f}")
    return picture


def _stretch(frame: Frame) -> NDArray[np.uint8]:
    low, high = np.percentile(frame, (_DARK_PERCENTILE, _BRIGHT_PERCENTILE))
    gain = 255 / max(float(high - low), 1.0)
    scaled: NDArray[np.float32] = (frame.astype(np.float32) - np.float32(low)) * np.float32(gain)
    return scaled.clip(0, 255).astype(np.uint8)


def _draw_bracket(picture: NDArray[np.uint8], corners: tuple[int, int, int, int]) -> None:
    import cv2

    x0, y0, x1, y1 = corners
    arm = max(3, min(x1 - x0, y1 - y0) // 4)
    for x, dx in ((x0, arm), (x1, -arm)):
        for y, dy in ((y0, arm), (y1, -arm)):
            path = np.array([(x + dx, y), (x, y), (x, y + dy)], np.int32)
            cv2.polylines(picture, [path], False, _COLOUR, 1)


def _draw_score(picture: NDArray[np.uint8], corners: tuple[int, int, int, int], text: str) -> None:
    """Write beside the bracket, on the side where there is room."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = cv2.getFontScaleFromHeight(font, _FONT_HEIGHT_PX, 1)
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, 1)
    x0, y0, x1, _ = corners
    height, width = picture.shape[:2]
    x = x1 + 4 if x1 + 4 + text_width <= width else x0 - 4 - text_width
    y = min(max(y0 + text_height, text_height), height - 2)
    for colour, thickness in ((_OUTLINE, 3), (_COLOUR, 1)):
        cv2.putText(picture, text, (x, y), font, scale, colour, thickness, cv2.LINE_AA)
