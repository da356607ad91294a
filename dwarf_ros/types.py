"""Core types: a stereo camera, a stereo frame and the scene flow between two frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

# NumPy takes most of the start-up time of a command that does not need it.
if TYPE_CHECKING:
    import numpy as np

ROW_TOLERANCE_PX = 0.5
"""How far the rows of a rectified pair may disagree."""

# KITTI's own matrices disagree by a third of a pixel at this disparity.
_CHECKED_DISPARITY_PX = 64


class InputError(ValueError):
    """Bad input from the user; the message is one line that names it, what was received and what was expected."""


@dataclass(frozen=True)
class StereoCamera:
    """A rectified stereo pair with one focal length, seen from the left camera's optical frame (REP-103).

    Attributes:
        fx, fy: focal lengths, px.
        cx, cy: principal point of the left image, px.
        cx_right: column of the right image's principal point, px (the rows agree after rectification).
        baseline: distance from the left to the right camera along +x, m, > 0.
        width, height: image size, px.

    Raises:
        InputError: a number is not finite, or a focal length, the baseline or a size is not positive.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    cx_right: float
    baseline: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy", "cx_right", "baseline"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise InputError(f"camera: {name} is {value}, expected a finite number")
        for name in ("fx", "fy"):
            value = getattr(self, name)
            if value <= 0:
                raise InputError(f"camera: focal length {name} is {value:g} px, expected > 0")
        if self.baseline <= 0:
            raise InputError(
                f"camera: baseline is {self.baseline:g} m, expected > 0 (are left and right swapped?)"
            )
        if self.width <= 0 or self.height <= 0:
            raise InputError(
                f"camera: image size is {self.width} x {self.height} px, expected at least 1 x 1"
            )

    @classmethod
    def from_projection_matrices(
        cls, left: np.ndarray, right: np.ndarray, width: int, height: int
    ) -> StereoCamera:
        """Camera from the two 3x4 projection matrices of a rectified pair, as in CameraInfo.P or a KITTI calibration.

        KITTI's left matrix has its own x translation, so the baseline comes from both:
        ``left[0, 3] / left[0, 0] - right[0, 3] / right[0, 0]``.

        Raises:
            InputError: a matrix is not 3x4 and finite, a focal length is not positive, the focal lengths differ or
                the rows do not agree (not rectified to one camera), or the baseline is not positive.
        """
        import numpy as np

        matrices = []
        for side, matrix in (("left", left), ("right", right)):
            matrix = np.asarray(matrix, dtype=np.float64)
            if matrix.shape != (3, 4):
                raise InputError(
                    f"camera: {side} projection matrix has shape {matrix.shape}, expected (3, 4)"
                )
            if not np.isfinite(matrix).all():
                raise InputError(
                    f"camera: {side} projection matrix holds a number that is not finite"
                )
            if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
                raise InputError(
                    f"camera: {side} projection matrix has focal lengths {matrix[0, 0]:g}, {matrix[1, 1]:g} px, "
                    "expected > 0 (is the camera calibrated?)"
                )
            matrices.append(matrix)
        left, right = matrices
        if not np.allclose(left[:2, :2], right[:2, :2], rtol=1e-3):
            raise InputError(
                f"camera: left and right focal lengths differ ({left[0, 0]:g} and {right[0, 0]:g} px), "
                "expected the projection matrices of one rectified pair"
            )
        if abs(left[1, 2] - right[1, 2]) > ROW_TOLERANCE_PX:
            raise InputError(
                f"camera: left and right principal points are in rows {left[1, 2]:g} and {right[1, 2]:g} px, "
                f"expected rows that agree to {ROW_TOLERANCE_PX} px (is the pair rectified?)"
            )
        shift_x, shift_y = left[:2, 3] - right[:2, 3]
        rows = abs(shift_y) * _CHECKED_DISPARITY_PX
        if rows > ROW_TOLERANCE_PX * abs(shift_x):
            raise InputError(
                f"camera: projection matrices have Ty {left[1, 3]:g} and {right[1, 3]:g} px m and Tx {left[0, 3]:g} "
                f"and {right[0, 3]:g} px m, expected a horizontal baseline (is the pair rectified?)"
            )
        return cls(
            fx=float(left[0, 0]),
            fy=float(left[1, 1]),
            cx=float(left[0, 2]),
            cy=float(left[1, 2]),
            cx_right=float(right[0, 2]),
            baseline=float(left[0, 3] / left[0, 0] - right[0, 3] / right[0, 0]),
            width=int(width),
            height=int(height),
        )

    def is_close(self, other: StereoCamera) -> bool:
        """Whether both are one calibration up to rounding: lengths within 0.05 px, baselines within 0.01 %."""
        lengths = ("fx", "fy", "cx", "cy", "cx_right")
        return (
            (self.width, self.height) == (other.width, other.height)
            and all(abs(getattr(self, name) - getattr(other, name)) <= 0.05 for name in lengths)
            and math.isclose(self.baseline, other.baseline, rel_tol=1e-4)
        )


def as_rgb8(image: np.ndarray, name: str = "image") -> np.ndarray:
    """Image as contiguous uint8 RGB, H x W x 3.

    Args:
        image: uint8 or uint16; H x W or H x W x 1 (grey, repeated), H x W x 3 (RGB) or H x W x 4 (RGBA, alpha
            dropped). uint16 is taken as full range: 65535 becomes 255.
        name: what an error calls it.

    Raises:
        InputError: another dtype or shape, or no pixels.
    """
    import numpy as np

    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name}: pixels are {image.dtype}, expected uint8 or uint16")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise InputError(f"{name}: shape is {image.shape}, expected H x W grey, RGB or RGBA")
    image = image[:, :, :3]
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


@dataclass(frozen=True, eq=False)
class StereoFrame:
    """A rectified left and right image taken at one instant.

    Attributes:
        left, right: uint8 RGB, H x W x 3; any image that `as_rgb8` takes is converted.
        stamp: time of exposure, ns.
        camera: calibration of the pair, None where unknown (no depth or 3D motion then).
        frame_id: name of the left camera's optical frame.

    Raises:
        InputError: the stamp is not an integer, or the images differ in size, are no images, or do not have the
            camera's size.
    """

    left: np.ndarray
    right: np.ndarray
    stamp: int = 0
    camera: StereoCamera | None = None
    frame_id: str = ""

    def __post_init__(self) -> None:
        import numpy as np

        if not isinstance(self.stamp, (int, np.integer)):
            raise InputError(
                f"stereo frame: stamp is {self.stamp!r}, expected a whole number of nanoseconds"
            )
        object.__setattr__(self, "stamp", int(self.stamp))
        object.__setattr__(self, "left", as_rgb8(self.left, "left image"))
        object.__setattr__(self, "right", as_rgb8(self.right, "right image"))
        height, width = self.left.shape[:2]
        if self.left.shape != self.right.shape:
            raise InputError(
                f"stereo frame: left image is {width} x {height} px but right image is "
                f"{self.right.shape[1]} x {self.right.shape[0]} px, expected one size"
            )
        if self.camera is not None and (self.camera.width, self.camera.height) != (width, height):
            raise InputError(
                f"stereo frame: images are {width} x {height} px but the camera is calibrated for "
                f"{self.camera.width} x {self.camera.height} px"
            )


@dataclass(frozen=True, eq=False)
class SceneFlow:
    """What moved between a reference frame and another frame, at every pixel of the reference's left image.

    Pixel (x, y) of the reference's left image is at (x + u, y + v) in the other frame's left image.

    Attributes:
        disparity: x_left - x_right at the reference's time, px, float32 H x W; > 0, NaN where unknown.
        disparity_next: disparity of the same surface points at the other frame's time, px, float32 H x W; > 0, NaN
            where unknown.
        flow: optical flow (u, v) from the reference's left image to the other's, px, float32 H x W x 2; u is positive
            to the right, v downwards; NaN where unknown.
        valid: bool H x W; True where all three are known and the estimator trusts them.
        stamp: the reference frame's time, ns.
        dt: time from the reference to the other frame, s; negative where the reference is the newer one.
        camera: calibration of the reference frame, None where unknown.
        frame_id: name of the left camera's optical frame.

    Raises:
        InputError: shapes or dtypes disagree.
    """

    disparity: np.ndarray
    disparity_next: np.ndarray
    flow: np.ndarray
    valid: np.ndarray
    stamp: int = 0
    dt: float = 0.0
    camera: StereoCamera | None = None
    frame_id: str = ""

    def __post_init__(self) -> None:
        import numpy as np

        size = self.disparity.shape
        expected = {
            "disparity": (np.float32, size[:2]),
            "disparity_next": (np.float32, size[:2]),
            "flow": (np.float32, (*size[:2], 2)),
            "valid": (np.bool_, size[:2]),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise InputError(
                    f"scene flow: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}"
                )

    @property
    def other_stamp(self) -> int:
        """Time of the other frame, ns."""
        return self.stamp + round(self.dt * 1e9)
