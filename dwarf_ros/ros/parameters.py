"""The parameters of the node; `python -m dwarf_ros.ros.parameters > docs/parameters.md` writes their table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

from dwarf_ros.ros import messages

QOS_OVERRIDES = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
"""Policies of every topic that parameters `qos_overrides.*` can set."""


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the node.

    Attributes:
        default: also determines the type.
        description: one or two sentences, with the unit.
        between: smallest and largest value of a number.
        choices: allowed values of a string; empty: any.
        changes: "live": takes effect at once; "configure": only while the node is unconfigured; "start": never.
    """

    default: Any
    description: str
    between: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    changes: str = "live"


PARAMETERS = {
    "estimator": ParameterSpec(
        "auto",
        "Estimator: auto, dwarf, dwarf_lite or classical. auto runs the network of `weights`; without weights it runs classical, which is more accurate than the shipped weights.",
        changes="configure",
    ),
    "engine": ParameterSpec(
        "auto",
        "Inference engine of the network: auto (the fastest one installed), tensorflow, openvino or onnxruntime.",
        changes="configure",
    ),
    "weights": ParameterSpec(
        "",
        "Weights file of the network (.safetensors). Empty: the file installed with the package.",
        changes="configure",
    ),
    "precision": ParameterSpec(
        "f32",
        "Arithmetic of the network: f32, tf32 or bf16 (faster on hardware that supports them), int8 (weights from dwarf quantize, engine openvino) or auto.",
        choices=("f32", "tf32", "bf16", "int8", "auto"),
        changes="configure",
    ),
    "refine": ParameterSpec(
        "rigid",
        "Refinement of the estimate: rigid (static pixels follow the camera's own motion, and each moving object has one "
        "motion) or none. Without it there is no ego-motion and no moving object.",
        choices=("rigid", "none"),
        changes="configure",
    ),
    "gpu_memory_fraction": ParameterSpec(
        0.0,
        "Largest fraction of each GPU's memory that TensorFlow may use. 0: grows as needed.",
        between=(0.0, 1.0),
        changes="configure",
    ),
    "image_width": ParameterSpec(
        0,
        "Width of the images to compile the network for while the node is configured, px. "
        "0: compile when the first image arrives.",
        between=(0, 65535),
        changes="configure",
    ),
    "image_height": ParameterSpec(
        0,
        "Height of the images to compile the network for, px; see image_width.",
        between=(0, 65535),
        changes="configure",
    ),
    "image_transport": ParameterSpec(
        "raw",
        "Transport of the images: raw (sensor_msgs/Image) or compressed (sensor_msgs/CompressedImage, JPEG or PNG, on the "
        "image topics with /compressed appended).",
        choices=("raw", "compressed"),
        changes="configure",
    ),
    "reliable": ParameterSpec(
        False,
        "Whether images are requested as reliable, which only reliable publishers match. false: best effort, which all match.",
        changes="start",
    ),
    "reference": ParameterSpec(
        "current",
        "Reference frame of the estimate: current (the newest) or previous (the one before, as in KITTI).",
        choices=("current", "previous"),
    ),
    "approximate_sync": ParameterSpec(
        True,
        "Whether the stamps of a left and a right image may differ. false: only equal stamps form a pair.",
    ),
    "sync_tolerance_s": ParameterSpec(
        0.01,
        "Largest difference between the stamps of a left and a right image with approximate_sync, s; "
        "always limited to half the time between two frames.",
        between=(0.0, 1.0),
    ),
    "queue_size": ParameterSpec(
        10,
        "Number of images of each camera that wait for their partner.",
        between=(1, 1000),
        changes="configure",
    ),
    "max_frame_gap_s": ParameterSpec(
        1.0,
        "Largest time between two consecutive frames, s; frames farther apart are not compared.",
        between=(0.001, 3600.0),
    ),
    "process_every_n": ParameterSpec(
        1,
        "Estimate only every n-th pair of consecutive frames.",
        between=(1, 1000),
    ),
    "velocity_frame": ParameterSpec(
        "ground",
        "Velocities in scene_flow and scene_flow_markers: ground (against the static scene, so that only what moves by "
        "itself has a velocity) or camera (relative to the camera). Without ego-motion they are relative to the camera.",
        choices=("ground", "camera"),
    ),
    "odom_frame": ParameterSpec(
        "odom",
        "frame_id of odometry and parent frame of the transform that publish_tf publishes.",
    ),
    "publish_tf": ParameterSpec(
        False,
        "Publish the transform from odom_frame to the left camera's optical frame on /tf. Needs tf2_msgs.",
        changes="configure",
    ),
    "max_depth_m": ParameterSpec(
        200.0,
        "Largest depth in depth and in all points, m; farther points are unknown.",
        between=(0.1, 100000.0),
    ),
    "min_disparity": ParameterSpec(
        0.5,
        "Smallest disparity in disparity, depth and all points, px; smaller ones are unknown.",
        between=(0.01, 1000.0),
    ),
    "occlusion_check": ParameterSpec(
        True,
        "Whether velocities are limited to pixels that the estimator marks as valid, for example where forward and backward "
        "flow agree. false: wherever disparities and flow are known.",
    ),
    "marker_spacing_px": ParameterSpec(
        messages.DEFAULT_MARKER_SPACING_PX,
        "Distance between the pixels that have a line in scene_flow_markers, px.",
        between=(1, 1000),
    ),
    "frame_id": ParameterSpec(
        "",
        "frame_id of everything that is published. Empty: that of the left images.",
    ),
    "autostart": ParameterSpec(
        True,
        "Configure and activate the node when it starts. false: wait for lifecycle transitions.",
        changes="start",
    ),
}


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """Description and range of a parameter, for `declare_parameter`.

    None is flagged as read-only: rclpy would refuse unchanged values, too, as those of `ros2 param load`.
    """
    descriptor = ParameterDescriptor(description=spec.description)
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


def with_doubles(changed: list[Parameter]) -> list[Parameter]:
    """The same values, with integers for doubles converted."""
    return [
        Parameter(parameter.name, value=float(parameter.value))
        if type(parameter.value) is int
        and isinstance(getattr(PARAMETERS.get(parameter.name), "default", None), float)
        else parameter
        for parameter in changed
    ]


def rejection(changed: Iterable[Parameter], configured: bool, current: Callable[[str], Any]) -> str:
    """Why the node refuses these values of its parameters; empty if it accepts them.

    Args:
        changed: the new values.
        configured: whether the node is configured.
        current: the present value of a parameter, None before it is declared.
    """
    for parameter in changed:
        name, value, spec = parameter.name, parameter.value, PARAMETERS.get(parameter.name)
        if spec is None:
            continue
        if spec.choices and value not in spec.choices:
            return f"{name} is {value!r}, expected {' or '.join(spec.choices)}"
        if current(name) in (value, None):
            continue
        if spec.changes == "configure" and configured:
            return f"{name} is read when the node is configured: deactivate and clean up first"
        if spec.changes == "start":
            return f"{name} is read-only: it is read when the node starts"
    return ""


def parameter_table() -> str:
    """The page docs/parameters.md: every parameter with its type, default, range, when it may change, and its meaning."""
    rows = [
        "# Parameters of the node `dwarf`",
        "",
        "Generated by `python -m dwarf_ros.ros.parameters > docs/parameters.md`. *live*: may be changed while the node runs;",
        "*configure*: only while it is unconfigured; *start*: only when it starts. The node gives a reason for every change that it refuses.",
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
            f"| `{name}` | {kind} | `{_yaml(spec.default)}` | {allowed} | {spec.changes} | {spec.description} |"
        )
    return "\n".join(rows) + "\n"


def _yaml(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default != "" else '""'


if __name__ == "__main__":
    sys.stdout.write(parameter_table())
