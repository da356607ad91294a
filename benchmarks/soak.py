"""What a robot's owner needs to hold, for as long as asked: python benchmarks/soak.py [--minutes 10].

First the pairing of a looped, lossy stream, then random mutations of messages through the decoding functions, then the live
node with `classical`, fed with more than it can process. Exit code 0 if every bar is held, else 1.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwarf_ros.recordings import camera_messages
from dwarf_ros.ros import distro
from dwarf_ros.ros.synchronizer import Synchronizer
from dwarf_ros.types import InputError, StereoCamera

CAMERA = StereoCamera(721.5, 721.5, 609.6, 172.9, 609.6, 0.54, 1242, 375)
PERIOD_NS = 33_333_333
DISPARITY, FLOW = 20, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the live run (default: 10)")
    parser.add_argument("--streams", type=int, default=200, help="looped streams (default: 200)")
    parser.add_argument("--mutations", type=int, default=10_000, help="default: 10000")
    options = parser.parse_args()
    held = pairing(options.streams)
    held &= decoding(options.mutations)
    held &= running(options.minutes * 60)
    return 0 if held else 1


# Pairing


@dataclass
class Matches:
    """What came of a stream, by loop: pairs matched, pairs of which both images arrived; and pairs of two frames."""

    matched: list[int]
    whole: list[int]
    wrong: int


def looped_stream(
    seed: int,
    stamp_offset_ns: int = 0,
    frames: int = 120,
    loops: int = 3,
    loss: float = 0.05,
    duplicates: float = 0.01,
) -> Matches:
    """Pair a bag that is played again and again, with losses, duplicates, and a right camera that comes up to half a frame late.

    Each right image's delay is its own; with stamp_offset_ns its stamp too is later than the left image's.
    """
    rng = random.Random(seed)
    arrivals = []
    for loop in range(loops):
        for frame in range(frames):
            start = (loop * frames + frame) * PERIOD_NS
            for side in ("left", "right"):
                if rng.random() < loss:
                    continue
                delay = rng.randrange(PERIOD_NS // 2) if side == "right" else 0
                for _ in range(1 + (rng.random() < duplicates)):
                    arrivals.append((start + delay, side, loop, frame))
    arrivals.sort(key=lambda arrival: arrival[0])
    synchronizer: Synchronizer[tuple[int, int]] = Synchronizer(
        camera=CAMERA, tolerance_s=max(0.01, stamp_offset_ns * 1e-9), max_frame_gap_s=1e9
    )
    matched: set[tuple[int, int]] = set()
    wrong = 0
    for _, side, loop, frame in arrivals:
        stamp = 10**18 + frame * PERIOD_NS
        if side == "left":
            pairs = synchronizer.add_left(stamp, (1242, 375), (loop, frame))
        else:
            pairs = synchronizer.add_right(stamp + stamp_offset_ns, (1242, 375), (loop, frame))
        if pairs is not None:
            both = (pairs.previous, pairs.current)
            wrong += sum(pair.left != pair.right for pair in both)
            matched |= {pair.left for pair in both}
    arrived = {side: {(n, f) for _, s, n, f in arrivals if s == side} for side in ("left", "right")}
    whole = arrived["left"] & arrived["right"]
    return Matches(
        [sum(n == loop for n, _ in matched) for loop in range(loops)],
        [sum(n == loop for n, _ in whole) for loop in range(loops)],
        wrong,
    )


def pairing(streams: int) -> bool:
    worst, wrong = 1.0, 0
    for seed in range(streams):
        # Up to just under half the time between two frames, beyond which the nearest is another frame.
        result = looped_stream(seed, seed % 16 * 1_000_000)
        wrong += result.wrong
        shares = [m / w for m, w in zip(result.matched, result.whole, strict=True)]
        worst = min(worst, *shares)
    return said(
        f"pairing: {streams} streams of 3 x 120 frames: at least {100 * worst:.1f} % of the pairs in every loop, "
        f"{wrong} wrong",
        "95 %, none wrong",
        worst >= 0.95 and wrong == 0,
    )


# Decoding


def decoding(count: int, seed: int = 0) -> bool:
    rng = random.Random(seed)
    outcomes = {"answers": 0, "errors": 0}
    surprises: list[str] = []
    # OpenCV's libraries complain on their own about damaged pictures.
    with without_stderr():
        for _ in range(count):
            what, decode = mutated_message(rng)
            try:
                decode()
                outcomes["answers"] += 1
            except InputError as error:
                outcomes["errors"] += 1
                if "\n" in str(error) or len(str(error)) > 1000:
                    surprises.append(f"{what}: an error of {len(str(error))} characters")
            except Exception as error:  # exactly what must not be
                surprises.append(f"{what}: {type(error).__name__}: {error}")
    for line in surprises[:10]:
        print(f"  {line}")
    return said(
        f"decoding: {count} mutations: {outcomes['answers']} answers, {outcomes['errors']} errors of the one type, "
        f"{len(surprises)} others",
        "no others",
        not surprises,
    )


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def mutated_message(rng: random.Random) -> tuple[str, Callable[[], Any]]:
    """A valid message with one to four random changes, and the function that decodes it."""
    from dwarf_ros.ros import messages

    kind = rng.choice(["image", "camera", "compressed"])
    changes = rng.randint(1, 4)
    if kind == "image":
        encoding = rng.choice(camera_messages.IMAGE_ENCODINGS)
        channels = 3 if encoding in ("rgb8", "bgr8", "8UC3") else 4 if "a8" in encoding else 1
        deep = encoding in ("mono16", "16UC1") or encoding.endswith("16")
        pixels = np.zeros((6, 8, channels), np.uint16 if deep else np.uint8)
        message = messages.image_message(pixels.squeeze(), 10**18, "camera", encoding)
        for _ in range(changes):
            mutate_image(rng, message)
        return f"image {message.encoding[:20]!r}", lambda: camera_messages.image_from_message(
            message
        )
    if kind == "camera":
        infos = messages.camera_info_messages(CAMERA, 10**18, "camera")
        for _ in range(changes):
            mutate_camera_info(rng, rng.choice(infos))
        return "camera", lambda: camera_messages.camera_from_messages(*infos)
    from sensor_msgs.msg import CompressedImage

    picture = np.full((24, 32, 3), 80, np.uint8)
    file = bytearray(cv2.imencode(rng.choice([".jpg", ".png"]), picture)[1].tobytes())
    for _ in range(changes):
        mutate_bytes(rng, file)
    compressed = CompressedImage(format=rng.choice(["bgr8; jpeg compressed", "png", "", "bayer_x"]))
    compressed.data = array.array("B", bytes(file))
    return "compressed", lambda: camera_messages.image_from_compressed(compressed)


def any_size(rng: random.Random) -> int:
    return rng.choice([0, 1, rng.randrange(20), rng.randrange(2**16), 2**31, 2**32 - 1])


def mutate_image(rng: random.Random, message: Any) -> None:
    name = rng.choice(["height", "width", "step", "encoding", "is_bigendian", "data", "stamp"])
    if name in ("height", "width", "step"):
        setattr(message, name, any_size(rng))
    elif name == "encoding":
        from dwarf_ros.recordings.camera_messages import IMAGE_ENCODINGS

        text = "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(200)))
        message.encoding = rng.choice([*IMAGE_ENCODINGS, "32FC1", "8UC2", "", text])
    elif name == "is_bigendian":
        message.is_bigendian = rng.randrange(256)
    elif name == "data":
        data = bytearray(message.data.tobytes())
        mutate_bytes(rng, data)
        message.data = array.array("B", bytes(data))
    else:
        message.header.stamp.sec = rng.randrange(-(2**31), 2**31)


def mutate_bytes(rng: random.Random, data: bytearray) -> None:
    how = rng.choice(["flip", "cut", "add", "none"])
    if how == "flip" and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif how == "cut":
        del data[rng.randrange(len(data) + 1) :]
    elif how == "add":
        place = rng.randrange(len(data) + 1)
        data[place:place] = rng.randbytes(rng.randrange(1, 40))


def mutate_camera_info(rng: random.Random, info: Any) -> None:
    numbers = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, rng.uniform(-1e4, 1e4)]
    name = rng.choice(["p", "width", "height", "binning_x", "binning_y", "roi"])
    if name == "p":
        info.p[rng.randrange(12)] = rng.choice(numbers)
    elif name == "roi":
        setattr(info.roi, rng.choice(["x_offset", "y_offset", "width", "height"]), any_size(rng))
    else:
        setattr(info, name, any_size(rng))


# Running


@dataclass
class Run:
    """What was seen of a live run."""

    published: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    code: int | None = None
    exit_s: float = math.nan


def live_run(seconds: float, camera: StereoCamera = CAMERA, rate_hz: float = 30.0) -> Run:
    """Feed the node, a process of its own, at that rate and listen to everything it publishes."""
    distro.prepare_environment()
    run = Run()
    environment = {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 101),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **os.environ,
    }
    os.environ.update(environment)
    command = [sys.executable, "-u", "-m", "dwarf_ros.ros.node"]
    with tempfile.TemporaryFile("w+") as log:
        node = subprocess.Popen(
            [*command, "--ros-args", "-p", "estimator:=classical"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _feed(run, node, seconds, camera, rate_hz)
            start = time.monotonic()
            node.send_signal(signal.SIGINT)
            run.code = node.wait(timeout=20)
            run.exit_s = time.monotonic() - start
        finally:
            node.kill()
            node.wait()
        log.seek(0)
        run.errors += [line.strip() for line in log if "[ERROR]" in line or "Traceback" in line]
    return run


def _feed(
    run: Run, node: subprocess.Popen[bytes], seconds: float, camera: StereoCamera, rate_hz: float
) -> None:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data

    from dwarf_ros.ros.inputs import INPUT_TOPICS
    from dwarf_ros.ros.messages import own_message_type, stamp_from_ns
    from dwarf_ros.ros.outputs import LATENCY_TOPIC, OUTPUTS

    context = rclpy.Context()
    rclpy.init(context=context)
    rig = rclpy.create_node("soak", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(rig)
    publishers = {
        topic: rig.create_publisher(kind, topic, qos_profile_sensor_data)
        for topic, kind in INPUT_TOPICS.items()
    }

    def hear(message: Any) -> None:
        status = message.status[0]
        run.values = {value.key: value.value for value in status.values}
        if status.level == status.ERROR:
            run.errors.append(status.message)

    for topic, output in OUTPUTS.items():
        kind = output.message_type
        if isinstance(kind, str):
            kind = own_message_type(kind)
        callback = {
            LATENCY_TOPIC: lambda message: run.latencies_ms.append(message.data),
            "moving_objects": lambda message: run.objects.append(len(message.objects)),
        }.get(topic, lambda message: None)
        rig.create_subscription(kind, topic, callback, 2)
    rig.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    try:
        wait_end = time.monotonic() + 60
        while not all(publisher.get_subscription_count() for publisher in publishers.values()):
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > wait_end or node.poll() is not None:
                raise SystemExit("the node did not subscribe within 60 s")
        frames = [frame_messages(number, camera) for number in range(24)]
        start, next_look = time.monotonic(), 0.0
        while (elapsed := time.monotonic() - start) < seconds and node.poll() is None:
            stamp = stamp_from_ns(10**18 + round(elapsed * 1e9))
            for topic, message in frames[run.published % len(frames)].items():
                message.header.stamp = stamp
                publishers[topic].publish(message)
            run.published += 1
            if elapsed >= next_look:
                next_look = elapsed + 1.0
                run.memory_mib.append((elapsed, memory_mib(node.pid)))
                run.threads.append(len(list(Path(f"/proc/{node.pid}/task").iterdir())))
            due = start + run.published / rate_hz
            while (left := due - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)
            # One that is late is fed later, but what the node says is still heard.
            executor.spin_once(timeout_sec=0)
        run.seconds = time.monotonic() - start
    finally:
        executor.shutdown()
        rig.destroy_node()
        context.try_shutdown()


def frame_messages(number: int, camera: StereoCamera) -> dict[str, Any]:
    """The four messages of a textured wall that moves to the right."""
    from dwarf_ros.ros.messages import camera_info_messages, image_message

    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (camera.height, camera.width + 200, 3), np.uint8)
    wall = cv2.GaussianBlur(noise, (0, 0), 1.5)
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    first = 120 - FLOW * number
    views = [
        np.ascontiguousarray(wall[:, first + shift : first + shift + camera.width])
        for shift in (0, DISPARITY)
    ]
    left, right = camera_info_messages(camera, 0, "camera")
    return {
        "left/camera_info": left,
        "right/camera_info": right,
        "left/image_rect": image_message(views[0], 0, "camera", "bgr8"),
        "right/image_rect": image_message(views[1], 0, "camera", "bgr8"),
    }


def memory_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def running(seconds: float, camera: StereoCamera = CAMERA) -> bool:
    run = live_run(seconds, camera)
    settled_s = min(60.0, run.seconds / 2)
    after = [mib for at_s, mib in run.memory_mib if at_s >= settled_s]
    tenth = max(1, len(after) // 10)
    growth = float(np.mean(after[-tenth:]) / np.mean(after[:tenth]) - 1)
    median, p95 = (float(np.percentile(run.latencies_ms or [math.nan], q)) for q in (50, 95))
    print(
        f"running: {run.seconds:.0f} s, {run.published / run.seconds:.1f} Hz published, "
        f"{len(run.latencies_ms) / run.seconds:.2f} Hz answered; load average {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores"
    )
    for name, value in run.values.items():
        print(f"  {name}: {value}")
    minutes = {int(at_s // 60): mib for at_s, mib in run.memory_mib}
    print(f"  memory by minute (MiB): {', '.join(f'{mib:.0f}' for mib in minutes.values())}")
    held = said(
        f"memory: {np.mean(after[:tenth]):.0f} MiB after {settled_s:.0f} s, {np.mean(after[-tenth:]):.0f} MiB at the end: "
        f"{100 * growth:+.1f} %",
        "under +5 %",
        growth < 0.05,
    )
    held &= said(
        f"latency of {len(run.latencies_ms)} answers: median {median:.0f} ms, p95 {p95:.0f} ms",
        "p95 under twice the median",
        p95 < 2 * median,
    )
    first, last = run.threads[len(run.threads) // 2], run.threads[-1]
    held &= said(
        f"threads: {first} half way, {last} at the end; errors told: {len(run.errors)}",
        "none fewer, no errors",
        last >= first and not run.errors,
    )
    half = len(run.objects) // 2
    earlier, later = (max(part, default=0) for part in (run.objects[:half], run.objects[half:]))
    held &= said(
        f"moving objects: at most {earlier} in the first half, {later} in the second",
        "at most 3 more",
        later <= earlier + 3,
    )
    for line in run.errors[:5]:
        print(f"  {line}")
    return held & said(
        f"SIGINT: code {run.code} after {run.exit_s:.2f} s",
        "0 within 2 s",
        run.code == 0 and run.exit_s < 2,
    )


def said(line: str, bar: str, held: bool) -> bool:
    print(f"{line}; bar {bar}: {'held' if held else 'NOT held'}", flush=True)
    return held


if __name__ == "__main__":
    sys.exit(main())
