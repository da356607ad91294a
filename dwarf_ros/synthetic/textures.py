"""Textures for made scenes: procedural noise of many kinds and photos, filtered beforehand into one atlas."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.formats import read_image
from dwarf_ros.types import InputError, as_rgb8

SIZE = 384
"""Width and height of a texture, texels."""

PERIOD = 2 * SIZE
"""How far apart a mirrored texture's repeats are, texels."""

SCIKIT_IMAGE = "scikit-image"
"""Names the photos that come with scikit-image, in place of a folder."""

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
        texels: uint8 atlas of four channels, RGB and nothing, which are gathered twice as fast as three; a texture is a strip of rows, its levels lie side by side.
        count: number of textures.
        shrink: float32 L, resolution of each level against the first.
        column: float32 L, atlas column of each level's left edge.
        mean: float32 count x 3, mean colour of each texture.
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
        """Colours of footprints on textures: the mean over a pixel's parallelogram, as near as four taps come.

        All are float32 N, and lengths are in periods of the mirrored textures, `PERIOD` texels of the first level.

        Args:
            texture: number of each one's texture, whole.
            s: centre across; outside 0 .. 1/2 the texture is mirrored.
            t: centre downwards, alike.
            along_s: the footprint's long axis.
            along_t: the same, downwards.
            area: of the footprint.

        Returns:
            float32 N x 4, RGB, 0 .. 255, and nothing.
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


def rows_of(colours: np.ndarray) -> np.ndarray:
    """A float32 N x 4 array as N items: rows are picked and set several times faster so."""
    return colours.view(np.complex128).reshape(-1)


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
    sizes = [SIZE]
    while sizes[-1] > _SMALLEST_LEVEL:
        sizes.append(round(SIZE / math.sqrt(2) ** len(sizes)))
    column = np.cumsum([0] + [size + 2 * _BORDER for size in sizes])
    strip = SIZE + 2 * _BORDER
    texels = np.zeros((count * strip, column[-1], 4), np.uint8)
    mean = np.empty((count, 3), np.float32)
    kinds = []
    for index in range(count):
        rng = np.random.default_rng([seed, index, 0x7E87])
        if photos and index % 2 == 0:
            kinds.append("photo")
            texture = _photo(rng, photos)
        else:
            kind = _KINDS[rng.integers(len(_KINDS))]
            kinds.append(kind.__name__.removeprefix("_"))
            texture = kind(rng)
        mean[index] = texture.mean(axis=(0, 1))
        for size, left in zip(sizes, column[:-1], strict=True):
            level = (
                texture
                if size == SIZE
                else cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA)
            )
            framed = cv2.copyMakeBorder(level, *(_BORDER,) * 4, cv2.BORDER_REPLICATE)
            top = index * strip
            texels[top : top + len(framed), left : left + len(framed), :3] = framed
    return TextureBank(
        texels=texels,
        count=count,
        shrink=(np.array(sizes) / SIZE).astype(np.float32),
        column=(column[:-1] + _BORDER - 0.5).astype(np.float32),
        mean=mean,
        kinds=tuple(kinds),
    )


def _photo(rng: np.random.Generator, files: list[Path]) -> np.ndarray:
    """A square part of a photo; files that cannot be read are passed over."""
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


# ---------------------------------------------------------------------------------------------------------------------
# Procedural kinds: each gives uint8 RGB, SIZE x SIZE.


def _octaves(rng: np.random.Generator, slope: float, channels: int = 1) -> np.ndarray:
    """Sum of octaves of value noise whose amplitude falls as frequency ** -slope; about zero mean, unit deviation."""
    total = np.zeros((SIZE, SIZE, channels), np.float32)
    cells = 3
    while cells <= SIZE:
        grid = rng.standard_normal((cells, cells, channels), dtype=np.float32)
        grown = cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        total += grown.reshape(total.shape) * np.float32(cells**-slope)
        cells *= 2
    total -= total.mean(axis=(0, 1))
    return total / (total.std(axis=(0, 1)) + np.float32(1e-6))


def _colour(rng: np.random.Generator) -> np.ndarray:
    """RGB, greyish as often as not."""
    grey = rng.uniform(20, 235)
    spread = rng.choice([6.0, 18.0, 50.0])
    return np.clip(grey + rng.normal(0, spread, 3), 5, 250).astype(np.float32)


def _ramp(rng: np.random.Generator, values: np.ndarray, colours: int) -> np.ndarray:
    """Values of -1.5 .. 1.5 through a ramp of random colours."""
    knots = np.linspace(-1.5, 1.5, colours)
    palette = np.stack([_colour(rng) for _ in range(colours)])
    flat = values.ravel()
    channels = [np.interp(flat, knots, palette[:, k]) for k in range(3)]
    return np.stack(channels, axis=-1).reshape(*values.shape[:2], 3)


def _finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A texture with fine grain and large stains."""
    grain = _octaves(rng, rng.uniform(0.0, 0.6)) * rng.uniform(0, 14)
    stains = _octaves(rng, rng.uniform(1.0, 1.5)) * rng.uniform(0, 16)
    return np.clip(image + grain + stains + 0.5, 0, 255).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    return axis[None, :], axis[:, None]


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _finish(rng, _ramp(rng, _octaves(rng, rng.uniform(0.1, 1.4)), int(rng.integers(2, 6))))


def _colour_noise(rng: np.random.Generator) -> np.ndarray:
    noise = _octaves(rng, rng.uniform(0.2, 1.3), 3)
    return _finish(rng, _colour(rng) + noise * rng.uniform(15, 60))


def _marble(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 16)
    warp = _octaves(rng, rng.uniform(0.8, 1.4))[..., 0] * rng.uniform(0.3, 2.5)
    wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + warp)
    return _finish(rng, _ramp(rng, 1.4 * wave, int(rng.integers(2, 5))))


def _ridges(rng: np.random.Generator) -> np.ndarray:
    ridges = 1.4 - 2.2 * np.abs(_octaves(rng, rng.uniform(0.5, 1.2))) ** 0.7
    return _finish(rng, _ramp(rng, ridges, int(rng.integers(2, 5))))


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Voronoi cells, each of its own colour, or shaded by the distance from their middle."""
    count = int(rng.choice([20, 60, 160]))
    canvas = np.full((SIZE, SIZE), 255, np.uint8)
    x, y = rng.integers(0, SIZE, (2, count))
    canvas[y, x] = 0
    distance, label = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5)
    palette = np.stack([_colour(rng) for _ in range(int(label.max()) + 1)])
    image = palette[label]
    shade = distance / (SIZE / math.sqrt(count))
    return _finish(rng, image * (1 + rng.uniform(-0.7, 0.4) * np.clip(shade, 0, 1))[..., None])


def _tiles(rng: np.random.Generator) -> np.ndarray:
    """Bricks, slabs or a chequered floor."""
    rows = int(rng.integers(2, 24))
    columns = max(2, int(rows * rng.uniform(0.4, 1.2)))
    shift = rng.choice([0.0, 0.5])
    joint = rng.uniform(0.0, 0.1)
    base, other, spread = _colour(rng), _colour(rng), rng.uniform(3, 35)
    chequered = rng.random() < 0.35
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _colour(rng)
    for row in range(rows):
        top, bottom = (int((row + e) * SIZE / rows) for e in (joint / 2, 1 - joint / 2))
        for column in range(-1, columns + 1):
            start = column + shift * (row % 2)
            left = int((start + joint / 2) * SIZE / columns)
            right = int((start + 1 - joint / 2) * SIZE / columns)
            tone = other if chequered and (row + column) % 2 else base
            image[top:bottom, max(0, left) : max(0, right)] = tone + rng.normal(0, spread)
    return _finish(rng, image)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Discs, rectangles, lines and bars upon each other, as on posters and shop fronts."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _colour(rng)
    largest = rng.choice([12, 40, 110])
    for _ in range(int(rng.integers(20, 90))):
        colour = tuple(float(c) for c in _colour(rng))
        x, y = (int(v) for v in rng.integers(0, SIZE, 2))
        a, b = (int(v) for v in rng.integers(3, largest, 2))
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(image, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        elif kind == 1:
            cv2.rectangle(image, (x, y), (x + a, y + b), colour, -1)
        elif kind == 2:
            end = (x + 3 * int(rng.normal(0, a)), y + 3 * int(rng.normal(0, b)))
            cv2.line(image, (x, y), end, colour, int(rng.integers(1, 8)))
        else:
            # Bars of one height and many widths look like writing from afar.
            high = int(rng.integers(6, 30))
            for _ in range(8):
                wide = int(rng.integers(2, max(3, high // 2)))
                cv2.rectangle(image, (x, y), (x + wide, y + high), colour, -1)
                x += wide + int(rng.integers(2, 2 + high // 2))
    return _finish(rng, image)


def _facade(rng: np.random.Generator) -> np.ndarray:
    """Rows of windows in a wall."""
    rows, columns = (int(v) for v in rng.integers(2, 9, 2))
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _colour(rng)
    wide, high = SIZE / columns * rng.uniform(0.3, 0.85), SIZE / rows * rng.uniform(0.3, 0.85)
    frame, glass = _colour(rng), _colour(rng)
    for row in range(rows):
        for column in range(columns):
            left = int((column + 0.5) * SIZE / columns - wide / 2)
            top = int((row + 0.5) * SIZE / rows - high / 2)
            right, bottom = int(left + wide), int(top + high)
            image[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = frame
            image[top:bottom, left:right] = glass + rng.normal(0, 18)
            fold = int(rng.uniform(0, 0.7) * (bottom - top))
            image[top : top + fold, left:right] += rng.uniform(0, 60)
    return _finish(rng, image)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Overlapping leaves or blades, bright above dark."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    base, tilt = _colour(rng), rng.uniform(0, 180)
    image[:] = base * 0.3
    long, slim = rng.uniform(4, 14), rng.uniform(0.15, 0.8)
    loose = rng.choice([15.0, 180.0])
    count = int(min(5 * SIZE * SIZE / (long * long * slim * 8), 2500))
    positions = rng.uniform(0, SIZE, (count, 2))
    for k, (x, y) in enumerate(positions):
        colour = base * (0.3 + 0.8 * k / count) + rng.normal(0, 14)
        angle = tilt + rng.normal(0, loose)
        cv2.ellipse(
            image, (int(x), int(y)), (int(long), max(1, int(long * slim))), float(angle), 0, 360,
            tuple(float(c) for c in colour), -1,
        )  # fmt: skip
    return _finish(rng, image)


_KINDS: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
    _noise,
    _colour_noise,
    _marble,
    _ridges,
    _cells,
    _tiles,
    _shapes,
    _facade,
    _leaves,
)
