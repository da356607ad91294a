"""Text, color bars and the arrangement of pictures; all are uint8 RGB."""

from __future__ import annotations

import cv2
import numpy as np

PAPER = (22, 24, 29)
INK = (226, 229, 234)
FAINT_INK = (150, 156, 166)

BAR_MARGIN = 8
"""Distance of a color bar from the sides of its strip, px."""

FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_BOLD = cv2.FONT_HERSHEY_DUPLEX


def write_text(
    picture: np.ndarray,
    text: str,
    x: float,
    y: float,
    *,
    size: float = 0.42,
    color: tuple[int, int, int] = INK,
    font: int = FONT,
    anchor: str = "left",
    thickness: int = 1,
    background: tuple[int, int, int] | None = None,
) -> int:
    """Write text with its baseline at row y, moved inside the picture if necessary, and return its width, px.

    `anchor` is the point of the text at x: left, center or right. `background` fills a box behind the text.
    """
    (width, height), _ = cv2.getTextSize(text, font, size, 1)
    left = {"left": x, "center": x - width / 2, "right": x - width}[anchor]
    left = min(max(left, 2), picture.shape[1] - width - 2)
    if background is not None:
        box = (round(left) - 3, round(y) - height - 3), (round(left) + width + 3, round(y) + 4)
        cv2.rectangle(picture, *box, background, cv2.FILLED)
    cv2.putText(picture, text, (round(left), round(y)), font, size, color, thickness, cv2.LINE_AA)
    return width


def titled(picture: np.ndarray, title: str, note: str = "") -> np.ndarray:
    """Picture below a strip with a title on the left and a note on the right; uint8 RGB, 28 px taller."""
    strip = np.empty((28, picture.shape[1], 3), dtype=np.uint8)
    strip[:] = PAPER
    used = write_text(strip, title, 4, 19, size=0.5, font=FONT_BOLD)
    # A narrow picture has room for the title only.
    if used + cv2.getTextSize(note, FONT, 0.42, 1)[0][0] + 20 < strip.shape[1]:
        write_text(strip, note, strip.shape[1] - 4, 19, color=FAINT_INK, anchor="right")
    return np.vstack([strip, picture])


def horizontal_bar(
    picture: np.ndarray,
    box: tuple[int, int, int, int],
    colors: np.ndarray,
    ticks: list[tuple[float, str]],
) -> None:
    """Draw a color bar of colors 1 x width x 3 in a box (x, y, width, height), px, with ticks (share of the width, text) below."""
    x, y, width, height = box
    picture[y : y + height, x : x + width] = colors
    for share, text in ticks:
        column = x + round(share * (width - 1))
        cv2.line(picture, (column, y), (column, y + height + 2), INK, 1)
        write_text(picture, text, column, y + height + 15, size=0.38, anchor="center")


def color_bar(width: int, colors: np.ndarray, ticks: list[tuple[float, str]]) -> np.ndarray:
    """Strip with a color bar and labels below it.

    Args:
        width: of the strip, px; the bar starts and ends `BAR_MARGIN` px from its sides.
        colors: from left to right, uint8 RGB, N x 3.
        ticks: position along the bar, from 0 to 1, and text of each label.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    strip = np.empty((30, width, 3), dtype=np.uint8)
    strip[:] = PAPER
    bar = width - 2 * BAR_MARGIN
    columns = np.arange(bar) * len(colors) // bar
    horizontal_bar(strip, (BAR_MARGIN, 3, bar, 9), colors[columns][None], ticks)
    return strip


def side_by_side(pictures: list[np.ndarray], gap: int = 10) -> np.ndarray:
    """Pictures in a row, aligned at the top, on a dark background; uint8 RGB."""
    return _joined(pictures, gap, axis=1)


def stacked(pictures: list[np.ndarray], gap: int = 10) -> np.ndarray:
    """Pictures in a column, aligned on the left, on a dark background; uint8 RGB."""
    return _joined(pictures, gap, axis=0)


def _joined(pictures: list[np.ndarray], gap: int, axis: int) -> np.ndarray:
    across = 1 - axis
    length = sum(p.shape[axis] for p in pictures) + gap * (len(pictures) - 1)
    breadth = max(p.shape[across] for p in pictures)
    joined = np.empty((length, breadth, 3) if axis == 0 else (breadth, length, 3), dtype=np.uint8)
    joined[:] = PAPER
    start = 0
    for picture in pictures:
        place = [slice(0, picture.shape[0]), slice(0, picture.shape[1])]
        place[axis] = slice(start, start + picture.shape[axis])
        joined[tuple(place)] = picture
        start += picture.shape[axis] + gap
    return joined


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Picture of another size, averaged if it becomes smaller and interpolated if it becomes larger."""
    shrinks = width < picture.shape[1]
    return cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def over_dimmed(picture: np.ndarray, known: np.ndarray, image: np.ndarray | None) -> np.ndarray:
    """Picture with the dimmed image, in gray, where nothing is known; without an image, the picture itself.

    Args:
        picture: uint8 RGB, H x W x 3.
        known: bool H x W.
        image: uint8 RGB, H x W x 3.
    """
    if image is None or image.shape != picture.shape:
        return picture
    dimmed = (0.3 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).astype(np.uint8)
    return np.where(known[..., None], picture, dimmed[..., None])
