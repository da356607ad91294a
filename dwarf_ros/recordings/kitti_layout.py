"""Names of KITTI's folders of scene flow: results, and the ground truth of 2012 and 2015."""

from __future__ import annotations

import re
from pathlib import Path

DISPARITY, DISPARITY_NEXT, FLOW = RESULT_FOLDERS = ("disp_0", "disp_1", "flow")
"""Folders of results, by what they hold; one PNG for each reference frame, of the same name in all three."""

LARGEST_DISPARITY, LARGEST_FLOW = 255.99, 511.9
"""Largest values of the files, px; of flow, of each component."""

REGIONS = ("occ", "noc")
"""Pixels with ground truth: all of them, and those that the other image shows as well."""

TRUTH_FOLDERS: dict[str, tuple[str, ...]] = {
    "disparity": ("disp_{}_0", "disp_{}"),
    "disparity_next": ("disp_{}_1",),
    "flow": ("flow_{}",),
}
"""Folders of ground truth for a region, 2015's name before 2012's."""

OBJECT_FOLDER = "obj_map"

SCENE_NAME = re.compile(r"(\d{6})_(\d{2}|[1-9]\d{2,5})")
"""Name of a frame of a scene without its suffix: number of the scene, number of the frame."""


def find_truth_folders(folder: Path) -> dict[str, dict[str, Path]]:
    """The folders of ground truth that there are, by map (as in `TRUTH_FOLDERS`) and region; maps without any are left out."""
    found: dict[str, dict[str, Path]] = {}
    for kind, layouts in TRUTH_FOLDERS.items():
        for region in REGIONS:
            paths = (folder / layout.format(region) for layout in layouts)
            if (path := next((p for p in paths if p.is_dir()), None)) is not None:
                found.setdefault(kind, {})[region] = path
    return found
