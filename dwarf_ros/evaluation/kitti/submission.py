"""What the KITTI 2015 scene-flow benchmark takes: three folders of 16-bit PNG for its 200 test images, in one zip file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dwarf_ros.files import partial_file, refusing_unwritable
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.recordings.result_folder import read_map
from dwarf_ros.types import InputError

IMAGES = tuple(f"{number:06d}_10.png" for number in range(200))

# Zip files carry a time for each entry; the same results make the same file.
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


def check_submission(
    folder: Path,
    images: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Check results against the rules of the KITTI 2015 scene-flow benchmark.

    disp_0, disp_1 and flow hold one PNG for each image and no other: 16-bit grey for disparities, 16-bit RGB for optical
    flow, readable to the end, and of one size for an image. Hidden files, and what else lies in the folder, are not looked
    at, and not packed.

    Args:
        folder: with disp_0, disp_1 and flow in it.
        images: file names of the images; None: the benchmark's 200, 000000_10.png to 000199_10.png.
        progress: called after each file with the number of files checked and in all.

    Returns:
        the files of a submission, relative to the folder, in order.

    Raises:
        InputError: a rule is broken; the message names the file. That images are missing is said last, when all that is
            there was found to be right.
    """
    folder = Path(folder)
    expected = IMAGES if images is None else tuple(sorted(images))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with {', '.join(RESULT_FOLDERS)}")
    present = {name: _names(folder / name) for name in RESULT_FOLDERS}
    for subfolder, names in present.items():
        for name in sorted(names - set(expected)):
            raise InputError(
                f"{folder / subfolder / name}: is no file of a submission, expected only {_described(expected)}"
            )
    files = [Path(s, name) for name in expected for s in RESULT_FOLDERS if name in present[s]]
    sizes: dict[str, tuple[Path, tuple[int, int]]] = {}
    for done, file in enumerate(files, start=1):
        path = folder / file
        size = read_map(path).shape[:2]
        first, first_size = sizes.setdefault(file.name, (path, size))
        if size != first_size:
            raise InputError(
                f"{path}: is {size[1]} x {size[0]} px, expected {first_size[1]} x {first_size[0]} px as in {first}"
            )
        if progress is not None:
            progress(done, len(files))
    for name in expected:
        for subfolder in RESULT_FOLDERS:
            if name not in present[subfolder]:
                raise InputError(
                    f"{folder / subfolder / name}: missing, expected {_described(expected)} in {', '.join(RESULT_FOLDERS)}; "
                    f"the {len(files)} files that are there are right, {len(RESULT_FOLDERS) * len(expected)} are needed"
                )
    return files


def write_submission(
    folder: Path,
    zip_file: Path,
    images: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Check results as `check_submission` does and pack them into a zip file, as the benchmark wants it uploaded.

    The file is written beside its place and then renamed; the same results make the same file.

    Args:
        folder: as for `check_submission`.
        zip_file: the file to write.
        images: as for `check_submission`.
        progress: the same.

    Returns:
        number of files packed.

    Raises:
        InputError: as `check_submission`, or the zip file cannot be written; then there is none, or the one before.
    """
    folder, zip_file = Path(folder), Path(zip_file)
    if not zip_file.parent.is_dir():
        raise InputError(f"{zip_file}: no such folder {zip_file.parent}, expected one to write to")
    files = check_submission(folder, images, progress)
    with (
        refusing_unwritable(zip_file),
        partial_file(zip_file) as partial,
        # Stored, not deflated: PNG are packed already.
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
    ):
        for file in files:
            entry = zipfile.ZipInfo(file.as_posix(), _TIME)
            entry.external_attr = _MODE
            archive.writestr(entry, (folder / file).read_bytes())
    return len(files)


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected {', '.join(RESULT_FOLDERS)}")
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def _described(images: tuple[str, ...]) -> str:
    if len(images) == 1:
        return images[0]
    return f"{images[0]} to {images[-1]} ({len(images)} images)" if images else "no image"
