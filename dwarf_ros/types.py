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


def same_camera(one: StereoCamera | None, other: StereoCamera | None) -> bool:
    """Whether both are one calibration up to rounding (`StereoCamera.is_close`), or both unknown."""
    if one is None or other is None:
        return one is other
    return one.is_close(other)


def as_rgb8(image: np.ndarray, name: str = "image", white: int = 65535) -> np.ndarray:
    """Image as contiguous uint8 RGB, H x W x 3.

    Args:
        image: uint8 or uint16; H x W or H x W x 1 (grey, repeated), H x W x 3 (RGB) or H x W x 4 (RGBA, alpha
            dropped).
        name: what an error calls it.
        white: value of a uint16 image that becomes 255, as does what is above it.

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
        image = np.minimum((image.astype(np.uint32) * 255 + white // 2) // white, 255)
        image = image.astype(np.uint8)
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
class EgoMotion:
    """The camera's own motion between two frames, as seen against the static part of the scene; or why it is unknown.

    Attributes:
        transform: float64 4 x 4, rigid; takes points, m, of the reference's left camera frame to the other frame's left
            camera frame if they stand still. Its inverse is the pose of the other camera in the reference's camera frame.
            None where it could not be estimated.
        covariance: float64 6 x 6 of the error ``xi = (translation, rotation)``, m and rad, along the axes of the
            reference's camera frame: ``true transform = transform @ exp(xi)``. None where the transform is.
        static_fraction: part of the pixels used that agree with the transform, 0 to 1.
        reason: None, or one sentence that says why there is no transform.

    Raises:
        InputError: shapes disagree, a number is not finite, or there is neither a transform nor a reason.
    """

    transform: np.ndarray | None = None
    covariance: np.ndarray | None = None
    static_fraction: float = 0.0
    reason: str | None = None

    def __post_init__(self) -> None:
        import numpy as np

        if (self.transform is None) != (self.covariance is None):
            raise InputError("ego-motion: expected transform and covariance together or neither")
        if (self.transform is None) != (self.reason is not None):
            raise InputError("ego-motion: expected either a transform or a reason")
        for name, side in (("transform", 4), ("covariance", 6)):
            value = getattr(self, name)
            if value is not None and (value.shape != (side, side) or not np.isfinite(value).all()):
                raise InputError(
                    f"ego-motion: {name} has shape {value.shape}, expected {side} x {side} finite numbers"
                )
        if not 0 <= self.static_fraction <= 1:
            raise InputError(
                f"ego-motion: static_fraction is {self.static_fraction}, expected 0 to 1"
            )


@dataclass(frozen=True, eq=False)
class MovingObject:
    """Something that moves independently of the scene, at the reference's time.

    Attributes:
        id: the same in every frame of a track; -1 before it is tracked.
        pose: float64 4 x 4, object to the reference's left camera frame, m; the origin is the center of its visible
            surface, the axes are the camera's.
        size: float64 3, extent of its visible surface along the camera's axes, m.
        velocity: float64 3, over ground, forward in time, along the reference's camera axes, m/s.
        position_covariance: float64 3 x 3 of the pose's translation, m^2.
        velocity_covariance: float64 3 x 3, (m/s)^2.
        time_to_collision: s until its nearest part reaches the camera's plane at its present relative speed;
            infinity where it does not come nearer.
        mask: bool, the object's pixels within `box`; None for a track without pixels in this frame.
        box: x, y, width, height of its pixels in the reference's left image, px; None as for `mask`.
    """

    id: int
    pose: np.ndarray
    size: np.ndarray
    velocity: np.ndarray
    position_covariance: np.ndarray
    velocity_covariance: np.ndarray
    time_to_collision: float = math.inf
    mask: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name, shape in (
            ("pose", (4, 4)),
            ("size", (3,)),
            ("velocity", (3,)),
            ("position_covariance", (3, 3)),
            ("velocity_covariance", (3, 3)),
        ):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"moving object: {name} has shape {getattr(self, name).shape}, expected {shape}"
                )
        if (self.mask is None) != (self.box is None):
            raise InputError("moving object: expected mask and box together or neither")
        if self.mask is not None and self.mask.shape != (self.box or ())[:1:-1]:
            raise InputError(
                f"moving object: mask has shape {self.mask.shape}, expected the size of box {self.box}"
            )

    @property
    def position(self) -> np.ndarray:
        """Center of the visible surface in the reference's camera frame, m, float64 3."""
        return self.pose[:3, 3]

    @property
    def speed(self) -> float:
        """Over ground, m/s."""
        import numpy as np

        return float(np.linalg.norm(self.velocity))


_OPTIONAL_MAPS = ("disparity_confidence", "flow_confidence", "motion_mask")

STATIC, UNKNOWN, MOVING = 0, 127, 255
"""Values of a motion mask."""


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
        disparity_confidence: how far the disparity is to be trusted, 0 to 1, float32 H x W; None where not computed.
        flow_confidence: the same for flow and next disparity.
        ego_motion: the camera's own motion, or why it is unknown; None where not computed.
        motion_mask: uint8 H x W: 0 static, 255 moving, 127 unknown; None without ego-motion.

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
    disparity_confidence: np.ndarray | None = None
    flow_confidence: np.ndarray | None = None
    ego_motion: EgoMotion | None = None
    motion_mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        import numpy as np

        size = self.disparity.shape
        expected = {
            "disparity": (np.float32, size[:2]),
            "disparity_next": (np.float32, size[:2]),
            "flow": (np.float32, (*size[:2], 2)),
            "valid": (np.bool_, size[:2]),
            "disparity_confidence": (np.float32, size[:2]),
            "flow_confidence": (np.float32, size[:2]),
            "motion_mask": (np.uint8, size[:2]),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array is None and name in _OPTIONAL_MAPS:
                continue
            if array.dtype != dtype or array.shape != shape:
                raise InputError(
                    f"scene flow: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}"
                )

    @property
    def confidence(self) -> np.ndarray | None:
        """The smaller of both confidences, float32 H x W, 0 to 1; None where they were not computed."""
        import numpy as np

        if self.disparity_confidence is None or self.flow_confidence is None:
            return None
        return np.minimum(self.disparity_confidence, self.flow_confidence)

    @property
    def other_stamp(self) -> int:
        """Time of the other frame, ns."""
        return self.stamp + round(self.dt * 1e9)
