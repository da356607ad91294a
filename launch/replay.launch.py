"""Plays a recording into the live node, and records its answers if asked for: `ros2 launch dwarf_ros replay.launch.py --show-args`."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dwarf_ros.live.processes import PLAYER_LOG, RECORDING, prepare_run

HERE = Path(__file__).resolve().parent

# A network may be compiled first, and the player waits until the node listens.
WAIT_S = 180
# Without answers and frames for this time the recorder ends.
IDLE_S = 6


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Player and, where a folder is given, the recorder; what ends last ends everything."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    rate, record = argument("rate"), argument("record")
    play = ["play", argument("source"), "--wait", str(WAIT_S)]
    if rate:
        play += ["--rate", rate]
    if argument("loop") == "true":
        play.append("--loop")
    entities: list[LaunchDescriptionEntity] = []
    if record:
        folder = Path(record).expanduser().resolve()
        prepare_run(folder)
        play += ["--log", str(folder / PLAYER_LOG)]
        idle = max(IDLE_S, 3 / float(rate)) if rate else IDLE_S
        entities.append(
            Node(
                package="dwarf_ros",
                executable="dwarf",
                name="dwarf_recorder",
                namespace=argument("namespace"),
                arguments=[
                    "record",
                    str(folder / RECORDING),
                    "--idle-timeout",
                    str(idle),
                    "--reference",
                    argument("reference"),
                ],
                output="screen",
                on_exit=[Shutdown(reason="the recorder has ended")],
            )
        )
    entities.append(
        Node(
            package="dwarf_ros",
            executable="dwarf",
            name="dwarf_player",
            namespace=argument("namespace"),
            arguments=play,
            output="screen",
            on_exit=None if record else [Shutdown(reason="the recording has been played")],
        )
    )
    return entities


def generate_launch_description() -> LaunchDescription:
    """Arguments beside those of dwarf.launch.py, which comes first and sets the Fast DDS profile, and the processes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "source", description="Bag, or folder of stereo images, to be played."
            ),
            DeclareLaunchArgument(
                "rate",
                default_value="",
                description="Frames a second of wall time. Empty: as recorded.",
            ),
            DeclareLaunchArgument(
                "loop",
                default_value="false",
                choices=["true", "false"],
                description="Start again after the last frame, until interrupted.",
            ),
            DeclareLaunchArgument(
                "record",
                default_value="",
                description="Folder to record the answers to, in place of an earlier run; empty: none.",
            ),
            DeclareLaunchArgument(
                "reference",
                default_value="previous",
                choices=["previous", "current"],
                description="Frame that the answer is for; `dwarf bag evaluate` expects previous.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(HERE / "dwarf.launch.py")),
                launch_arguments={"reference": LaunchConfiguration("reference")}.items(),
            ),
            OpaqueFunction(function=start),
        ]
    )
