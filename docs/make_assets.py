"""Generate the pictures and tables of these pages: `make docs-assets`.

python docs/make_assets.py [RECIPE] [--tables]; RECIPE is the recipe.json of benchmarks/training_recipe.py, whose curves are
drawn; --tables generates only the tables, which takes seconds. Two pictures are made by hand: demo.png with `make demo` (cp
out/demo/pictures/frame_000010.png docs/pictures/demo.png) and viewer.png, a screenshot of `dwarf view`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from network_drawing import network_drawing

from dwarf_ros.engines import PRECISIONS_OF
from dwarf_ros.estimators import choose_estimator
from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.report import write_chart
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    write_atomically,
)
from dwarf_ros.motion.refined import load_estimator
from dwarf_ros.network.presets import DWARF, DWARF_LITE, PRESETS, SIZE_MULTIPLE, Preset
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.synthetic.scenes import TrainingScenes
from dwarf_ros.viewing.motion import MotionHistory
from dwarf_ros.viewing.pictures import panel, picture_of
from dwarf_ros.viewing.results import Result
from dwarf_ros.visualization.colors import disparity_color, flow_color
from dwarf_ros.visualization.drawing import side_by_side, stacked, titled

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "pictures"
SEED, WIDTH, HEIGHT = 4, 640, 224
FRAME = 10
KITTI_SIZE = (384, 1280)


def main() -> int:
    """Generate everything, or only the tables."""
    arguments = sys.argv[1:]
    if "--tables" in arguments:
        write_tables()
        return 0
    PICTURES.mkdir(exist_ok=True)
    result = street()
    for kind in ("above", "depth", "key"):
        name = "flow_key" if kind == "key" else kind
        write_picture(f"{name}.png", picture_of(result, kind))
    write_picture("first_picture.jpg", panel(replace(result, truth=None), 1100))
    write_picture("moving.jpg", picture_of(result, "moving"))
    write_picture("errors.jpg", picture_of(result, "errors"))
    write_picture("rectification.jpg", rectification())
    write_picture("training_scenes.jpg", training_scenes())
    write_picture("proxy_labels.jpg", proxy_labels())
    for preset in (DWARF, DWARF_LITE):
        file = PICTURES / f"network_{preset.name}.svg"
        write_atomically(file, network_drawing(preset).encode())
    write_chart(PICTURES / "work.svg", work())
    write_chart(PICTURES / "consistency.svg", consistency())
    for recipe in arguments:
        write_chart(PICTURES / "training_recipe.svg", training_recipe(Path(recipe)))
    write_tables()
    return 0


def write_picture(name: str, rgb: np.ndarray) -> None:
    """Write a picture with strong compression."""
    options = (
        (cv2.IMWRITE_JPEG_QUALITY, 88)
        if name.endswith(".jpg")
        else (cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, 0)
    )
    data = cv2.imencode(Path(name).suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1]
    write_atomically(PICTURES / name, data.tobytes())


def street() -> Result:
    """Refined estimate of `classical` for two frames of a synthetic street, with ground truth and moving objects."""
    drive = ProceduralDrive(SEED, FRAME + 2, WIDTH, HEIGHT)
    previous, current = drive[FRAME], drive[FRAME + 1]
    truth = drive.ground_truth(FRAME, FRAME + 1)
    known = truth.scene_flow

    def maps(unknown: np.ndarray) -> Maps:
        gap = np.where(unknown, np.float32(np.nan), np.float32(0))
        flow = known.flow + gap[..., None]
        return Maps(known.disparity + gap, known.disparity_next + gap, flow)

    occluded = truth.disparity_occluded | truth.flow_occluded
    both = SampleTruth(occ=maps(~known.valid), noc=maps(~known.valid | occluded))
    scene_flow = load_estimator("classical").estimate(previous, current)
    result = Result("000010", scene_flow, previous.left, "classical on opencv", truth=both)
    return MotionHistory().add(result)


def rectification() -> np.ndarray:
    """Left and right images with lines across both: rectified, and with a rotated right camera."""
    drive = ProceduralDrive(SEED, 1, 400, 200)
    frame, camera = drive[0], drive.camera
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    turn = cv2.Rodrigues(np.radians([1.2, 0.0, 2.5]))[0]
    homography = matrix @ turn @ np.linalg.inv(matrix)
    size = (camera.width, camera.height)
    turned = cv2.warpPerspective(frame.right, homography, size, None, cv2.INTER_LINEAR)
    rows = []
    for right, verdict in ((frame.right, "rectified"), (turned, "not rectified")):
        pair = side_by_side([frame.left, right], 8)
        for row in range(25, camera.height, 30):
            cv2.line(pair, (0, row), (pair.shape[1], row), (255, 214, 10), 1)
        note = (
            "the same point is on the same line"
            if right is frame.right
            else "the same point is on different lines"
        )
        rows.append(titled(pair, f"Left and right image, {verdict}", note))
    return stacked(rows)


def training_scenes() -> np.ndarray:
    """Three training scenes: left image, disparity and optical flow."""
    scenes = TrainingScenes(seed=3, count=3, height=192, width=288, textures=24)
    rows = []
    for index in range(len(scenes)):
        sample = scenes[index]
        truth = sample.ground_truth.occ
        pictures = (sample.previous.left, disparity_color(truth.disparity), flow_color(truth.flow))
        names = ("Left image", "Disparity", "Optical flow")
        if index == 0:
            pictures = tuple(titled(*pair) for pair in zip(pictures, names, strict=True))
        rows.append(side_by_side(list(pictures), 8))
    return stacked(rows, 8)


def proxy_labels() -> np.ndarray:
    """A frame and its labels from `dwarf distill`."""
    from dwarf_ros.inference.distill import distill

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drive = ProceduralDrive(SEED, 2, 400, 176)
        write_drive(drive, folder / "drive")
        distill(folder / "drive", folder / "labels", choose_estimator("classical", refine="none"))
        labels = folder / "labels" / "training"
        disparity = read_disparity_png(labels / "disp_0" / "000000.png")
        flow = read_flow_png(labels / "flow" / "000000.png")
    kept = f"{100 * np.isfinite(disparity).mean():.0f} % kept"
    flow_kept = f"{100 * np.isfinite(flow[..., 0]).mean():.0f} % kept"
    return side_by_side(
        [
            titled(drive[0].left, "Left image"),
            titled(disparity_color(disparity), "Labels: disparity", kept),
            titled(flow_color(flow), "Labels: optical flow", flow_kept),
        ],
        8,
    )


def work() -> Chart:
    """Multiply-accumulate operations in the parts of both networks."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from dwarf_ros import network
    from dwarf_ros.evaluation.workload import workload_of

    parts = {
        name: workload_of(network.build(name, *KITTI_SIZE)).macs_of_parts
        for name in ("dwarf", "dwarf_lite")
    }
    groups = list(dict.fromkeys(part for macs in parts.values() for part in macs))
    series = [
        Series(
            f"{name}: {sum(macs.values()) / 1e9:.0f} GMAC",
            groups,
            [macs[group] / 1e9 if group in macs else None for group in groups],
        )
        for name, macs in parts.items()
    ]
    height, width = KITTI_SIZE
    title = f"Multiply-accumulate operations, {width} x {height} px"
    return Chart(title, "bar", "part of the network", "GMAC", series)


def consistency() -> Chart:
    """Result of `dwarf bag evaluate` for a recording without ground truth."""
    from dwarf_ros.evaluation.bag_report import evaluate_bag

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_drive(ProceduralDrive(SEED, 12, 320, 128), folder / "drive")
        evaluate_bag(folder / "drive", folder / "out", choose_estimator("classical"))
        with (folder / "out" / "frames.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    wanted = {
        "warped by flow": "photometric_left_next",
        "unwarped": "photometric_left_next_unwarped",
    }
    numbers = list(range(len(rows)))
    series = [
        Series(name, numbers, [float(row[column]) for row in rows])
        for name, column in wanted.items()
    ]
    return Chart(
        "Difference between consecutive left images",
        "line",
        "pair",
        "difference [gray levels]",
        series,
    )


def training_recipe(file: Path) -> Chart:
    """Curves of benchmarks/training_recipe.py."""
    curves = json.loads(file.read_text(encoding="utf-8"))
    series = [
        Series(name, [point["step"] for point in curve], [point["D1 outliers"] for point in curve])
        for name, curve in curves.items()
    ]
    return Chart("Short trainings, on held-out drives", "line", "steps", "D1 outliers [%]", series)


def engines() -> list[str]:
    """Precisions of each engine."""
    rows = [
        f"| `{name}` | {', '.join(f'`{p}`' for p in of)} |" for name, of in PRECISIONS_OF.items()
    ]
    return ["| engine | precisions |", "|---|---|", *rows]


def presets() -> list[str]:
    """Sizes of the networks that estimate coarse to fine."""
    names = [name for name, preset in PRESETS.items() if isinstance(preset, Preset)]
    rows = {
        "encoder levels": lambda p: f"{p.coarsest_level}",
        "encoder channels": lambda p: ", ".join(map(str, p.encoder_channels)),
        "convolutions per level": lambda p: ", ".join(map(str, p.encoder_convolutions)),
        "grid of the finest estimate": lambda p: f"{2**p.finest_level} px",
        "first estimate": lambda p: (
            "from matching all pixels" if p.matching else "from cost volumes"
        ),
        "trunk channels per level": lambda p: ", ".join(map(str, p.trunk_channels)),
        "head channels per level": lambda p: ", ".join(map(str, p.head_channels)),
        "dense connections": lambda p: "yes" if p.dense else "no",
        "upsampling": lambda p: "learned mixture" if p.convex_enlargement else "bilinear",
    }
    return [
        f"| | {' | '.join(f'`{name}`' for name in names)} |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {what} | {' | '.join(of(PRESETS[name]) for name in names)} |"
            for what, of in rows.items()
        ),
    ]


def exported() -> list[str]:
    """Inputs and outputs of an exported file."""
    height, width = KITTI_SIZE
    rows = [
        *(
            ("input", name, 3, "RGB, 0 to 1")
            for name in ("left_t0", "right_t0", "left_t1", "right_t1")
        ),
        ("output", "disparity", 1, "px, negative: x_right - x_left at t0"),
        ("output", "disparity_change", 1, "px, negative: disparity at t1 of the pixels of left_t0"),
        ("output", "forward_flow", 2, "px, u to the right, v down, from left_t0 to left_t1"),
    ]
    return [
        f"| | name | float32, `--size {height}x{width}` (multiples of {SIZE_MULTIPLE}) | content |",
        "|---|---|---|---|",
        *(
            f"| {way} | `{name}` | 1 x {height} x {width} x {c} | {what} |"
            for way, name, c, what in rows
        ),
    ]


def drops() -> list[str]:
    """Causes by which the node counts images and pairs without an estimate."""
    from dwarf_ros.ros import inputs, statistics, synchronizer

    texts = {
        f"not paired: {synchronizer.NO_PARTNER}": "the image of the other camera is missing or has a different stamp",
        f"not paired: {synchronizer.DUPLICATE}": "the image has the stamp of an earlier one",
        f"not paired: {synchronizer.TIME_JUMP}": "the stamps went back: a looped bag, or a clock that was set",
        f"not paired: {synchronizer.NO_CAMERA}": "`camera_info` is missing or cannot be used",
        f"not paired: {synchronizer.SIZE_MISMATCH}": "left image, right image and calibration differ in size",
        f"not paired: {synchronizer.GAP}": "more than `max_frame_gap_s` since the previous frame",
        f"not paired: {synchronizer.RESTART}": "the image size or the calibration changed",
        f"not paired: {inputs.UNREADABLE}": "a compressed image is damaged, or neither JPEG nor PNG",
        f"dropped: {statistics.BUSY}": "the estimator was still busy: it is slower than the camera",
        f"dropped: {statistics.SKIPPED}": "skipped because of `process_every_n`",
        f"dropped: {statistics.NO_SUBSCRIBER}": "no output has a subscriber",
        f"dropped: {statistics.WARMING_UP}": "the network is being compiled for this image size",
        f"dropped: {statistics.STOPPED}": "the node was deactivated",
        f"dropped: {statistics.FAILED}": "an error, see `last error`",
    }
    return [
        "| key on `/diagnostics` | counts |",
        "|---|---|",
        *(f"| `{key}` | {text} |" for key, text in texts.items()),
    ]


def recipe() -> list[str]:
    """Curves of short trainings, if they have been drawn."""
    if not (PICTURES / "training_recipe.svg").is_file():
        return []
    return [
        "These curves show what each part of the training recipe contributes, in short trainings validated on the same held-out "
        "drives. Flow takes longer to learn; `model/README.md` has the progress of the complete training.",
        "",
        "![Curves of short trainings](pictures/training_recipe.svg)",
    ]


TABLES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "engines": ("deploying.md", engines),
    "recipe": ("training.md", recipe),
    "presets": ("network.md", presets),
    "exported": ("exporting.md", exported),
    "drops": ("diagnostics.md", drops),
}
"""Name of a table -> its page and the function that generates its lines."""


def with_table(page: str, name: str, lines: list[str]) -> str:
    """A page with the table between its two markers replaced."""
    begin, end = f"<!-- table {name}: made by docs/make_assets.py -->", "<!-- end of table -->"
    before, _, rest = page.partition(begin)
    if not rest:
        raise ValueError(f"no marker {begin}")
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}"


def write_tables() -> None:
    """Write the tables into their pages, and the page of the parameters."""
    from dwarf_ros.ros.parameters import parameter_table

    write_atomically(HERE / "parameters.md", parameter_table().encode())
    for name, (page, lines) in TABLES.items():
        file = HERE / page
        text = with_table(file.read_text(encoding="utf-8"), name, lines())
        write_atomically(file, text.encode())


if __name__ == "__main__":
    sys.exit(main())
