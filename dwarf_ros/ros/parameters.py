"""The live node's parameters, declared once: `python -m dwarf_ros.ros.parameters > docs/parameters.md` writes their table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from dwarf_ros.ros import messages


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of the node: its default, what it does, and what it may be."""

    default: Any
    description: str
    between: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    # "live": at once; "configure": refused unless the node is unconfigured; "start": read-only.
    changes: str = "live"


PARAMETERS = {
    "estimator": ParameterSpec(
        "auto",
        "Estimator: auto, dwarf, dwarf_lite or classical; auto takes the network of the weights given, else classical, which is more accurate than the weights that are shipped.",
        changes="configure",
    ),
    "engine": ParameterSpec(
        "auto",
        "What runs the network: auto (the fastest that is installed), tensorflow, openvino or onnxruntime.",
        changes="configure",
    ),
    "weights": ParameterSpec(
        "",
        "Weights file of the network (.safetensors); empty: the file that is installed with the package.",
        changes="configure",
    ),
    "precision": ParameterSpec(
        "f32",
        "What the network computes in: f32, tf32, bf16 (both faster, where the hardware has them), int8 (made by dwarf quantize; engine openvino) or auto.",
        choices=("f32", "tf32", "bf16", "int8", "auto"),
        changes="configure",
    ),
    "gpu_memory_fraction": ParameterSpec(
        0.0,
        "Largest part of each GPU's memory that TensorFlow may take; 0: as much as it needs, growing.",
        between=(0.0, 1.0),
        changes="configure",
    ),
    "image_width": ParameterSpec(
        0,
        "Width of the images to compile the network for when the node is configured, px; "
        "0: it is compiled when the first image comes.",
        between=(0, 65535),
        changes="configure",
    ),
    "image_height": ParameterSpec(
        0,
        "Height of the images to compile the network for, px, as image_width.",
        between=(0, 65535),
        changes="configure",
    ),
    "image_transport": ParameterSpec(
        "raw",
        "How images come: raw (sensor_msgs/Image), or compressed (sensor_msgs/CompressedImage, JPEG or PNG, on the image "
        "topics with /compressed added).",
        choices=("raw", "compressed"),
        changes="configure",
    ),
    "reference": ParameterSpec(
        "current",
        "Frame that the answer is for: current (the newest) or previous (the one before, as in KITTI).",
        choices=("current", "previous"),
    ),
    "approximate_sync": ParameterSpec(
        True,
        "Whether the stamps of a left and a right image may differ; false: equal stamps only.",
    ),
    "sync_tolerance_s": ParameterSpec(
        0.01,
        "Largest difference between the stamps of a left and a right image with approximate_sync, s. "
        "It is held below half the time between two frames.",
        between=(0.0, 1.0),
    ),
    "queue_size": ParameterSpec(
        10,
        "How many images of each camera wait for their partner.",
        between=(1, 1000),
        changes="configure",
    ),
    "max_frame_gap_s": ParameterSpec(
        1.0,
        "Frames farther apart in time than this are not compared, s.",
        between=(0.001, 3600.0),
    ),
    "process_every_n": ParameterSpec(
        1,
        "One in this many pairs of consecutive frames is answered.",
        between=(1, 1000),
    ),
    "max_depth_m": ParameterSpec(
        200.0,
        "Points farther away are left out of depth, scene_flow and scene_flow_markers, m.",
        between=(0.1, 100000.0),
    ),
    "min_disparity": ParameterSpec(
        0.5,
        "Smaller disparities are invalid in disparity, depth, scene_flow and scene_flow_markers, px.",
        between=(0.01, 1000.0),
    ),
    "occlusion_check": ParameterSpec(
        True,
        "Whether velocities are given only where the estimator trusts its answer, as where flow forward and backward agree; "
        "false: wherever disparities and flow are known.",
    ),
    "marker_spacing_px": ParameterSpec(
        messages.DEFAULT_MARKER_SPACING_PX,
        "Distance of the pixels that get a line in scene_flow_markers, px.",
        between=(1, 1000),
    ),
    "frame_id": ParameterSpec(
        "",
        "Frame of what is published; empty: that of the left images.",
    ),
    "autostart": ParameterSpec(
        True,
        "Configure and activate when the node starts; false: wait for lifecycle transitions.",
        changes="start",
    ),
}


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """What ROS is told of a parameter: description, range, and whether it is read-only."""
    descriptor = ParameterDescriptor(
        description=spec.description, read_only=spec.changes == "start"
    )
    if spec.choices:
        descriptor.additional_constraints = " or ".join(spec.choices)
    if spec.between is not None:
        low, high = spec.between
        if isinstance(spec.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def parameter_table() -> str:
    """The page docs/parameters.md: every parameter with type, default, range, when it may change, and what it does."""
    rows = [
        "# Parameters of the node `dwarf`",
        "",
        "Generated: `python -m dwarf_ros.ros.parameters > docs/parameters.md`. *live*: may be changed while the node runs;",
        "*configure*: only while it is unconfigured; *start*: only when it starts. What is refused is refused with a reason.",
        "",
        "| parameter | type | default | range | changes | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for name, spec in PARAMETERS.items():
        kind = {bool: "bool", int: "integer", float: "double", str: "string"}[type(spec.default)]
        allowed = " or ".join(f"`{choice}`" for choice in spec.choices)
        if spec.between is not None:
            allowed = f"{spec.between[0]:g} to {spec.between[1]:g}"
        rows.append(
            f"| `{name}` | {kind} | `{shown(spec.default)}` | {allowed} | {spec.changes} | {spec.description} |"
        )
    return "\n".join(rows) + "\n"


def shown(default: Any) -> str:
    """A default as it is written in YAML."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default != "" else '""'


if __name__ == "__main__":
    sys.stdout.write(parameter_table())
