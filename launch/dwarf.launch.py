"""Starts the node, and RViz on request: `ros2 launch dwarf_ros dwarf.launch.py --show-args`."""

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from dwarf_ros.ros.distro import PROFILE_VARIABLES

CONFIG = Path(__file__).resolve().parents[1] / "config"

# Parameters of the node. Empty: as in params_file.
PARAMETERS = {
    "estimator": "Estimator: auto, dwarf, dwarf_lite or classical.",
    "engine": "Inference engine of the network: auto, tensorflow, openvino or onnxruntime.",
    "weights": "Weights file of the network.",
    "precision": "Arithmetic of the network: f32, tf32, bf16, int8 or auto.",
    "refine": "Refinement by the camera's own motion: rigid or none.",
    "image_transport": "Transport of the images: raw or compressed.",
    "reliable": "Request reliable images, which only reliable publishers match: true or false.",
    "reference": "Reference frame of the estimate: current or previous.",
    "frame_id": "frame_id of everything that is published, and RViz's fixed frame.",
    "autostart": "Configure and activate the node when it starts: true or false.",
}
# The fixed frame without frame_id: that of `dwarf play`.
FRAME_ID = "left_camera_optical_frame"
INPUTS = {
    "left_image": "left/image_rect",
    "right_image": "right/image_rect",
    "left_camera_info": "left/camera_info",
    "right_camera_info": "right/camera_info",
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node and RViz, as the arguments say.

    Raises:
        RuntimeError: params_file does not exist, or rviz2 is not installed.
    """

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    params_file = Path(argument("params_file")).expanduser()
    if not params_file.is_file():
        raise RuntimeError(f"params_file: {params_file}: no such file")
    use_sim_time = {"use_sim_time": argument("use_sim_time") == "true"}
    chosen = {
        name: ParameterValue(
            LaunchConfiguration(name),
            value_type=bool if name in ("autostart", "reliable") else str,
        )
        for name in PARAMETERS
        if argument(name)
    }
    common = {
        "namespace": argument("namespace"),
        "remappings": [(topic, argument(name)) for name, topic in INPUTS.items()],
    }
    node = Node(
        package="dwarf_ros",
        executable="dwarf_node",
        name="dwarf",
        parameters=[str(params_file), chosen, use_sim_time],
        ros_arguments=["--log-level", argument("log_level")],
        output="screen",
        **common,
    )
    if argument("rviz") == "false":
        return [node]
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz: rviz2 is not installed, expected rviz:=false") from None
    display = ["--display-config", str(CONFIG / "dwarf.rviz")]
    frame = ["--fixed-frame", argument("frame_id") or FRAME_ID]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=display + frame,
        parameters=[use_sim_time],
        **common,
    )
    return [node, rviz]


def declared(
    name: str, default: str, description: str, choices: tuple[str, ...] = ()
) -> DeclareLaunchArgument:
    """An argument of the launch file."""
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=list(choices) or None
    )


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile for large images unless the user chose one, and the processes."""
    named = any(os.environ.get(name) for name in PROFILE_VARIABLES)
    profile = str(CONFIG / "fastdds.xml")
    levels = ("debug", "info", "warn", "error", "fatal")
    return LaunchDescription(
        [
            declared("namespace", "", "Namespace of the node and its topics."),
            *(
                declared(n, "", f"{text} Empty: as in params_file.")
                for n, text in PARAMETERS.items()
            ),
            declared("params_file", str(CONFIG / "dwarf.yaml"), "Parameter file of the node."),
            *(declared(n, topic, f"Topic to use as {topic}.") for n, topic in INPUTS.items()),
            declared("rviz", "false", "Start RViz with the node's topics.", ("true", "false")),
            declared("use_sim_time", "false", "Use the time of /clock.", ("true", "false")),
            declared("log_level", "info", "Least severity that is logged.", levels),
            *(SetEnvironmentVariable(n, profile) for n in PROFILE_VARIABLES if not named),
            OpaqueFunction(function=start),
        ]
    )
