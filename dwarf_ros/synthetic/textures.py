"""Textures for synthetic scenes: procedural noise of many kinds and photos, filtered beforehand into one atlas."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.formats import read_image
from dwarf_ros.synthetic.painting import KINDS, SIZE, paint_facade, paint_grain, paint_sky
from dwarf_ros.types import InputError, as_rgb8

PERIOD = 2 * SIZE
"""How far apart a mirrored texture's repeats are, texels."""

SCIKIT_IMAGE = "scikit-image"
"""Names the photos that come with scikit-image, in place of a folder."""

FLOORS = 4
"""Rows of windows in a facade of `street_bank`."""

_STREET = {
    "grain": 4,
    "noise": 4,
    "facade": 10,
    "tiles": 6,
    "shapes": 6,
    "leaves": 4,
    "ridges": 3,
    "cells": 2,
}
_MOST_TEXTURES = 80
_PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_SMALLEST_LEVEL = 4
_BORDER = 1
_EXPONENT_OF_ONE = 127
_COLUMNS = 512


@dataclass(frozen=True, eq=False)
class TextureBank:
    """Textures of `SIZE` x `SIZE` texels, mirrored at their edges, each at every half octave of resolution.

    Attributes:
        texels: uint8 atlas of four channels, RGB and nothing, which are gathered twice as fast as three; a texture is a strip of
            rows with its levels side by side.
        count: number of textures.
        shrink: float32 L, resolution of each level against the first.
        column: float32 L, atlas column of each level's left edge.
        mean: float32 count x 3, mean color of each texture.
        kinds: what each texture is, e.g. "leaves"; "photo" for parts of photos.
    """

    texels: np.ndarray
    count: int
    shrink: np.ndarray
    column: np.ndarray
    mean: np.ndarray
    kinds: tuple[str, ...]

    @cached_property
    def _levels(self) -> list[np.ndarray]:
        """`shrink`, in texels of the level to a period, and `column`, as look-up tables by a float's exponent."""
        tables = (self.shrink * np.float32(PERIOD), self.column)
        return [np.roll(np.resize(table, (1, 256)), _EXPONENT_OF_ONE) for table in tables]

    def fetch(
        self,
        texture: np.ndarray,
        s: np.ndarray,
        t: np.ndarray,
        along_s: np.ndarray,
        along_t: np.ndarray,
        area: np.ndarray,
    ) -> np.ndarray:
        """Colors of footprints on textures: approximately the mean over a pixel's parallelogram, by four taps.

        All are float32 N, and lengths are in periods of the mirrored textures, `PERIOD` texels of the first level.

        Args:
            texture: number of each one's texture, whole.
            s: center across; outside 0 to 1/2 the texture is mirrored.
            t: center downwards, likewise.
            along_s: the footprint's long axis.
            along_t: the same, downwards.
            area: of the footprint.

        Returns:
            float32 N x 4, RGB, 0 to 255, and nothing.
        """
        long = along_s * along_s
        long += along_t * along_t
        np.maximum(long, np.float32(1e-12), out=long)
        across = area * area
        across /= long
        drawn_out = long > 2.25 * np.maximum(across, np.float32((0.7 / PERIOD) ** 2))
        np.maximum(across, np.float32(0.0625) * long, out=across)
        cv2.copyTo(across, drawn_out.view(np.uint8), long)
        # The next coarser half octave, where rounding takes it: a little soft rather than a little aliased. A float's
        # exponent is its logarithm rounded down.
        long *= np.float32(2**0.7 * PERIOD**2)
        np.maximum(long, 1, out=long)
        np.minimum(long, np.float32(2.0 ** (len(self.shrink) - 1)), out=long)
        level = (long.view(np.int32) >> 23).astype(np.uint8)
        shrink, column = (cv2.LUT(level, table).ravel() for table in self._levels)
        row = texture * np.float32(SIZE + 2 * _BORDER)
        row += np.float32(_BORDER - 0.5)
        result = self._tap(row, column, shrink, s, t).astype(np.float32)
        chosen = np.flatnonzero(drawn_out)
        if len(chosen):
            row, column, shrink, s, t, along_s, along_t = (
                values.take(chosen) for values in (row, column, shrink, s, t, along_s, along_t)
            )
            along_s *= np.float32(0.25)
            along_t *= np.float32(0.25)
            s -= np.float32(1.5) * along_s
            t -= np.float32(1.5) * along_t
            total = self._tap(row, column, shrink, s, t).astype(np.uint16)
            for _ in range(3):
                s += along_s
                t += along_t
                total += self._tap(row, column, shrink, s, t)
            rows_of(result)[chosen] = rows_of(total * np.float32(0.25))
        return result

    def _tap(
        self, row: np.ndarray, column: np.ndarray, shrink: np.ndarray, s: np.ndarray, t: np.ndarray
    ) -> np.ndarray:
        # remap takes images of less than 32768 px a side, so that N samples are laid out in rows.
        shape = (-(-s.size // _COLUMNS), _COLUMNS)
        at = np.empty((2, *shape), np.float32)
        at.reshape(2, -1)[:, s.size :] = 0
        for image, values, start in ((at[0], s, column), (at[1], t, row)):
            place = image.reshape(-1)[: s.size]
            # Each repeat is the mirror image of the one before.
            np.rint(values, out=place)
            place -= values
            np.abs(place, out=place)
            place *= shrink
            place += start
        return cv2.remap(self.texels, at[0], at[1], cv2.INTER_LINEAR).reshape(-1, 4)[: s.size]


def rows_of(colors: np.ndarray) -> np.ndarray:
    """A float32 N x 4 array as N items: rows are picked and set several times faster so."""
    return colors.view(np.complex128).reshape(-1)


def photo_files(images: Path | str) -> list[Path]:
    """Image files of a folder and the folders in it, sorted; `SCIKIT_IMAGE` names the photos of that package.

    Raises:
        InputError: there is no such folder or package, or it holds no image.
    """
    if images == SCIKIT_IMAGE:
        package = importlib.util.find_spec("skimage")
        if package is None or package.origin is None:
            raise InputError(
                "images: scikit-image is not installed (pip install scikit-image), expected it or a folder"
            )
        folder = Path(package.origin).parent / "data"
    else:
        folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"images: {folder} is no folder, expected one with images")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _PHOTO_SUFFIXES)
    if not files:
        raise InputError(
            f"images: {folder} holds no image, expected {', '.join(_PHOTO_SUFFIXES)} files"
        )
    return files


@lru_cache(maxsize=2)
def texture_bank(seed: int, count: int, images: Path | str | None = None) -> TextureBank:
    """Textures drawn from a seed: the same arguments (and image files) give the same texels.

    Args:
        seed: >= 0.
        count: number of textures, 1 to 80.
        images: half of the textures are parts of these photos: a folder, or `SCIKIT_IMAGE`.

    Raises:
        InputError: count is out of its range, see `photo_files`, or no image can be read.
    """
    if not 1 <= count <= _MOST_TEXTURES:
        raise InputError(f"textures: {count}, expected 1 to {_MOST_TEXTURES}")
    photos = [] if images is None else photo_files(images)
    textures = []
    for index in range(count):
        rng = np.random.default_rng([seed, index, 0x7E87])
        if photos and index % 2 == 0:
            textures.append(("photo", _photo(rng, photos)))
        else:
            kind = list(KINDS)[rng.integers(len(KINDS))]
            textures.append((kind, KINDS[kind](rng)))
    return _bank(textures)


@lru_cache(maxsize=1)
def street_bank() -> TextureBank:
    """Textures of drives: pale, with mean 128 and standard deviation 40, but for the last, a sky."""
    rng = np.random.default_rng(1)
    textures = []
    for kind, count in _STREET.items():
        for _ in range(count):
            if kind == "facade":
                texture = paint_facade(rng, FLOORS, int(rng.integers(4, 7)))
            else:
                texture = KINDS.get(kind, paint_grain)(rng)
            pale = texture.mean(axis=2, keepdims=True) * 0.7 + texture * np.float32(0.3)
            pale = 128 + (pale - pale.mean()) * (40 / pale.std())
            textures.append((kind, np.clip(pale, 0, 255).astype(np.uint8)))
    return _bank([*textures, ("sky", paint_sky(rng))])


def _bank(textures: list[tuple[str, np.ndarray]]) -> TextureBank:
    sizes = [SIZE]
    while sizes[-1] > _SMALLEST_LEVEL:
        sizes.append(round(SIZE / math.sqrt(2) ** len(sizes)))
    column = np.cumsum([0] + [size + 2 * _BORDER for size in sizes])
    strip = SIZE + 2 * _BORDER
    texels = np.zeros((len(textures) * strip, column[-1], 4), np.uint8)
    for index, (_, texture) in enumerate(textures):
        for size, left in zip(sizes, column[:-1], strict=True):
            # A copy at the first level.
            level = cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA)
            framed = cv2.copyMakeBorder(level, *(_BORDER,) * 4, cv2.BORDER_REPLICATE)
            top = index * strip
            texels[top : top + len(framed), left : left + len(framed), :3] = framed
    return TextureBank(
        texels=texels,
        count=len(textures),
        shrink=(np.array(sizes) / SIZE).astype(np.float32),
        column=(column[:-1] + _BORDER - 0.5).astype(np.float32),
        mean=np.array([texture.mean(axis=(0, 1)) for _, texture in textures], np.float32),
        kinds=tuple(kind for kind, _ in textures),
    )


def _photo(rng: np.random.Generator, files: list[Path]) -> np.ndarray:
    """A square part of a photo; unreadable files are skipped."""
    error: InputError | None = None
    for place in rng.permutation(len(files))[:20]:
        try:
            photo = as_rgb8(read_image(files[place]))
        except InputError as reason:
            error = reason
            continue
        height, width = photo.shape[:2]
        side = int(min(height, width) * rng.uniform(0.6, 1.0))
        if side < 16:
            error = InputError(f"images: {files[place]} is {width} x {height} px, expected more")
            continue
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        part = photo[top : top + side, left : left + side]
        shrinks = side > SIZE
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(part, (SIZE, SIZE), interpolation=interpolation)
    assert error is not None
    raise error
