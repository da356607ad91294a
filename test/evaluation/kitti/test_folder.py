import json
import shutil

import numpy as np
import pytest

from dwarf_ros.evaluation.kitti.folder import evaluate_folder, read_maps
from dwarf_ros.evaluation.kitti.rules import fill_flow
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    read_image,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.types import InputError

NAN = np.float32(np.nan)
COLUMNS = ("bg", "bg_est", "fg", "fg_est", "all", "all_est")


# --- the development kit's verdict -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdict(real_data):
    """What the development kit says: per cent and raw pixel counts, by measure_region."""
    lines = (real_data("devkit_small") / "expected.txt").read_text().splitlines()
    (split,) = [i for i, line in enumerate(lines) if line.startswith("raw counts")]
    rows = {
        part: {line.split()[0]: line.split()[1:] for line in chosen if "_" in line.split()[0]}
        for part, chosen in (("per cent", lines[2:split]), ("counts", lines[split + 1 :]))
    }
    assert [len(part) for part in rows.values()] == [8, 8]
    return rows


@pytest.fixture(scope="module")
def small_evaluation(real_data):
    folder = real_data("devkit_small")
    return evaluate_folder(folder / "res", folder / "gt", workers="2")


def test_every_raw_pixel_count_is_the_development_kit_s(verdict, small_evaluation):
    counted = {}
    for measure, regions in small_evaluation.pooled.items():
        for region, counts in regions.items():
            pairs = [getattr(counts, column) for column in COLUMNS]
            counted[f"{measure}_{region}"] = [str(number) for pair in pairs for number in pair]
    assert counted == verdict["counts"]


def test_every_percentage_is_the_development_kit_s(verdict, small_evaluation):
    printed = {
        f"{measure}_{region}": [f"{row[column]:.4f}" for column in (*COLUMNS, "density")]
        for measure, regions in small_evaluation.to_dict().items()
        for region, row in regions.items()
    }
    assert printed == verdict["per cent"]


def test_this_process_counts_as_two_others_do(real_data, small_evaluation):
    folder = real_data("devkit_small")
    steps = []
    alone = evaluate_folder(
        folder / "res", folder / "gt", progress=lambda *step: steps.append(step)
    )
    assert alone == small_evaluation
    assert steps == [(done, 6) for done in range(1, 7)]
    assert list(alone.images) == [f"00000{number}_10.png" for number in range(6)]


def test_kitti_2012_s_folders_are_scored_without_objects_and_without_scene_flow(
    real_data, tmp_path
):
    truth = real_data("kitti2012") / "training"
    shutil.copytree(truth / "disp_occ", tmp_path / "disp_0")
    shutil.copytree(truth / "flow_occ", tmp_path / "flow")
    evaluation = evaluate_folder(tmp_path, truth)
    table = evaluation.to_dict()
    assert list(table) == ["D1", "Fl"]
    for region in ("occ", "noc"):
        for measure in ("D1", "Fl"):
            row = table[measure][region]
            assert (row["all"], row["all_est"], row["density"]) == (0, 0, 100)
            assert row["bg"] is None
    assert set(evaluation.skipped) == {"D2", "SF"}


# --- folders -----------------------------------------------------------------------------------------------------------

NAMES = ("000000_10.png", "000001_10.png")


@pytest.fixture
def folders(tmp_path):
    """Results that are their own ground truth, two images of 20 x 12 px."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        disparity = rng.uniform(1, 90, (12, 20)).astype(np.float32)
        flow = rng.normal(0, 20, (12, 20, 2)).astype(np.float32)
        maps = {"res/disp_0": disparity, "res/disp_1": disparity, "res/flow": flow}
        for region in ("occ", "noc"):
            maps[f"gt/disp_{region}_0"] = maps[f"gt/disp_{region}_1"] = disparity
            maps[f"gt/flow_{region}"] = flow
        for folder, values in maps.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            write = write_disparity_png if values.ndim == 2 else write_flow_png
            write(tmp_path / folder / name, values)
        (tmp_path / "gt" / "obj_map").mkdir(exist_ok=True)
        write_image(tmp_path / "gt" / "obj_map" / name, (disparity > 50).astype(np.uint8))
    return tmp_path


def evaluate(folders, workers=None):
    return evaluate_folder(folders / "res", folders / "gt", workers)


def test_json_has_each_measure_region_and_column(folders):
    table = json.loads(json.dumps(evaluate(folders).to_dict()))
    assert list(table) == ["D1", "D2", "Fl", "SF"]
    for regions in table.values():
        assert list(regions) == ["occ", "noc"]
        for row in regions.values():
            assert row == {**dict.fromkeys(COLUMNS, 0.0), "density": 100.0}


def test_a_missing_modality_is_skipped_and_said(folders):
    shutil.rmtree(folders / "res" / "flow")
    evaluation = evaluate(folders)
    assert list(evaluation.to_dict()) == ["D1", "D2"]
    assert evaluation.skipped["Fl"] == f"no PNG in {folders / 'res' / 'flow'}"
    assert evaluation.skipped["SF"] == "needs D1, D2 and Fl, but Fl skipped"


def test_missing_ground_truth_is_skipped_and_said(folders):
    for region in ("occ", "noc"):
        shutil.rmtree(folders / "gt" / f"disp_{region}_1")
    shutil.rmtree(folders / "gt" / "flow_noc")
    evaluation = evaluate(folders)
    table = evaluation.to_dict()
    assert list(table["D1"]) == ["occ", "noc"]
    assert list(table["Fl"]) == ["occ"]
    assert evaluation.skipped["D2"] == f"no disp_occ_1 in {folders / 'gt'}"


def test_other_results_are_not_looked_at(folders):
    (folders / "res" / "flow" / "000005_10.png").write_bytes(b"no image")
    (folders / "res" / "flow" / ".000001_10.png").write_bytes(b"no image")
    assert list(evaluate(folders).images) == list(NAMES)


def shrink(file):
    write = write_disparity_png if read_image(file).ndim == 2 else write_flow_png
    read = read_disparity_png if read_image(file).ndim == 2 else read_flow_png
    write(file, read(file)[:, :19])


def to_8_bit(file):
    write_image(file, (read_image(file) // 256).astype(np.uint8))


def cut(file):
    file.write_bytes(file.read_bytes()[:-30])


def make_flow(file):
    write_flow_png(file, np.zeros((12, 20, 2), np.float32))


def make_disparity(file):
    write_disparity_png(file, np.ones((12, 20), np.float32))


def make_color(file):
    write_image(file, np.zeros((12, 20, 3), np.uint8))


def test_a_bad_image_is_named_from_another_process_too(folders):
    check_refusal(folders, "res/disp_1", to_8_bit, "found 8-bit gray PNG", workers="2")


@pytest.mark.parametrize(
    ("place", "damage", "message"),
    [
        ("res/disp_0", shrink, "is 19 x 12 px, expected 20 x 12 px as in"),
        ("res/flow", shrink, "is 19 x 12 px, expected 20 x 12 px as in"),
        ("res/flow", to_8_bit, "found 8-bit RGB PNG, expected a 16-bit RGB PNG"),
        ("res/disp_0", make_flow, "found 16-bit RGB PNG, expected a 16-bit gray PNG"),
        ("res/flow", make_disparity, "found 16-bit gray PNG, expected a 16-bit RGB PNG"),
        ("res/disp_0", cut, "PNG is cut short"),
        ("gt/flow_noc", cut, "PNG is cut short"),
        ("res/flow", lambda file: file.unlink(), "missing, expected a result for each of the 2"),
        ("gt/flow_noc", lambda file: file.unlink(), "missing, expected the same images in every"),
        ("gt/obj_map", lambda file: file.unlink(), "missing, expected an object map"),
        ("gt/obj_map", make_color, "is a color image, expected a gray object map"),
        ("gt/obj_map", cut, "PNG is cut short"),
    ],
)
def test_a_bad_image_is_named(folders, place, damage, message):
    check_refusal(folders, place, damage, message)


def check_refusal(folders, place, damage, message, workers=None):
    file = folders / place / NAMES[1]
    damage(file)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(folders, workers)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_folders_without_anything_to_score_are_refused(folders, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for results, truth, message in (
        (empty, folders / "gt", "nothing to evaluate against .*gt: no PNG in"),
        (folders / "res", empty, "nothing to evaluate against .*empty: no disp_occ_0 in"),
        (tmp_path / "none", folders / "gt", "none: no such folder"),
        (folders / "res", tmp_path / "none", "none: no such folder"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_folder(results, truth)
    with pytest.raises(InputError, match="workers: '0', expected a number of processes from 1"):
        evaluate(folders, "0")


# --- how large errors are ----------------------------------------------------------------------------------------------

CALIBRATION = "P_rect_02: 100 0 10 0 0 100 6 0 0 0 1 0\nP_rect_03: 100 0 10 -50 0 100 6 0 0 0 1 0\n"


@pytest.fixture
def calibrated(folders):
    """Two images as seen by a camera of 100 px focal length and 0.5 m baseline, ground truth and estimates with gaps."""
    rng = np.random.default_rng(1)
    (folders / "gt" / "calib_cam_to_cam").mkdir()
    for name in NAMES:
        file = folders / "gt" / "calib_cam_to_cam" / f"{name[:6]}.txt"
        file.write_text(CALIBRATION)
        for folder in ("disp_occ_0", "disp_occ_1", "flow_occ"):
            with_gaps(folders / "gt" / folder / name, rng, 0.2)
        for folder in ("disp_0", "disp_1", "flow"):
            with_gaps(folders / "res" / folder / name, rng, 0.3, noise=4)
    return folders


def with_gaps(file, rng, share, noise=0.0):
    if "flow" in file.parent.name:
        flow = read_flow_png(file)
        flow += rng.normal(0, noise, flow.shape).astype(np.float32)
        flow[rng.random(flow.shape[:2]) < share] = NAN
        write_flow_png(file, flow)
    else:
        disparity = read_disparity_png(file)
        disparity += rng.normal(0, noise, disparity.shape).astype(np.float32)
        disparity[rng.random(disparity.shape) < share] = NAN
        write_disparity_png(file, disparity)


def test_end_point_errors_are_of_the_filled_estimate(calibrated):
    evaluation = evaluate(calibrated)
    total, count = 0.0, 0
    for name in NAMES:
        true = read_flow_png(calibrated / "gt" / "flow_occ" / name)
        estimate = fill_flow(read_flow_png(calibrated / "res" / "flow" / name))
        error = np.hypot(*np.moveaxis(estimate - true, 2, 0))
        known = ~np.isnan(true[..., 0])
        errors = evaluation.errors[name].pixels["Fl"]["occ"]
        assert errors.pixels == known.sum()
        assert errors.mean == pytest.approx(error[known].mean(), rel=1e-5)
        assert errors.over_3 == (error[known] > 3).sum()
        assert errors.outliers == evaluation.images[name]["Fl"]["occ"].all.outliers
        total, count = total + error[known].sum(), count + known.sum()
    assert evaluation.pooled_errors.pixels["Fl"]["occ"].mean == pytest.approx(
        total / count, rel=1e-5
    )


def test_3d_motion_point_by_point(calibrated):
    def motion(folder, kinds, name, row, column):
        first, second = (
            read_disparity_png(calibrated / folder / kind / name)[row, column] for kind in kinds[:2]
        )
        u, v = read_flow_png(calibrated / folder / kinds[2] / name)[row, column]
        points = []
        for disparity, x, y in ((first, column, row), (second, column + u, row + v)):
            depth = 50 / disparity
            points.append(np.array([(x - 10) / 100 * depth, (y - 6) / 100 * depth, depth]))
        return points[1] - points[0], points[0][2]

    evaluation = evaluate(calibrated)
    for name in NAMES:
        errors, depths = [], []
        for row in range(12):
            for column in range(20):
                place = (name, row, column)
                estimate, _ = motion("res", ("disp_0", "disp_1", "flow"), *place)
                true, depth = motion("gt", ("disp_occ_0", "disp_occ_1", "flow_occ"), *place)
                error = np.linalg.norm(estimate - true)
                if not np.isnan(error):
                    errors.append(error)
                    depths.append(depth)
        scored = evaluation.errors[name]
        assert scored.motion["occ"].points == len(errors) > 20
        assert scored.motion["occ"].mean == pytest.approx(np.mean(errors), rel=1e-4)
        near = [error for error, depth in zip(errors, depths, strict=True) if depth < 5]
        by_distance = scored.bands["3D", "distance"]
        assert by_distance.pixels[0] == len(near)
        assert by_distance.means[0] == pytest.approx(np.mean(near), rel=1e-4)
        assert sum(by_distance.pixels) == sum(scored.bands["3D", "motion"].pixels) == len(errors)


def test_errors_by_distance_where_there_is_a_calibration_else_by_disparity(calibrated):
    errors = evaluate(calibrated).pooled_errors
    measures = ("D1", "D2", "Fl")
    known = {(measure, q) for measure in measures for q in ("distance", "flow")}
    assert set(errors.bands) == known | {("3D", "distance"), ("3D", "motion")}
    nearest = errors.bands["D1", "distance"]
    true = np.stack([read_disparity_png(calibrated / "gt" / "disp_occ_0" / n) for n in NAMES])
    assert nearest.pixels[0] == (50 / true < 5).sum()  # 100 px * 0.5 m / disparity
    assert sum(nearest.pixels) == (~np.isnan(true)).sum()
    (calibrated / "gt" / "calib_cam_to_cam" / "000001.txt").unlink()
    errors = evaluate(calibrated).pooled_errors
    assert set(errors.bands) == {(m, q) for m in measures for q in ("disparity", "flow")}
    assert errors.motion == {}
    assert sum(errors.bands["D1", "disparity"].pixels) == (~np.isnan(true)).sum()


def test_a_calibration_that_is_none_is_named(calibrated):
    file = calibrated / "gt" / "calib_cam_to_cam" / "000001.txt"
    file.write_text("P_rect_02: 1 2 3\n")
    with pytest.raises(InputError) as caught:
        evaluate(calibrated)
    assert str(caught.value).startswith(f"{file}: ")


def test_maps_of_one_image_are_those_that_are_scored(calibrated):
    shutil.rmtree(calibrated / "gt" / "flow_noc")
    shutil.rmtree(calibrated / "res" / "disp_1")
    estimate, noc, occ = read_maps(calibrated / "res", calibrated / "gt", NAMES[0])
    assert (estimate.disparity_next, noc.disparity_next, occ.disparity_next) == (None, None, None)
    for values, file in (
        (estimate.disparity, "res/disp_0"),
        (noc.disparity, "gt/disp_noc_0"),
        (occ.disparity, "gt/disp_occ_0"),
    ):
        np.testing.assert_array_equal(values, read_disparity_png(calibrated / file / NAMES[0]))
    np.testing.assert_array_equal(noc.flow, occ.flow)


def test_a_confidence_is_scored_where_there_is_an_estimate(calibrated):
    assert evaluate(calibrated).pooled_errors.sparsification == {}
    folder = calibrated / "res" / "confidence_flow"
    folder.mkdir()
    confidences = {}
    for name in NAMES:
        true = read_flow_png(calibrated / "gt" / "flow_occ" / name)
        estimate = read_flow_png(calibrated / "res" / "flow" / name)
        error = np.nan_to_num(np.hypot(*np.moveaxis(estimate - true, 2, 0)), nan=0)
        confidences[name] = 1 / (1 + error)
        values = np.rint(65535 * confidences[name]).astype(np.uint16)
        write_image(folder / name, values)
    pooled = evaluate(calibrated).pooled_errors.sparsification
    assert set(pooled) == {"D2", "Fl"}
    assert pooled["Fl"]["occ"].images == len(NAMES)
    assert pooled["Fl"]["occ"].mean == pytest.approx(0, abs=1e-3)
    assert pooled["D2"]["occ"].mean > 0.3
    for name in NAMES:
        write_image(folder / name, np.rint(65535 * (1 - confidences[name])).astype(np.uint16))
    assert evaluate(calibrated).pooled_errors.sparsification["Fl"]["occ"].mean > 2
    write_image(folder / NAMES[0], np.zeros((12, 20), np.uint8))
    with pytest.raises(InputError, match="expected a 16-bit gray PNG of confidence"):
        evaluate(calibrated)
