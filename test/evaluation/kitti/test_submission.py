import shutil
import zipfile

import numpy as np
import pytest

from dwarf_ros.evaluation.kitti.submission import (
    IMAGES,
    check_submission,
    write_submission,
)
from dwarf_ros.formats import write_disparity_png, write_flow_png, write_image
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS as FOLDERS
from dwarf_ros.types import InputError

TWO = ("000003_10.png", "000007_10.png")


def write_map(file, shape=(4, 6)):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.parent.name == "flow":
        write_flow_png(file, np.full((*shape, 2), 1.5, np.float32))
    else:
        write_disparity_png(file, np.full(shape, 7, np.float32))


@pytest.fixture
def results(tmp_path):
    for folder in FOLDERS:
        for name in TWO:
            write_map(tmp_path / "results" / folder / name)
    return tmp_path / "results"


def refusal(action, *arguments):
    with pytest.raises(InputError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_benchmark_has_two_hundred_images():
    assert (len(IMAGES), IMAGES[0], IMAGES[-1]) == (200, "000000_10.png", "000199_10.png")


def test_a_whole_submission_is_packed_as_the_benchmark_wants_it(tmp_path):
    for folder in FOLDERS:
        write_map(tmp_path / folder / IMAGES[0], shape=(2, 3))
        for name in IMAGES[1:]:
            shutil.copy(tmp_path / folder / IMAGES[0], tmp_path / folder / name)
    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "000000_10.png", np.zeros((2, 3, 3), np.uint8))
    (tmp_path / "flow" / ".half.part").write_bytes(b"")
    zip_file = tmp_path / "submission.zip"
    counted = []
    assert write_submission(tmp_path, zip_file, progress=lambda *n: counted.append(n)) == 600
    assert counted[-1] == (600, 600)
    with zipfile.ZipFile(zip_file) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"{f}/{n}" for f in FOLDERS for n in IMAGES)
        flow = (tmp_path / "flow" / IMAGES[5]).read_bytes()
        assert archive.read(f"flow/{IMAGES[5]}") == flow


def test_the_same_results_make_the_same_file(results, tmp_path):
    files = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for file in files:
        assert write_submission(results, file, TWO) == 6
    assert files[0].read_bytes() == files[1].read_bytes()


def test_real_results_of_one_image_pass(real_data):
    folder = real_data("kitti_submission")
    (name,) = [path.name for path in (folder / "flow").iterdir()]
    assert [str(f) for f in check_submission(folder, [name])] == [f"{f}/{name}" for f in FOLDERS]
    message = refusal(check_submission, folder)
    assert message.startswith(f"{folder}/disp_0/000000_10.png: missing")
    assert "the 3 files that are there are right, 600 are needed" in message


def damage_size(file):
    write_map(file, shape=(5, 6))
    return "is 6 x 5 px, expected 6 x 4 px"


def damage_depth(file):
    write_image(file, np.full((4, 6), 9, np.uint8))
    return "found 8-bit gray PNG, expected a 16-bit"


def damage_kind(file):
    other = "disp_0" if file.parent.name == "flow" else "flow"
    shutil.copy(file.parents[1] / other / file.name, file)
    return "found 16-bit gray PNG" if file.parent.name == "flow" else "found 16-bit RGB PNG"


def damage_end(file):
    file.write_bytes(file.read_bytes()[:-9])
    return "cut short"


def damage_presence(file):
    file.unlink()
    return "missing"


@pytest.mark.parametrize(
    "damage", [damage_size, damage_depth, damage_kind, damage_end, damage_presence]
)
@pytest.mark.parametrize("folder", ["disp_1", "flow"])
def test_what_breaks_a_rule_is_named_and_nothing_is_written(results, tmp_path, folder, damage):
    file = results / folder / TWO[1]
    expected = damage(file)
    zip_file = tmp_path / "submission.zip"
    zip_file.write_bytes(b"an earlier one")
    message = refusal(write_submission, results, zip_file, TWO)
    assert message.startswith(f"{file}: ")
    assert expected in message
    assert zip_file.read_bytes() == b"an earlier one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results", "submission.zip"]


def test_files_that_the_benchmark_does_not_ask_for_are_refused(results):
    write_map(results / "disp_0" / "000003_11.png")
    message = refusal(check_submission, results)
    assert message.startswith(f"{results}/disp_0/000003_11.png: is no file of a submission")
    assert "000000_10.png to 000199_10.png (200 images)" in message


def test_folders_that_are_not_there_are_named(results, tmp_path):
    assert refusal(check_submission, tmp_path / "none").startswith(f"{tmp_path}/none: no such")
    shutil.rmtree(results / "disp_1")
    assert refusal(check_submission, results).startswith(f"{results}/disp_1: no such folder")
    zip_file = tmp_path / "none" / "a.zip"
    assert refusal(write_submission, results, zip_file).startswith(f"{zip_file}: no such folder")
