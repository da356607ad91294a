"""Estimators turn two stereo frames into scene flow: the DWARF network, classical methods or a teacher, chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dwarf_ros.share import share_directory
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

NETWORKS = ("dwarf", "dwarf_lite", "dwarf_lite_v2")
ESTIMATORS = (*NETWORKS, "classical")

REFINEMENTS = ("rigid", "none")
"""What may be done to an estimate; see `motion.refined`."""

PTLFLOW = "ptlflow:"
"""Names that begin so are models of the package ptlflow: slow and accurate, to learn from."""

BEST = "classical"
"""The most accurate estimator that is shipped, by the figures in model/README.md, on any hardware."""


class Estimator(Protocol):
    """Estimates the scene flow between two stereo frames."""

    @property
    def name(self) -> str:
        """One of `ESTIMATORS`."""

    @property
    def engine(self) -> str:
        """What computes it: one of `engines.ENGINES`, or `opencv` for classical."""

    def warm_up(self, width: int, height: int) -> None:
        """Prepare for images of this size, px, so that the first estimate takes no longer than the others."""

    def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
        """Scene flow from the first frame, the reference, to the second.

        With the newer frame first, the newer frame is the reference and dt is negative.

        Raises:
            InputError: the frames differ in size.
        """


@dataclass(frozen=True)
class EstimatorChoice:
    """A decision for one estimator, made once by `choose_estimator`; small, hashable and picklable.

    Pass it on, across processes too, and load it where estimates are computed: `motion.refined.load`, or `load_once` there
    in functions that are called once per item.

    Attributes:
        name: one of `ESTIMATORS`, or `ptlflow:MODEL`.
        weights: absolute path of the weights file; the name of weights that ptlflow downloads; None for classical.
        engine: one of `engines.ENGINES`; `opencv` for classical, `torch` or `openvino` for ptlflow.
        precision: of a network: `f32`, `tf32`, `bf16`, `int8` or `auto`; see `engines.load_engine`.
        gpu_memory_fraction: largest part of each GPU's memory that the network may take, above 0 to 1; 0: no limit.
        refine: one of `REFINEMENTS`.
    """

    name: str
    weights: Path | str | None
    engine: str
    precision: str = "f32"
    gpu_memory_fraction: float = 0.0
    refine: str = "rigid"

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights file; None where there is no file."""
        from dwarf_ros.files import file_sha256

        return file_sha256(self.weights) if isinstance(self.weights, Path) else None


def choose_estimator(
    name: str = "auto",
    weights: str | Path | None = None,
    engine: str = "auto",
    precision: str = "f32",
    gpu_memory_fraction: float = 0.0,
    refine: str = "rigid",
) -> EstimatorChoice:
    """What `motion.refined.load_estimator` would load, without loading it.

    Arguments and errors are those of `motion.refined.load_estimator`; damaged weights and an unavailable precision or
    fraction are reported only when it is loaded.
    """
    if refine not in REFINEMENTS:
        raise InputError(f"refine: {refine!r} is unknown, expected {' or '.join(REFINEMENTS)}")
    if name.startswith(PTLFLOW):
        return _choose_ptlflow(name, weights, engine, precision, refine)
    if name not in ("auto", *ESTIMATORS):
        raise InputError(
            f"estimator: {name!r} is unknown, expected auto, {', '.join(ESTIMATORS)} or {PTLFLOW}MODEL"
        )

    from dwarf_ros.engines import check_name, choose_engine

    check_name(engine)
    if name == "classical" and weights is not None:
        raise InputError(f"weights: {weights} given to the classical estimator, expected none")
    if name == "auto" and weights is None:
        name = BEST
    if name == "classical":
        if precision not in ("auto", "f32"):
            raise InputError(
                f"precision: {precision} given to the classical estimator, expected auto or f32"
            )
        return EstimatorChoice(name, None, "opencv", refine=refine)

    if weights is None:
        weights = shipped_weights(name)
        if not weights.is_file():
            raise InputError(
                f"estimator {name}: no weights given and {weights} is missing, expected a weights file"
            )
    from dwarf_ros.network.weights import read_header

    # Before the engine: looking for a GPU may load TensorFlow, which takes seconds.
    name = read_header(weights, None if name == "auto" else name).preset
    file = Path(weights).absolute()
    return EstimatorChoice(
        name, file, choose_engine(engine), precision, gpu_memory_fraction, refine
    )


def _choose_ptlflow(
    name: str, weights: str | Path | None, engine: str, precision: str, refine: str
) -> EstimatorChoice:
    from dwarf_ros.estimators.ptlflow import require_ptlflow

    engine = require_ptlflow(name, engine)
    if weights is None:
        raise InputError(
            f"weights: none given for {name}, expected a file or a name such as things"
        )
    file = Path(weights)
    # A name that ptlflow knows has no suffix and no folder.
    known_by_name = not file.is_file() and file.name == str(weights) and not file.suffix
    if not known_by_name and not file.is_file():
        raise InputError(f"weights: {weights} is missing, expected weights for {name}")
    return EstimatorChoice(
        name,
        str(weights) if known_by_name else file.absolute(),
        engine,
        precision,
        refine=refine,
    )


def load(choice: EstimatorChoice) -> Estimator:
    """The chosen estimator without its refinement, ready for use.

    Raises:
        InputError: the weights are damaged, or the precision or fraction of GPU memory is not available.
    """
    if choice.weights is None:
        from dwarf_ros.estimators.classical import ClassicalEstimator

        return ClassicalEstimator()
    if choice.name.startswith(PTLFLOW):
        from dwarf_ros.estimators.ptlflow import PtlflowEstimator

        return PtlflowEstimator(choice.name, choice.weights, choice.engine, choice.precision)
    from dwarf_ros.engines import load_engine
    from dwarf_ros.engines.source import NetworkSource
    from dwarf_ros.estimators.network import NetworkEstimator

    network = NetworkSource(Path(choice.weights), choice.name)
    engine = load_engine(choice.engine, network, choice.precision, choice.gpu_memory_fraction)
    return NetworkEstimator(choice.name, engine)


def shipped_weights(name: str) -> Path:
    """Path of a preset's shipped weights, whether or not the file exists."""
    file = Path("model") / f"{name}.safetensors"
    try:
        return share_directory() / file
    except FileNotFoundError:
        return file
