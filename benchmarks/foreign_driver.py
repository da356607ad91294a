"""Pairs that the node accepts of a camera driver without code or settings of this package: python benchmarks/foreign_driver.py.

The driver is a plain rclpy process that publishes two 1242 x 375 px bgr8 images and their camera_info at 10 Hz, best effort
or reliable, with and without the Fast DDS profile of config/fastdds.xml. The node runs with its defaults and with
`reliable:=true`. The bar is 99 % of the possible pairs for each setting that docs/camera.md recommends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTH, HEIGHT = 1242, 375
RATE_HZ = 10.0
BAR_PERCENT = 99.0
PROFILE = Path(__file__).resolve().parents[1] / "config" / "fastdds.xml"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Reliability of the driver, whether it uses the profile, the node's parameter `reliable`, whether docs/camera.md recommends it.
SETTINGS = (
    ("best_effort", False, False, False),
    ("best_effort", True, False, True),
    ("reliable", False, False, False),
    ("reliable", True, False, True),
    ("reliable", False, True, False),
    ("reliable", True, True, True),
)


def drive(reliability: str, frames: int) -> int:
    """The driver: waits for the node, publishes, and ends."""
    import array

    import numpy as np
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image

    rclpy.init()
    node = rclpy.create_node("driver")
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability.upper()])
    publishers = {
        (side, name): node.create_publisher(kind, f"{side}/{name}", qos)
        for side in ("left", "right")
        for name, kind in (("camera_info", CameraInfo), ("image_rect", Image))
    }
    pixels = np.random.default_rng(0).integers(0, 256, WIDTH * HEIGHT * 3, np.uint8).tobytes()
    image = Image(width=WIDTH, height=HEIGHT, encoding="bgr8", step=3 * WIDTH)
    image.data = array.array("B", pixels)
    infos = {}
    for side, offset in (("left", 0.0), ("right", -389.6)):
        info = CameraInfo(width=WIDTH, height=HEIGHT)
        info.p = [721.5, 0.0, 609.6, offset, 0.0, 721.5, 172.9, 0.0, 0.0, 0.0, 1.0, 0.0]
        infos[side] = info
    while not all(publisher.get_subscription_count() for publisher in publishers.values()):
        time.sleep(0.05)
    time.sleep(2.0)
    start_s = time.monotonic()
    for number in range(frames):
        stamp = node.get_clock().now().to_msg()
        for (side, name), publisher in publishers.items():
            message = image if name == "image_rect" else infos[side]
            message.header.stamp = stamp
            publisher.publish(message)
        time.sleep(max(0.0, start_s + (number + 1) / RATE_HZ - time.monotonic()))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def accepted_pairs(reliability: str, profile: bool, reliable: bool, frames: int) -> int:
    """Pairs that the node accepts of a driver's frames."""
    from dwarf_ros.live.lifecycle import NodeClient

    environment = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    profiles = dict.fromkeys(PROFILE_VARIABLES, str(PROFILE)) if profile else {}
    parameters = ["-p", "estimator:=classical", "-p", f"reliable:={str(reliable).lower()}"]
    command = [sys.executable, "-m", "dwarf_ros.ros.node", "--ros-args", *parameters]
    with tempfile.TemporaryFile() as log:
        node = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            with NodeClient() as client:
                while not client.is_active():
                    if node.poll() is not None:
                        raise SystemExit("the node ended")
                driver = [sys.executable, __file__, "--drive", reliability, "--frames", str(frames)]
                subprocess.run(driver, env={**environment, **profiles}, check=True)
                end_s = time.monotonic() + 2.0
                while time.monotonic() < end_s:
                    client.state()
                return int(client.status["accepted"])
        finally:
            node.terminate()
            node.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100, help="frames of each run")
    parser.add_argument("--drive", choices=("best_effort", "reliable"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        return drive(arguments.drive, arguments.frames)
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    held = True
    possible = arguments.frames - 1
    print(f"{WIDTH} x {HEIGHT} px bgr8, {RATE_HZ:g} Hz, {possible} possible pairs")
    print(f"load average: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("driver       profile  reliable  accepted pairs")
    for reliability, profile, reliable, recommended in SETTINGS:
        accepted = accepted_pairs(reliability, profile, reliable, arguments.frames)
        percent = 100 * accepted / possible
        verdict = ""
        if recommended:
            verdict = f", bar {BAR_PERCENT:g} %: {'held' if percent >= BAR_PERCENT else 'NOT held'}"
            held &= percent >= BAR_PERCENT
        print(
            f"{reliability:12s} {profile!s:8s} {reliable!s:9s} {accepted} ({percent:.0f} %){verdict}",
            flush=True,
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
