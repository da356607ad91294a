"""Plays a recording into the node, and records its estimates on request: `ros2 launch dwarf_ros replay.launch.py --show-args`."""

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

# The player waits for the node, which may compile a network first.
WAIT_S = 180
# The recorder ends after this time without estimates and frames.
IDLE_S = 6


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The player and, where a folder is given, the recorder; the one that ends last ends everything."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def process(command: list[str], on_exit: str = "") -> Node:
        return Node(
            package="dwarf_ros",
            executable="dwarf",
            namespace=argument("namespace"),
            arguments=command,
            output="screen",
            on_exit=[Shutdown(reason=on_exit)] if on_exit else None,
        )

    rate, record = argument("rate"), argument("record")
    play = ["play", argument("source"), "--wait", str(WAIT_S)]
    if rate:
        play += ["--rate", rate]
    if argument("loop") == "true":
        play.append("--loop")
    if not record:
        return [process(play, on_exit="the recording has been played")]
    folder = Path(record).expanduser().resolve()
    prepare_run(folder)
    idle_s = max(IDLE_S, 3 / float(rate)) if rate else IDLE_S
    recorder = ["record", str(folder / RECORDING), "--idle-timeout", str(idle_s)]
    return [
        process(
            [*recorder, "--reference", argument("reference")], on_exit="the recorder has ended"
        ),
        process([*play, "--log", str(folder / PLAYER_LOG)]),
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments in addition to those of dwarf.launch.py, which also sets the Fast DDS profile, and the processes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "source", description="Bag, or folder of stereo images, to play."
            ),
            DeclareLaunchArgument(
                "rate",
                default_value="",
                description="Frames per second of wall time. Empty: as recorded.",
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
                description="Folder to record the estimates to, replacing an earlier run. Empty: none.",
            ),
            DeclareLaunchArgument(
                "reference",
                default_value="previous",
                choices=["previous", "current"],
                description="Reference frame of the estimate; `dwarf bag evaluate` expects previous.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(HERE / "dwarf.launch.py")),
                launch_arguments={"reference": LaunchConfiguration("reference")}.items(),
            ),
            OpaqueFunction(function=start),
        ]
    )
