"""Effects of imperfect cameras: exposure, color, vignetting, blur, noise, and imprecise rectification."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

_NOISE = 1 << 20
_ROWS = 64


def sensor_effects(
    images: Sequence[np.ndarray], rng: np.random.Generator, strength: float = 1.0
) -> list[np.ndarray]:
    """The four images of a sample as two slightly different, imperfect cameras would have taken them.

    Exposure, gamma and color differ a lot between samples, a little between the cameras (sometimes more than a little),
    and a little between the times; colors are faint in many samples, and a quarter is grayscale; vignetting
    and the right camera's misalignment (up to about 1 px up or down, with a slight roll) stay with the camera; blur is the
    sample's and now and then one image's; noise is every image's own and grows with brightness. Ground truth stays as it
    is: a misalignment is an error of the data that a network has to live with.

    Args:
        images: left and right of the previous frame, left and right of the current one; uint8 RGB, H x W x 3.
        rng: what is drawn from.
        strength: 0 (nothing happens) to 1.

    Returns:
        New images, uint8 RGB.
    """
    if strength <= 0:
        return [image.copy() for image in images]
    height, width = images[0].shape[:2]
    common = _Look.draw(rng, strength)
    apart = 0.15 if rng.random() < 0.8 else 0.4
    cameras = [_Look.draw(rng, apart * strength) for _ in range(2)]
    times = [_Look.draw(rng, 0.12 * strength) for _ in range(2)]
    saturation = 1 - strength * (1 - float(np.clip(rng.uniform(-0.4, 1.2), 0, 1)))
    vignettes = [_vignette(rng, height, width, strength) for _ in range(2)]
    misaligned = rng.random() < 0.5
    shift = float(np.clip(rng.normal(0, 0.4), -1, 1)) * strength
    roll = float(rng.normal(0, 0.0006)) * strength
    softness = float(rng.uniform(0, 0.8)) * strength * (rng.random() < 0.6)
    read_noise, shot_noise = (float(rng.uniform(0, 3) ** 1.5) * strength for _ in range(2))
    results = []
    for index, image in enumerate(images):
        time, eye = divmod(index, 2)
        if eye == 1 and misaligned:
            image = _shifted(image, shift, roll)
        blur = softness
        if rng.random() < 0.1:
            blur = float(np.hypot(blur, rng.uniform(0.3, 1.2) * strength))
        if blur > 0.25:
            image = cv2.GaussianBlur(image, (0, 0), blur, borderType=cv2.BORDER_REFLECT_101)
        table = np.arange(256, dtype=np.float32)[:, None] / 255
        for look in (common, cameras[eye], times[time]):
            table = look.of(table)
        if saturation < 1:
            image = _desaturated(image, saturation)
        table = table.mean(axis=1, keepdims=True) * (1 - saturation) + table * saturation
        tones = (255 * table).astype(np.float32).reshape(1, 256, 3)
        # Photons come at random, so that the deviation grows as the square root of brightness.
        deviation = np.sqrt(
            np.linspace(0, 1, 256, dtype=np.float32) * shot_noise**2 + read_noise**2
        )
        noise = _noise(rng, image.size)
        result = np.empty_like(image)
        # In parts that stay in the processor's cache.
        for top in range(0, height, _ROWS):
            part = image[top : top + _ROWS]
            values = cv2.LUT(part, tones)
            vignette = vignettes[eye]
            if vignette is not None:
                values *= vignette[top : top + _ROWS]
            spread = cv2.LUT(part, deviation.reshape(1, 256))
            spread *= noise[3 * width * top :][: part.size].reshape(part.shape)
            values += spread
            values += np.float32(0.5)
            np.clip(values, 0, 255, out=values)
            result[top : top + _ROWS] = values
        results.append(result)
    return results


class _Look:
    """Gain, gamma and color of an image."""

    def __init__(self, gain: np.ndarray, gamma: float, lift: float) -> None:
        self.gain, self.gamma, self.lift = gain, gamma, lift

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float) -> _Look:
        gain = np.exp(rng.normal(0, 0.2 * strength) + rng.normal(0, 0.07 * strength, 3))
        gamma = float(np.exp(rng.normal(0, 0.15 * strength)))
        return cls(gain.astype(np.float32), gamma, float(rng.normal(0, 0.03 * strength)))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values 0 to 1, 256 x 1 or 256 x 3, as this look changes them."""
        return np.clip(values**self.gamma * self.gain + np.float32(self.lift), 0, 1)


def _vignette(
    rng: np.random.Generator, height: int, width: int, strength: float
) -> np.ndarray | None:
    """Factor by which an image darkens towards its corners, float32 H x W x 3; None: it does not."""
    fall = float(rng.uniform(0, 0.5)) * strength * (rng.random() < 0.5)
    if not fall:
        return None
    cx, cy = (size * rng.uniform(0.45, 0.55) for size in (width, height))
    x = (np.arange(width, dtype=np.float32) - np.float32(cx)) / np.float32(0.5 * width)
    y = (np.arange(height, dtype=np.float32) - np.float32(cy)) / np.float32(0.5 * height)
    factor = 1 - np.float32(0.5 * fall) * ((x * x)[None, :] + (y * y)[:, None])
    return cv2.merge([factor] * 3)


def _desaturated(image: np.ndarray, saturation: float) -> np.ndarray:
    """Image with its colors drawn towards gray of the same brightness; saturation 0: all are."""
    if saturation == 0:
        return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    gray = (1 - saturation) * np.array([0.299, 0.587, 0.114])
    return cv2.transform(image, saturation * np.eye(3) + gray)


def _shifted(image: np.ndarray, shift: float, roll: float) -> np.ndarray:
    """Image moved down by `shift` px and rolled about its middle, rad."""
    height, width = image.shape[:2]
    rows = np.array([[1, roll, -roll * height / 2], [-roll, 1, roll * width / 2 + shift]])
    return cv2.warpAffine(
        image, rows, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """Normal deviates, float32 N: stretches of one long table, for drawing them anew would take most of the time."""
    table = _noise_table()
    parts, done = [], 0
    while done < count:
        start, size = int(rng.integers(0, _NOISE)), int(min(count - done, _NOISE // 8))
        parts.append(table[start : start + size])
        done += len(parts[-1])
    return np.concatenate(parts)


@lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    return np.random.default_rng(0x4015E).standard_normal(_NOISE, dtype=np.float32)
