"""Starts the live node, and RViz if asked for: `ros2 launch dwarf_ros dwarf.launch.py --show-args`."""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dwarf_ros.ros.distro import PROFILE_VARIABLES

CONFIG = Path(__file__).resolve().parents[1] / "config"

# Empty: what params_file says.
PARAMETERS = {
    "estimator": "Estimator: auto, dwarf, dwarf_lite or classical.",
    "engine": "What runs the network: auto, tensorflow, openvino or onnxruntime.",
    "weights": "Weights file of the network.",
    "reference": "Frame that the answer is for: current or previous.",
    "frame_id": "Frame of all that is published, and of what RViz shows.",
}
# Frame of what `dwarf play` publishes; a camera's own frame is given by frame_id.
FRAME_ID = "left_camera_optical_frame"
INPUTS = {
    "left_image": "left/image_rect",
    "right_image": "right/image_rect",
    "left_camera_info": "left/camera_info",
    "right_camera_info": "right/camera_info",
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The processes, with what the arguments say."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    chosen = {name: argument(name) for name in PARAMETERS if argument(name)}
    chosen["use_sim_time"] = argument("use_sim_time").lower() in ("true", "1")
    remappings = [(topic, argument(name)) for name, topic in INPUTS.items()]
    return [
        Node(
            package="dwarf_ros",
            executable="dwarf_node",
            name="dwarf",
            namespace=argument("namespace"),
            parameters=[argument("params_file"), chosen],
            remappings=remappings,
            ros_arguments=["--log-level", argument("log_level")],
            output="screen",
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=argument("namespace"),
            arguments=[
                *("--display-config", str(CONFIG / "dwarf.rviz")),
                *("--fixed-frame", argument("frame_id") or FRAME_ID),
            ],
            parameters=[{"use_sim_time": chosen["use_sim_time"]}],
            remappings=remappings,
            condition=IfCondition(argument("rviz")),
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile for large images unless the user chose one, and the processes."""
    profile = str(CONFIG / "fastdds.xml")
    named = any(os.environ.get(name) for name in PROFILE_VARIABLES)
    unset = () if named else PROFILE_VARIABLES
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of node and topics."
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value="", description=f"{text} Empty: as in params_file."
                )
                for name, text in PARAMETERS.items()
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(CONFIG / "dwarf.yaml"),
                description="Parameter file of the node.",
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value=topic, description=f"Topic to take for {topic}."
                )
                for name, topic in INPUTS.items()
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="false",
                choices=["true", "false"],
                description="Start RViz with the node's topics.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Take the time from /clock.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity that is logged.",
            ),
            *(SetEnvironmentVariable(name, profile) for name in unset),
            OpaqueFunction(function=start),
        ]
    )
