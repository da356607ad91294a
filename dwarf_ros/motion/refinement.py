"""Scene flow improved by two facts: most of the scene is static, and what moves is rigid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dwarf_ros.geometry import rigid_prediction, rigid_scene_flow
from dwarf_ros.motion.confidence import confidences
from dwarf_ros.motion.ego_motion import fit_ego_motion
from dwarf_ros.motion.filling import fill_disparity
from dwarf_ros.motion.photometric import Descriptors, descriptors, has_texture, warping_cost
from dwarf_ros.motion.segmentation import SIGNIFICANT, Evidence, Segment, deviation, find_segments
from dwarf_ros.types import MOVING, STATIC, UNKNOWN, EgoMotion, InputError, SceneFlow

_LEAST_GAIN_UNTRUSTED = 0.1
"""What an estimate that is not trusted explains the images better by, to be taken as motion."""

_LEAST_DIFFERENCE = 1.0
"""Closer to the static scene than this, px, an estimate is taken as the same."""

_KEPT, _KEPT_NEAR_OBJECTS = 0.12, 0.0
"""The estimate's own flow is kept where it explains the images better by this cost than what is predicted."""

_MOST_OBJECTS = 100

_TRUSTED = 0.6
"""Confidence from which on a pixel is valid."""


def refine(
    scene_flow: SceneFlow,
    reference_left: np.ndarray,
    other_left: np.ndarray,
    reference_right: np.ndarray | None = None,
    previous: np.ndarray | None = None,
    prior: EgoMotion | None = None,
) -> SceneFlow:
    """Combine scene flow with the camera's motion and with the rigid motion of each object.

    Flow and next disparity of static pixels follow from disparity and ego-motion, also where the point is occluded in the
    other image or outside it; those of moving pixels from the rigid motion of their object. Unknown disparity is filled
    where the images support it.

    After Taniai et al., "Fast Multi-frame Stereo Scene Flow with Motion Segmentation", CVPR 2017, and Sommer et al.,
    "SF2SE3: Clustering Scene Flow into SE(3)-Motions via Proposal and Selection", GCPR 2022.

    Args:
        scene_flow: an estimate.
        reference_left: left image of the reference, uint8 H x W x 3 RGB or H x W gray.
        other_left: left image of the other frame, the same.
        reference_right: right image of the reference, only for the confidence of the disparity.
        previous: 4 x 4 motion of the pair before, as one hypothesis of the ego-motion.
        prior: motion known from elsewhere, such as wheel odometry; used unless it contradicts the images.

    Returns:
        the scene flow with `ego_motion`, and where that has a transform with `motion_mask` and both confidences; otherwise
        all else as it was given.

    Raises:
        InputError: an image does not have the size of the scene flow.
    """
    for name, image in (("reference_left", reference_left), ("other_left", other_left), ("reference_right", reference_right)):  # fmt: skip
        if image is not None and image.shape[:2] != scene_flow.disparity.shape:
            raise InputError(
                f"{name}: image is {image.shape[1]} x {image.shape[0]} px, expected "
                f"{scene_flow.disparity.shape[1]} x {scene_flow.disparity.shape[0]} px as the scene flow"
            )
    if min(scene_flow.disparity.shape) < 32:
        return replace(scene_flow, ego_motion=EgoMotion(reason="the image is smaller than 32 px"))
    reference = descriptors(reference_left)
    if not has_texture(reference):
        return replace(scene_flow, ego_motion=EgoMotion(reason="the image has no texture"))
    ego_motion, noise = fit_ego_motion(scene_flow, previous, prior)
    if ego_motion.transform is None:
        return replace(scene_flow, ego_motion=ego_motion)
    other = descriptors(other_left)
    evidence, safe = _gather(scene_flow, ego_motion.transform, noise, reference, other)
    static_cost = warping_cost(reference, other, *evidence.predicted[:2])
    own_cost = warping_cost(reference, other, *evidence.seen[:2])
    gain = cv2.blur(static_cost, (7, 7)) - cv2.blur(own_cost, (7, 7))
    moving, possible = _seeds(evidence, gain)
    segments = find_segments(evidence, moving, gain)[:_MOST_OBJECTS]
    labels = np.zeros(static_cost.shape, np.uint8)
    cost = static_cost
    for number, segment in enumerate(segments, start=1):
        _claim(labels, number, segment, evidence, cost, reference, other)
    stereo_cost = None
    if reference_right is not None:
        x, y = evidence.columns - evidence.disparity, evidence.rows
        right = descriptors(reference_right)
        stereo_cost = warping_cost(reference, right, x, np.broadcast_to(y, x.shape))
    return _composed(
        scene_flow,
        ego_motion,
        evidence,
        segments,
        labels,
        safe,
        possible & ~moving,
        _Costs(cost, own_cost, stereo_cost),
    )


@dataclass(frozen=True, eq=False)
class _Costs:
    """Warping costs at half the size: of the refined flow, of the estimate's own, and between left and right image."""

    refined: np.ndarray
    own: np.ndarray
    stereo: np.ndarray | None


def _gather(
    scene_flow: SceneFlow,
    motion: np.ndarray,
    noise: float,
    reference: Descriptors,
    other: Descriptors,
) -> tuple[Evidence, np.ndarray]:
    """The evidence at half the size, and where its disparity is known or filled safely."""
    camera = scene_flow.camera
    assert camera is not None  # There is no ego-motion without.
    known = scene_flow.disparity[::2, ::2]
    possible = (known > max(camera.cx - camera.cx_right, 0)) & (known < 2 * camera.width)
    known = np.where(possible, known, np.float32(np.nan))
    disparity, safe = fill_disparity(known, camera, motion, reference, other)
    height, width = disparity.shape
    columns = np.arange(0, 2 * width, 2, dtype=np.float32)[None]
    rows = np.arange(0, 2 * height, 2, dtype=np.float32)[:, None]
    flow = scene_flow.flow[::2, ::2]
    evidence = Evidence(
        camera=camera,
        motion=motion,
        columns=columns,
        rows=rows,
        disparity=disparity,
        known=np.isfinite(known),
        seen=(flow[..., 0] + columns, flow[..., 1] + rows, scene_flow.disparity_next[::2, ::2]),
        predicted=rigid_prediction(columns, rows, disparity, camera, motion)[:3],
        valid=scene_flow.valid[::2, ::2],
        noise=noise,
    )
    return evidence, safe


def _seeds(evidence: Evidence, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose estimate explains the images better than the static scene and differs significantly.

    Returns:
        moving: bool h x w, by the noise that the estimate has.
        possible: the same, by the noise of a good estimate.
    """
    difference = np.maximum(
        np.abs(evidence.seen[0] - evidence.predicted[0]),
        np.abs(evidence.seen[1] - evidence.predicted[1]),
    )
    least = np.where(evidence.valid, np.float32(0), np.float32(_LEAST_GAIN_UNTRUSTED))
    candidates = (gain > least) & (difference > _LEAST_DIFFERENCE)
    candidates &= inside(evidence.predicted) & inside(evidence.seen)
    pixels = np.flatnonzero(candidates)
    square = deviation(evidence, pixels)
    moving, possible = np.zeros((2, *candidates.shape), np.uint8)
    moving.ravel()[pixels] = square > SIGNIFICANT * max(1.0, evidence.noise)
    possible.ravel()[pixels] = square > SIGNIFICANT
    return cv2.medianBlur(moving, 5) > 0, cv2.medianBlur(possible, 5) > 0


def inside(places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Whether places, (columns, rows, ...) of the full-size image at half the size, are in the image."""
    x, y = places[:2]
    height, width = x.shape
    return (x >= 0) & (x <= 2 * width - 2) & (y >= 0) & (y <= 2 * height - 2)


def _claim(
    labels: np.ndarray,
    number: int,
    segment: Segment,
    evidence: Evidence,
    cost: np.ndarray,
    reference: Descriptors,
    other: Descriptors,
) -> None:
    """Label the pixels in and around a segment that its motion explains better than the static scene.

    Writes to the labels, and at those pixels to the prediction and its cost, and to the disparity where it is unknown.
    """
    camera, width = evidence.camera, labels.shape[1]
    rows, columns = np.divmod(segment.pixels, width)
    margin = 4 + int(0.15 * max(np.ptp(rows), np.ptp(columns)))
    part = np.s_[
        max(0, rows.min() - margin) : rows.max() + margin + 1,
        max(0, columns.min() - margin) : columns.max() + margin + 1,
    ]
    seed = np.zeros(labels.shape, bool)
    seed.ravel()[segment.pixels] = True
    seed = seed[part]
    disparities = evidence.disparity.ravel()[segment.pixels]
    # The windows of the costs take in some ground below an object: only what is above says how far the object is.
    down = (evidence.rows.ravel()[rows] - np.float32(camera.cy)) / disparities
    step = 0.45 * camera.fy / (camera.fx * camera.baseline)
    upper = disparities[down < np.percentile(down, 95) - step]
    if upper.size > 0.3 * disparities.size:
        disparities = upper
    low, middle, high = np.percentile(disparities, [2, 50, 98])
    known = evidence.known[part]
    disparity = np.where(known, evidence.disparity[part], np.float32(middle))
    motion = segment.fit.motion
    predicted = rigid_prediction(
        evidence.columns[:, part[1]], evidence.rows[part[0]], disparity, camera, motion
    )
    moving_cost = warping_cost((reference[0][part], reference[1][part]), other, *predicted[:2])
    gain = cv2.blur(cost[part], (3, 3)) - cv2.blur(moving_cost, (3, 3))
    tolerance = 0.1 + 0.01 * middle
    claimed = (gain > np.where(seed, np.float32(-0.03), np.float32(0))) & (
        np.abs(disparity - (low + high) / 2) < (high - low) / 2 + tolerance
    )
    mask = cv2.morphologyEx(claimed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = cv2.medianBlur(mask, 5)
    _, parts = cv2.connectedComponents(mask)
    touched = np.unique(parts[seed & (mask > 0)])
    claimed = np.isin(parts, touched[touched > 0]) & (labels[part] == 0)
    labels[part][claimed] = number
    cost[part][claimed] = moving_cost[claimed]
    unknown = claimed & ~known
    evidence.disparity[part][unknown] = disparity[unknown]
    for values, moved in zip(evidence.predicted, predicted, strict=False):
        values[part][claimed] = moved[claimed]


def _kept(
    evidence: Evidence, labels: np.ndarray, possible: np.ndarray, costs: _Costs
) -> np.ndarray:
    """Trusted pixels whose own flow explains the images better than what was predicted."""
    difference = np.hypot(
        evidence.seen[0] - evidence.predicted[0], evidence.seen[1] - evidence.predicted[1]
    )
    gain = cv2.blur(costs.refined, (3, 3)) - cv2.blur(costs.own, (3, 3))
    near = cv2.dilate(labels, np.ones((13, 13), np.uint8)) > 0
    least = np.where(near, np.float32(_KEPT_NEAR_OBJECTS), np.float32(_KEPT))
    kept = ((gain > least) | (possible & (labels == 0))) & (difference > 3)
    kept &= evidence.valid & inside(evidence.predicted)
    return cv2.medianBlur(kept.astype(np.uint8), 5) > 0


def _composed(
    scene_flow: SceneFlow,
    ego_motion: EgoMotion,
    evidence: Evidence,
    segments: list[Segment],
    labels: np.ndarray,
    safe: np.ndarray,
    possible: np.ndarray,
    costs: _Costs,
) -> SceneFlow:
    """Full-size maps of labels and motions."""
    camera, motion = evidence.camera, ego_motion.transform
    assert motion is not None
    safe |= labels > 0
    known_before = np.isfinite(scene_flow.disparity)
    filled = np.where(
        known_before, scene_flow.disparity, _enlarged(evidence.disparity, known_before.shape)
    )
    flow, disparity_next = rigid_scene_flow(filled, camera, motion)
    full_labels = _enlarged(labels, known_before.shape)
    for number, segment in enumerate(segments, start=1):
        x, y, width, height = cv2.boundingRect((labels == number).astype(np.uint8))
        part = np.s_[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)]
        chosen = full_labels[part] == number
        columns = np.arange(2 * x, 2 * x + chosen.shape[1], dtype=np.float32)[None]
        rows = np.arange(2 * y, 2 * y + chosen.shape[0], dtype=np.float32)[:, None]
        moved = rigid_prediction(columns, rows, filled[part], camera, segment.fit.motion)
        np.copyto(flow[part][..., 0], moved[0] - columns, where=chosen)
        np.copyto(flow[part][..., 1], moved[1] - rows, where=chosen)
        np.copyto(disparity_next[part], moved[2], where=chosen)
    kept = _kept(evidence, labels, possible, costs)
    own = np.nonzero(_enlarged(kept, known_before.shape))
    own_flow, own_next = scene_flow.flow[own], scene_flow.disparity_next[own]
    given = np.isfinite(own_flow[:, 0]) & np.isfinite(own_next)
    own = own[0][given], own[1][given]
    flow[own], disparity_next[own] = own_flow[given], own_next[given]
    # Where a prediction ends behind the camera, the estimate is all there is.
    missing = np.isnan(disparity_next)
    if missing.any():
        flow[missing] = scene_flow.flow[missing]
    height, width = known_before.shape
    trust, flow_trust = (
        np.ascontiguousarray(cv2.resize(values, None, fx=4, fy=4)[:height, :width])
        for values in confidences(evidence, labels, costs.refined, costs.own, costs.stereo)
    )

    known = known_before | _enlarged(safe, known_before.shape)
    unknown = ~(known & (disparity_next > 0))
    disparity = filled
    np.putmask(disparity, ~known, np.nan)
    np.putmask(disparity_next, unknown, np.nan)
    certain = inside(evidence.predicted) & safe & ~kept & (cv2.blur(costs.refined, (5, 5)) < 0.25)
    mask = np.where(
        labels > 0, np.uint8(MOVING), np.where(certain, np.uint8(STATIC), np.uint8(UNKNOWN))
    )
    return replace(
        scene_flow,
        disparity=disparity,
        disparity_next=disparity_next,
        flow=flow,
        valid=~unknown & (trust > _TRUSTED) & (flow_trust > _TRUSTED),
        disparity_confidence=trust,
        flow_confidence=flow_trust,
        ego_motion=ego_motion,
        motion_mask=np.ascontiguousarray(_enlarged(mask, known_before.shape)),
    )


def _enlarged(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Twice the size, each value four times; cut to the shape."""
    kind = np.uint8 if values.dtype == bool else values.dtype
    large = cv2.resize(
        values.astype(kind, copy=False), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST
    )
    return large[: shape[0], : shape[1]].astype(values.dtype, copy=False)
