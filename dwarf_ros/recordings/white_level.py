"""The range that 16-bit images use: cameras send 10, 12 or 14 bits in 16."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

_log = logging.getLogger(__name__)

FULL_RANGE = 65535
_BIT_DEPTHS = (8, 10, 12, 14, 16)
# Hot pixels do not count, and a part of all pixels is enough.
_PERCENTILE = 99.9
_STEP = 4


def white_level(images: Iterable[np.ndarray]) -> int:
    """White of the bit depth that 16-bit images use: the smallest of 8, 10, 12, 14 and 16 bits that holds their pixels.

    Args:
        images: uint8 or uint16, H x W or H x W x 3; what is uint8 does not count.

    Returns:
        255, 1023, 4095, 16383 or 65535; the last also where no image is uint16.
    """
    brightest = [
        float(np.percentile(image[::_STEP, ::_STEP], _PERCENTILE))
        for image in images
        if image.dtype == np.uint16
    ]
    if not brightest:
        return FULL_RANGE
    return next(white for bits in _BIT_DEPTHS if max(brightest) <= (white := (1 << bits) - 1))


class StreamWhiteLevel:
    """The white level of a stream: that of its first images, raised only where later ones exceed it."""

    def __init__(self) -> None:
        self._white = 0

    def of(self, *images: np.ndarray) -> int:
        """White of these images, the next of the stream."""
        if all(image.dtype != np.uint16 for image in images):
            return FULL_RANGE
        white = white_level(images)
        if white > self._white:
            self._white = white
            log_white_level(white, "images")
        return self._white


def log_white_level(white: int, name: str) -> None:
    """Log which range is scaled to 8 bits, unless it is all 16 bits."""
    if white < FULL_RANGE:
        _log.info(
            "%s: 16-bit pixels use %d bits: 0 to %d is scaled to 8 bits",
            name,
            white.bit_length(),
            white,
        )
