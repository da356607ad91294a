"""Create small data for the examples on these pages: `python docs/example_data.py`.

Creates in the current folder drive/ (a stereo sequence of a street with calibration, times and poses), my_camera/ (the same
images with the files of a camera driver and its calibration: left/, right/, left.yaml, right.yaml) and kitti2015/ (two scenes
with exact ground truth in the layout of that data set).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import yaml

from dwarf_ros.formats import write_disparity_png, write_flow_png, write_image
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import StereoCamera

FRAMES, WIDTH, HEIGHT = 5, 320, 128
SCENES = 2


def main() -> int:
    """Write the three folders."""
    here = Path.cwd()
    drive = ProceduralDrive(seed=4, frames=FRAMES, width=WIDTH, height=HEIGHT)
    write_drive(drive, here / "drive")
    write_camera_folder(here / "drive", drive.camera, here / "my_camera")
    for number in range(SCENES):
        write_scene(here / "kitti2015" / "training", number, drive)
    print("created drive/, my_camera/ and kitti2015/")
    return 0


def write_camera_folder(drive: Path, camera: StereoCamera, folder: Path) -> None:
    """Write a drive as left/ and right/ with the camera_info YAML files that camera_calibration writes."""
    for side, images in (("left", "image_l"), ("right", "image_r")):
        shutil.copytree(drive / images, folder / side, dirs_exist_ok=True)
        shift = -camera.fx * camera.baseline if side == "right" else 0.0
        cx = camera.cx_right if side == "right" else camera.cx
        intrinsic = [camera.fx, 0, cx, 0, camera.fy, camera.cy, 0, 0, 1]
        matrices = {
            "camera_matrix": (3, 3, intrinsic),
            "distortion_coefficients": (1, 5, [0.0] * 5),
            "rectification_matrix": (3, 3, np.eye(3).ravel().tolist()),
            "projection_matrix": (
                *(3, 4, [camera.fx, 0, cx, shift, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0]),
            ),
        }
        content = {
            "image_width": camera.width,
            "image_height": camera.height,
            "camera_name": side,
            "distortion_model": "plumb_bob",
            **{
                name: {"rows": rows, "cols": cols, "data": [float(value) for value in data]}
                for name, (rows, cols, data) in matrices.items()
            },
        }
        (folder / f"{side}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copyfile(drive / "times.txt", folder / "times.txt")


def write_scene(training: Path, number: int, drive: ProceduralDrive) -> None:
    """Write one scene of a KITTI 2015 training folder: two frames, their calibration, and ground truth of the first."""
    first = 2 * number
    truth, camera = drive.ground_truth(first, first + 1), drive.camera
    flow = truth.scene_flow
    name = f"{number:06d}_10.png"
    folders = ("image_2", "image_3", "obj_map", "calib_cam_to_cam")
    maps = [f"{kind}_{region}" for kind in ("disp", "flow") for region in ("occ", "noc")]
    maps = [f"{m}_{time}" for m in maps[:2] for time in (0, 1)] + maps[2:]
    for folder in (*folders, *maps):
        (training / folder).mkdir(parents=True, exist_ok=True)
    for frame, suffix in zip((drive[first], drive[first + 1]), ("10", "11"), strict=True):
        write_image(training / "image_2" / f"{number:06d}_{suffix}.png", frame.left)
        write_image(training / "image_3" / f"{number:06d}_{suffix}.png", frame.right)
    unknown = {"occ": ~flow.valid, "noc": ~flow.valid | truth.flow_occluded}
    unknown["noc"] |= truth.disparity_occluded
    for region, hole in unknown.items():
        gap = np.where(hole, np.float32(np.nan), np.float32(0))
        write_disparity_png(training / f"disp_{region}_0" / name, flow.disparity + gap)
        write_disparity_png(training / f"disp_{region}_1" / name, flow.disparity_next + gap)
        write_flow_png(training / f"flow_{region}" / name, flow.flow + gap[..., None])
    write_image(training / "obj_map" / name, (flow.valid & ~truth.static).astype(np.uint8))
    rows = []
    for side, shift in (("02", 0.0), ("03", -camera.fx * camera.baseline)):
        matrix = (*(camera.fx, 0, camera.cx, shift), *(0, camera.fy, camera.cy, 0), *(0, 0, 1, 0))
        rows.append(f"P_rect_{side}: " + " ".join(f"{value:.12e}" for value in matrix))
    calibration = training / "calib_cam_to_cam" / f"{number:06d}.txt"
    calibration.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    sys.exit(main())
