"""What turns two stereo frames into scene flow: the DWARF network or classical methods, chosen by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from dwarf_ros.share import share_directory
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

NETWORKS = ("dwarf", "dwarf_lite")
ESTIMATORS = (*NETWORKS, "classical")

BEST = "classical"
"""The most accurate of what is shipped, by the figures of model/README.md, whatever the hardware."""


class Estimator(Protocol):
    """Something that answers with the scene flow between two stereo frames."""

    @property
    def name(self) -> str:
        """One of `ESTIMATORS`."""

    @property
    def engine(self) -> str:
        """What computes it: `tensorflow`, `openvino`, or `opencv` for classical."""

    def warm_up(self, width: int, height: int) -> None:
        """Make everything ready for images of this size, px, so that the first answer takes no longer than the others."""

    def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
        """Scene flow from the first frame, the reference, to the second.

        Given the newer frame first it answers for that one, with a negative dt.

        Raises:
            InputError: the frames differ in size.
        """


class EstimatorChoice(NamedTuple):
    """What `choose_estimator` came to: an estimator's name, its weights file (None for classical) and its engine."""

    name: str
    weights: Path | None
    engine: str


def load_estimator(
    name: str = "auto",
    weights: str | Path | None = None,
    engine: str = "auto",
    precision: str = "f32",
    gpu_memory_fraction: float = 0.0,
) -> Estimator:
    """Estimator of that name, ready to be used.

    Args:
        name: `dwarf` or `dwarf_lite`, the network; `classical`, OpenCV's methods, which need no weights; or `auto`: the
            network that `weights` are for, or without them the most accurate that is shipped, `BEST`.
        weights: a weights file for the network; None takes the file shipped as model/NAME.safetensors.
        engine: what runs a network: `tensorflow`, `openvino`, or `auto` for the fastest installed that can use the
            hardware present. classical does not need one.
        precision: of a network: `f32`, `tf32`, `bf16`, `int8` or `auto`; see `engines.load_engine`.
        gpu_memory_fraction: largest part of each GPU's memory that a network may take, above 0 to 1; 0: as it is needed.

    Raises:
        InputError: an unknown name or engine, an engine that is not installed, weights that are missing, damaged or of
            another preset, weights given to classical, or a precision or fraction that cannot be had.
    """
    choice = choose_estimator(name, weights, engine, gpu_memory_fraction)
    if choice.weights is None and precision not in ("auto", "f32"):
        raise InputError(
            f"precision: {precision} given to the classical estimator, expected auto or f32"
        )
    return _load(choice, precision)


@lru_cache(maxsize=1)
def chosen_estimator(choice: EstimatorChoice) -> Estimator:
    """The estimator of a choice, loaded once a process, for what is called with many items.

    Raises:
        InputError: as `load_estimator`.
    """
    return _load(choice)


def _load(choice: EstimatorChoice, precision: str = "f32") -> Estimator:
    if choice.weights is None:
        from dwarf_ros.estimators.classical import ClassicalEstimator

        return ClassicalEstimator()
    from dwarf_ros.estimators.network import NetworkEstimator

    return NetworkEstimator(choice.weights, choice.name, choice.engine, precision)


def choose_estimator(
    name: str = "auto",
    weights: str | Path | None = None,
    engine: str = "auto",
    gpu_memory_fraction: float = 0.0,
) -> EstimatorChoice:
    """What `load_estimator` would load, without loading it; that it can be loaded is not certain, for weights may be damaged.

    Arguments and errors are those of `load_estimator`.
    """
    if name not in ("auto", *ESTIMATORS):
        raise InputError(f"estimator: {name!r} is unknown, expected auto, {', '.join(ESTIMATORS)}")

    from dwarf_ros.engines import check_name, choose_engine

    check_name(engine)
    if name == "classical" and weights is not None:
        raise InputError(f"weights: {weights} given to the classical estimator, expected none")
    if name == "auto" and weights is None:
        name = BEST
    if name == "classical":
        return EstimatorChoice(name, None, "opencv")

    if weights is None:
        weights = shipped_weights(name)
        if not weights.is_file():
            raise InputError(
                f"estimator {name}: no weights given and {weights} is missing, expected a weights file"
            )
    from dwarf_ros.network.weights import read_header

    # Before the engine, because loading TensorFlow takes seconds, too long for the news that a file is not there.
    name = read_header(weights, None if name == "auto" else name).preset
    return EstimatorChoice(
        name, Path(weights).absolute(), choose_engine(engine, gpu_memory_fraction)
    )


def shipped_weights(name: str) -> Path:
    """Where the weights of a preset lie where they are shipped; there may be none."""
    file = Path("model") / f"{name}.safetensors"
    try:
        return share_directory() / file
    except FileNotFoundError:
        return file
