"""An estimator whose estimates are refined by the camera's motion and that of objects."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dwarf_ros.estimators import REFINEMENTS, Estimator, EstimatorChoice, choose_estimator
from dwarf_ros.estimators import load as load_unrefined
from dwarf_ros.types import EgoMotion, InputError, SceneFlow, StereoFrame, same_camera

if TYPE_CHECKING:
    import numpy as np

_LONGEST_GAP = 1.0
"""Time between references, s, beyond which the previous motion says nothing."""


class RefinedEstimator:
    """Refines what another estimator estimates; see `refinement.refine`.

    The motion of the pair before is one hypothesis for the next ego-motion. It is forgotten where time jumps by over a
    second or runs backwards, and where the calibration or the direction in time changes.

    Args:
        estimator: the other estimator.
        remember: False: each estimate depends on its two frames only.
    """

    def __init__(self, estimator: Estimator, remember: bool = True) -> None:
        self._estimator = estimator
        self._remember = remember
        self._latest: SceneFlow | None = None

    @property
    def name(self) -> str:
        """Name of the other estimator."""
        return self._estimator.name

    @property
    def engine(self) -> str:
        """Engine of the other estimator."""
        return self._estimator.engine

    def warm_up(self, width: int, height: int) -> None:
        """Prepare for images of this size, px."""
        self._estimator.warm_up(width, height)

    def estimate(
        self, previous: StereoFrame, current: StereoFrame, prior: EgoMotion | None = None
    ) -> SceneFlow:
        """Refined scene flow from the first frame, the reference, to the second.

        Args:
            previous: the reference.
            current: the other frame.
            prior: motion from the reference to the other frame known from elsewhere, such as wheel odometry.

        Raises:
            InputError: the frames differ in size.
        """
        from dwarf_ros.motion.refinement import refine as refine_scene_flow

        scene_flow = self._estimator.estimate(previous, current)
        refined = refine_scene_flow(
            scene_flow,
            previous.left,
            current.left,
            previous.right,
            self._expected(scene_flow),
            prior,
        )
        if self._remember:
            self._latest = refined
        return refined

    def _expected(self, scene_flow: SceneFlow) -> np.ndarray | None:
        """The previous pair's motion, scaled to this pair's time."""
        latest = self._latest
        if latest is None or latest.ego_motion is None or latest.ego_motion.transform is None:
            return None
        gap = (scene_flow.stamp - latest.stamp) * 1e-9
        if not 0 < gap <= _LONGEST_GAP or not same_camera(latest.camera, scene_flow.camera):
            return None
        if scene_flow.dt * latest.dt <= 0:
            return None
        from dwarf_ros.motion.rigid import exponential, logarithm

        return exponential(logarithm(latest.ego_motion.transform) * (scene_flow.dt / latest.dt))


def refined(estimator: Estimator, refine: str = "rigid") -> Estimator:
    """The estimator with the given refinement.

    Args:
        estimator: without refinement.
        refine: `rigid`, see `RefinedEstimator`; or `none`, the estimator as it is.

    Raises:
        InputError: an unknown refinement.
    """
    if refine not in REFINEMENTS:
        raise InputError(f"refine: {refine!r} is unknown, expected {' or '.join(REFINEMENTS)}")
    return RefinedEstimator(estimator) if refine == "rigid" else estimator


def load_estimator(
    name: str = "auto",
    weights: str | Path | None = None,
    engine: str = "auto",
    precision: str = "f32",
    gpu_memory_fraction: float = 0.0,
    refine: str = "rigid",
) -> Estimator:
    """The estimator of that name, ready for use, with refined estimates.

    Example:
        >>> estimator = dwarf_ros.load_estimator("classical")
        >>> scene_flow = estimator.estimate(previous, current)
        >>> scene_flow.ego_motion.transform

    Args:
        name: `dwarf` or `dwarf_lite`, the network; `classical`, OpenCV's methods, which need no weights; or `auto`: the
            network that `weights` are for, or without weights `BEST`, the most accurate estimator that is shipped.
            `ptlflow:MODEL` is an optical flow network of the package ptlflow (extra `teachers`).
        weights: a weights file for the network; None takes the shipped file, model/NAME.safetensors. For ptlflow a file,
            or the name of weights that ptlflow downloads.
        engine: what runs the network: one of `engines.ENGINES`, or `auto` for the fastest that is installed and suits the
            hardware. Not used by classical.
        precision: of a network: `f32`, `tf32`, `bf16`, `int8` or `auto`; see `engines.load_engine`.
        gpu_memory_fraction: largest part of each GPU's memory that the network may take, above 0 to 1; 0: no limit.
        refine: `rigid` or `none`, see `refined`.

    Raises:
        InputError: an unknown name or engine; an engine that is not installed; weights that are missing, damaged or of
            another preset, or given to classical; a precision or fraction that is not available; or an unknown refinement.
    """
    return load(choose_estimator(name, weights, engine, precision, gpu_memory_fraction, refine))


def load(choice: EstimatorChoice) -> Estimator:
    """The chosen estimator with its refinement, ready for use.

    Raises:
        InputError: as `estimators.load`.
    """
    return refined(load_unrefined(choice), choice.refine)


@lru_cache(maxsize=1)
def load_once(choice: EstimatorChoice) -> Estimator:
    """As `load`, at the first call in each process; each estimate depends on its two frames only, not on their order.

    Raises:
        InputError: as `load`.
    """
    estimator = load_unrefined(choice)
    return RefinedEstimator(estimator, remember=False) if choice.refine == "rigid" else estimator
