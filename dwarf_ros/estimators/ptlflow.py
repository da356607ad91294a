"""Scene flow by the optical flow networks of ptlflow: slow and accurate, a teacher for distillation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.estimators import PTLFLOW
from dwarf_ros.estimators.classical import look_up
from dwarf_ros.estimators.pair import lands_inside, require_one_size, seconds_between
from dwarf_ros.files import file_sha256
from dwarf_ros.geometry import aligned_frame
from dwarf_ros.network.codec import padding
from dwarf_ros.network.presets import SIZE_MULTIPLE
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

ENGINES = ("torch", "openvino")

MAX_ROW_ERROR = 2.0
"""A stereo match that leaves its row by more than this, px, is invalid."""

_Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def require_ptlflow(name: str, engine: str = "auto") -> str:
    """The engine to use; checks that what `ptlflow:MODEL` needs is installed, without importing it.

    Args:
        name: of the estimator.
        engine: `torch`, `openvino`, or `auto`, which is torch.

    Raises:
        InputError: no model is named, the engine is unknown, or a package is missing.
    """
    if not name.removeprefix(PTLFLOW):
        raise InputError(f"estimator: {name!r} names no model, expected for example {PTLFLOW}raft")
    if engine not in ("auto", *ENGINES):
        raise InputError(f"engine: {engine} given to {name}, expected auto, {' or '.join(ENGINES)}")
    engine = "torch" if engine == "auto" else engine
    missing = [p for p in dict.fromkeys(("torch", "ptlflow", engine)) if find_spec(p) is None]
    if missing:
        raise InputError(
            f"estimator {name}: {' and '.join(missing)} not installed, expected: "
            "pip install 'dwarf_ros[teachers]'"
        )
    return engine


class PtlflowEstimator:
    """Disparity and optical flow by one optical flow network, in three passes.

    The network runs from left to right at both times and forward in time. The horizontal component between left and right
    is the negative disparity; where the match leaves its row by more than 2 px, or lies to the right, there is no
    disparity. The disparity at the other time is looked up where the flow points. `valid` is True where both disparities
    are known and the flow points into the image.

    Attributes:
        name: `ptlflow:MODEL`.
        engine: `torch` or `openvino`.

    Reference: Morimitsu, "PyTorch Lightning Optical Flow", https://github.com/hmorimitsu/ptlflow.
    """

    def __init__(
        self, name: str, weights: Path | str | None, engine: str = "torch", precision: str = "f32"
    ) -> None:
        """Load a model of ptlflow.

        Args:
            name: `ptlflow:MODEL`.
            weights: file with a state dictionary, read without executing code; or the name of weights that ptlflow
                downloads, such as `things`.
            engine: `torch`, or `openvino`, which converts the model once for each image size and caches it.
            precision: of openvino: `f32`, `bf16` or `auto`, bf16 where the processor has it.

        Raises:
            InputError: unknown model or weights, a file that is damaged or holds another model's weights, or a precision
                that the processor lacks.
        """
        self.name, self.engine = name, engine
        self._model = _load_model(name.removeprefix(PTLFLOW), weights)
        self._identity = f"{name.removeprefix(PTLFLOW)}-{_digest(weights)}"
        self._precision = _checked_precision(engine, precision)
        self._compiled: dict[tuple[int, ...], _Flow] = {}
        self._disparities: list[tuple[StereoFrame, np.ndarray]] = []

    def warm_up(self, width: int, height: int) -> None:
        """Convert the model for images of this size, px; torch needs no preparation."""
        if self.engine == "openvino":
            self._compiled_for((height + -height % SIZE_MULTIPLE, width + -width % SIZE_MULTIPLE))

    def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
        """Scene flow from the first frame, the reference, to the second.

        The disparities of both frames are kept for the next call, which recognizes a frame as the same object.

        Returns:
            SceneFlow with the first frame's stamp, camera (aligned, see `aligned_frame`) and frame_id; dt is negative
            where it is the newer one.

        Raises:
            InputError: the frames differ in size.
        """
        require_one_size(previous, current)
        disparity, disparity_current = self._disparities_of(previous, current)
        previous, current = aligned_frame(previous), aligned_frame(current)
        flow = self._flow(previous.left, current.left)
        disparity_next = look_up(disparity_current, flow)
        return SceneFlow(
            disparity=disparity.copy(),
            disparity_next=disparity_next,
            flow=flow,
            valid=lands_inside(flow) & np.isfinite(disparity) & np.isfinite(disparity_next),
            stamp=previous.stamp,
            dt=seconds_between(previous, current),
            camera=previous.camera,
            frame_id=previous.frame_id,
        )

    def disparity(self, frame: StereoFrame) -> np.ndarray:
        """Disparity of a frame's left image; see `stereo_disparity`."""
        aligned = aligned_frame(frame)
        return stereo_disparity(self._flow(aligned.left, aligned.right))

    def _disparities_of(self, *frames: StereoFrame) -> list[np.ndarray]:
        known, self._disparities = self._disparities, []
        for frame in frames:
            found = [disparity for seen, disparity in known if seen is frame]
            disparity = found[0] if found else self.disparity(frame)
            self._disparities.append((frame, disparity))
        return [disparity for _, disparity in self._disparities]

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Optical flow between two uint8 RGB images, float32 H x W x 2, px.

        The images are reflected at their borders to multiples of 64 px, as for the own network; the padding of ptlflow doubles
        the outliers of GMFlow's stereo on KITTI 2012 000027.
        """
        height, width = first.shape[:2]
        (top, bottom), (left, right) = padding(height, width)
        around = ((top, bottom), (left, right), (0, 0))
        padded = [np.pad(image, around, mode="reflect") for image in (first, second)]
        run = self._torch_flow if self.engine == "torch" else self._compiled_for(padded[0].shape)
        flow = run(*padded)[top : top + height, left : left + width]
        return np.ascontiguousarray(flow)

    def _torch_flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            flow = self._model(_tensor(first), _tensor(second))
        return flow[0].numpy().transpose(1, 2, 0)

    def _compiled_for(self, shape: tuple[int, ...]) -> _Flow:
        shape = shape[:2]
        if shape not in self._compiled:
            # One size at a time: two of them may not fit the memory.
            self._compiled = {shape: _compile(self._model, self._identity, shape, self._precision)}
        return self._compiled[shape]


def stereo_disparity(flow: np.ndarray) -> np.ndarray:
    """Disparity from the optical flow of a rectified pair, left to right.

    Args:
        flow: (u, v), px, float32 H x W x 2.

    Returns:
        x_left - x_right, px, float32 H x W, > 0; NaN where the match is not to the left, or leaves its row by more than
        MAX_ROW_ERROR.
    """
    matched = (flow[..., 0] < 0) & (np.abs(flow[..., 1]) <= MAX_ROW_ERROR)
    return np.where(matched, -flow[..., 0], np.float32(np.nan))


def load_network(model_name: str, weights: Path | str | None) -> Any:
    """A model of ptlflow with its weights, for inference.

    Raises:
        InputError: see `PtlflowEstimator`.
    """
    import ptlflow

    names = ptlflow.get_model_names()
    if model_name not in names:
        raise InputError(
            f"estimator: ptlflow has no model {model_name!r}, expected one of {', '.join(names)}"
        )
    known = list(getattr(ptlflow.get_model_reference(model_name), "pretrained_checkpoints", {}))
    if not isinstance(weights, Path) and weights not in known:
        raise InputError(
            f"weights: {weights or 'none given'} for {PTLFLOW}{model_name}, expected a file or one of {', '.join(known)}"
        )
    try:
        network = ptlflow.get_model(model_name, None if isinstance(weights, Path) else weights)
    except OSError as error:
        raise InputError(
            f"weights: {weights} of {PTLFLOW}{model_name} cannot be downloaded ({error})"
        ) from None
    if isinstance(weights, Path):
        try:
            network.load_state_dict(_read_state(weights), strict=True)
        except RuntimeError:
            raise InputError(
                f"{weights}: is not of ptlflow's model {model_name}, expected its weights"
            ) from None
    return network.eval().requires_grad_(False)


def _load_model(model_name: str, weights: Path | str | None) -> Any:
    """The model as a torch module: two images, float32 N x 3 x H x W, RGB in [0, 1], to flow N x 2 x H x W."""
    import torch

    network = load_network(model_name, weights)

    class TwoImages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            # ptlflow's models take BGR.
            images = torch.stack([first.flip(1), second.flip(1)], dim=1)
            return self.network({"images": images})["flows"][:, 0]

    return TwoImages().eval()


def _read_state(file: Path) -> dict[str, Any]:
    """State dictionary of a checkpoint; nothing in the file is executed.

    Raises:
        InputError: the file is missing or is no checkpoint.
    """
    import pickle

    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}, expected a checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise InputError(
            f"{file}: is not a checkpoint of tensors, expected torch weights"
        ) from None
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no weights by name, expected a state dictionary")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _digest(weights: Path | str | None) -> str:
    if isinstance(weights, Path):
        return file_sha256(weights)[:16]
    return hashlib.sha256(str(weights).encode()).hexdigest()[:16]


def _checked_precision(engine: str, precision: str) -> str:
    if engine == "torch":
        expected = "auto or f32"
        if precision in ("auto", "f32"):
            return "f32"
    else:
        from dwarf_ros.engines.openvino import has_bfloat16

        expected = "auto, f32 or bf16"
        if precision == "auto":
            return "bf16" if has_bfloat16() else "f32"
        if precision == "f32" or (precision == "bf16" and has_bfloat16()):
            return precision
    raise InputError(f"precision: {precision} given to ptlflow on {engine}, expected {expected}")


def _compile(model: Any, identity: str, shape: tuple[int, ...], precision: str) -> _Flow:
    """The model compiled by OpenVINO for one image size; the conversion is cached."""
    from dwarf_ros.engines.cache import cached
    from dwarf_ros.engines.quiet_openvino import ov

    rows, columns = shape

    def convert(folder: Path) -> None:
        import torch

        example = torch.zeros(1, 3, rows, columns)
        with torch.no_grad():
            # As a function, because tracing a module reads all its attributes, and some of Lightning's raise errors.
            traced = torch.jit.trace(
                lambda first, second: model(first, second), (example, example), check_trace=False
            )
            converted = ov.convert_model(traced, example_input=(example, example))
        for parameter in converted.inputs:
            parameter.get_node().set_partial_shape(ov.PartialShape([1, 3, rows, columns]))
        converted.validate_nodes_and_infer_types()
        ov.save_model(converted, folder / "model.xml", compress_to_fp16=False)

    def read(folder: Path) -> Any:
        hint = ov.Type.bf16 if precision == "bf16" else ov.Type.f32
        return ov.Core().compile_model(
            folder / "model.xml",
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint},
        )

    version = ov.__version__.split("-")[0]
    compiled = cached(f"ptlflow-{identity}-{rows}x{columns}-openvino-{version}", convert, read)

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        inputs = [np.float32(i.transpose(2, 0, 1)[None]) / 255 for i in (first, second)]
        return compiled(inputs)[0][0].transpose(1, 2, 0)

    return flow


def _tensor(image: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).float() / 255
