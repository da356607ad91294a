import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwarf_ros.evaluation.kitti.rules import (
    Maps,
    OutlierCounts,
    Tally,
    disparity_error_image,
    evaluate_disparity,
    evaluate_flow,
    evaluate_folder,
    evaluate_maps,
    fill_disparity,
    fill_flow,
    flow_error_image,
    read_maps,
    scene_flow_error_image,
)
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
quick = settings(derandomize=True, deadline=None, max_examples=60)


def array(rows):
    return np.array(rows, dtype=np.float32)


# --- filling -----------------------------------------------------------------------------------------------------------


def filled_pixel_by_pixel(values, known):
    """The rules as a person would follow them, for one channel."""
    values, known = values.copy(), known.copy()
    height, width = values.shape
    for row in range(height):
        present = [x for x in range(width) if known[row, x]]
        for x in range(width):
            if not present or known[row, x]:
                continue
            left = [p for p in present if p < x]
            right = [p for p in present if p > x]
            neighbours = left[-1:] + right[:1]
            values[row, x] = min(values[row, p] for p in neighbours)
        if present:
            known[row] = True
    for x in range(width):
        present = [y for y in range(height) if known[y, x]]
        for y in range(height):
            if present and y < present[0]:
                values[y, x] = values[present[0], x]
            elif present and y > present[-1]:
                values[y, x] = values[present[-1], x]
            elif not known[y, x]:
                values[y, x] = NAN
    return values


shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))
holes = st.just(float("nan")) | st.floats(0, 100, width=32)


@quick
@given(disparity=shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=holes)))
def test_filling_follows_the_rules_pixel_by_pixel(disparity):
    before = disparity.copy()
    filled = fill_disparity(disparity)
    np.testing.assert_array_equal(filled, filled_pixel_by_pixel(disparity, disparity >= 0))
    np.testing.assert_array_equal(disparity, before)


@quick
@given(
    flow=shapes.flatmap(
        lambda s: hnp.arrays(np.float32, (*s, 2), elements=st.floats(-50, 50, width=32))
    ),
    data=st.data(),
)
def test_flow_is_filled_channel_by_channel(flow, data):
    known = data.draw(hnp.arrays(np.bool_, flow.shape[:2]))
    flow[~known] = NAN
    filled = fill_flow(flow)
    for channel in range(2):
        expected = filled_pixel_by_pixel(flow[..., channel], known)
        np.testing.assert_array_equal(filled[..., channel], expected)


def test_filling_an_example_by_hand():
    disparity = array([[NAN] * 4, [NAN, 5, NAN, 3], [NAN] * 4, [-1, -1, 7, NAN], [NAN] * 4])
    expected = [[5, 5, 3, 3], [5, 5, 3, 3], [NAN] * 4, [7] * 4, [7] * 4]
    np.testing.assert_array_equal(fill_disparity(disparity), expected)
    assert np.isnan(fill_disparity(array([[NAN, NAN]]))).all()


# --- counting ----------------------------------------------------------------------------------------------------------


def test_counts_by_region_of_the_image_and_by_what_was_estimated():
    truth = array([[10, 10, 10, 10, NAN]])
    estimate = array([[10, 20, NAN, 30, 10]])
    objects = np.array([[0, 0, 0, 3, 1]], dtype=np.uint8)
    # The gap is filled with 20, the smaller neighbour.
    assert evaluate_disparity(estimate, truth, objects) == OutlierCounts(
        bg=Tally(2, 3), bg_est=Tally(1, 2), fg=Tally(1, 1), fg_est=Tally(1, 1), all=Tally(3, 4), all_est=Tally(2, 3)
    )  # fmt: skip
    without_objects = evaluate_disparity(estimate, truth)
    assert without_objects == OutlierCounts(all=Tally(3, 4), all_est=Tally(2, 3))
    assert without_objects.density == 75
    assert without_objects.to_dict() == {
        "bg": None, "bg_est": None, "fg": None, "fg_est": None,
        "all": 75.0, "all_est": pytest.approx(200 / 3), "density": 75.0,
    }  # fmt: skip


def test_what_cannot_be_filled_counts_as_disparity_minus_1_and_flow_0():
    nothing = np.full((1, 3), NAN, dtype=np.float32)
    # Off by 2.5 and by 3 px from -1, and by 5.
    assert evaluate_disparity(nothing, array([[1.5, 2, 4]])).all == Tally(1, 3)
    no_flow = np.full((1, 2, 2), NAN, dtype=np.float32)
    counts = evaluate_flow(no_flow, array([[[0, 2.5], [4, 0]]]))
    assert (counts.all, counts.all_est) == (Tally(1, 2), Tally(0, 0))


def test_scene_flow_is_wrong_where_any_part_is_over_pixels_where_all_are_known():
    truth = Maps(array([[9, 9, 9, NAN]]), array([[9, 9, 9, 9]]), np.zeros((1, 4, 2), np.float32))
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, 2] = 9
    estimate = Maps(array([[99, 9, NAN, 9]]), array([[9, 9, 9, 99]]), flow)
    counts = evaluate_maps(estimate, truth)
    assert list(counts) == ["D1", "D2", "Fl", "SF"]
    assert counts["SF"].all == Tally(2, 3)
    assert counts["SF"].all_est == Tally(1, 2)  # the third pixel had no estimate in D1


def test_measures_without_maps_are_left_out():
    one = array([[1]])
    assert list(evaluate_maps(Maps(disparity=one), Maps(disparity=one, flow=one[..., None]))) == [
        "D1"
    ]


@pytest.mark.parametrize("objects", [None, np.zeros((2, 3), np.uint8)])
def test_sizes_that_differ_are_refused(objects):
    truth = np.ones((2, 2), np.float32)
    estimate = truth if objects is not None else np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        evaluate_disparity(estimate, truth, objects)


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
    return evaluate_folder(folder / "res", folder / "gt", processes=2)


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


def test_one_process_counts_as_two_do(real_data, small_evaluation):
    folder = real_data("devkit_small")
    steps = []
    alone = evaluate_folder(
        folder / "res", folder / "gt", processes=1, progress=lambda *step: steps.append(step)
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


def evaluate(folders, processes=1):
    return evaluate_folder(folders / "res", folders / "gt", processes=processes)


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


def make_colour(file):
    write_image(file, np.zeros((12, 20, 3), np.uint8))


def test_a_bad_image_is_named_from_another_process_too(folders):
    check_refusal(folders, "res/disp_1", to_8_bit, "found 8-bit grey PNG", processes=2)


@pytest.mark.parametrize(
    ("place", "damage", "message"),
    [
        ("res/disp_0", shrink, "is 19 x 12 px, expected 20 x 12 px as in"),
        ("res/flow", shrink, "is 19 x 12 px, expected 20 x 12 px as in"),
        ("res/flow", to_8_bit, "found 8-bit RGB PNG, expected a 16-bit RGB PNG"),
        ("res/disp_0", make_flow, "found 16-bit RGB PNG, expected a 16-bit grey PNG"),
        ("res/flow", make_disparity, "found 16-bit grey PNG, expected a 16-bit RGB PNG"),
        ("res/disp_0", cut, "PNG is cut short"),
        ("gt/flow_noc", cut, "PNG is cut short"),
        ("res/flow", lambda file: file.unlink(), "missing, expected a result for each of the 2"),
        ("gt/flow_noc", lambda file: file.unlink(), "missing, expected the same images in every"),
        ("gt/obj_map", lambda file: file.unlink(), "missing, expected an object map"),
        ("gt/obj_map", make_colour, "is a colour image, expected a grey object map"),
        ("gt/obj_map", cut, "PNG is cut short"),
    ],
)
def test_a_bad_image_is_named(folders, place, damage, message):
    check_refusal(folders, place, damage, message, processes=1)


def check_refusal(folders, place, damage, message, processes):
    file = folders / place / NAMES[1]
    damage(file)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(folders, processes)
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
    with pytest.raises(InputError, match="processes: 0, expected at least 1"):
        evaluate(folders, processes=0)


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


# --- error images ------------------------------------------------------------------------------------------------------

BLUE, LIGHT_BLUE, YELLOW, DARK_RED = (49, 54, 149), (224, 243, 248), (254, 224, 144), (165, 0, 38)


@pytest.mark.parametrize(
    ("truth", "error", "colour"),
    [
        (10, 0, BLUE),
        (10, 0.18, BLUE),  # 0.06 of 3 px
        (10, 0.19, (69, 117, 180)),
        (10, 1, (171, 217, 233)),
        (10, 2.9, LIGHT_BLUE),
        (10, 3.1, YELLOW),
        (100, 4.9, LIGHT_BLUE),  # under 5 %
        (100, 5.1, YELLOW),
        (10, 60, DARK_RED),
    ],
)
def test_error_colours(truth, error, colour):
    true = np.full((3, 3), truth, dtype=np.float32)
    assert disparity_error_image(true + np.float32(error), true, true)[1, 1].tolist() == [*colour]
    flow = np.zeros((3, 3, 2), np.float32)
    flow[..., 1] = -truth
    image = flow_error_image(flow + array([error, 0]), flow, flow)
    assert image[1, 1].tolist() == [*colour]


@quick
@given(data=st.data())
def test_error_image_paints_3_by_3_row_by_row_and_dims_the_occluded(data):
    shape = data.draw(shapes)
    occ = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([5.0, float("nan")])))
    occluded = data.draw(hnp.arrays(np.bool_, shape))
    errors = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 3.5, 70.0])))
    image = disparity_error_image(np.nan_to_num(occ) + errors, np.where(occluded, NAN, occ), occ)
    colours = {0.0: BLUE, 3.5: YELLOW, 70.0: DARK_RED}
    expected = np.zeros((*shape, 3), np.uint8)
    for y in range(1, shape[0] - 1):
        for x in range(1, shape[1] - 1):
            if not np.isnan(occ[y, x]):
                colour = np.array(colours[float(errors[y, x])])
                expected[y - 1 : y + 2, x - 1 : x + 2] = colour // 2 if occluded[y, x] else colour
    np.testing.assert_array_equal(image, expected)


def test_scene_flow_error_image_shows_the_worst_part():
    true = Maps(
        np.full((3, 3), 10, np.float32),
        np.full((3, 3), 10, np.float32),
        np.full((3, 3, 2), 10, np.float32),
    )
    image = scene_flow_error_image(true, true, true)
    assert image[1, 1].tolist() == [*BLUE]
    for name in ("disparity", "disparity_next", "flow"):
        wrong = Maps(**{**vars(true), name: getattr(true, name) + np.float32(90)})
        assert scene_flow_error_image(wrong, true, true)[1, 1].tolist() == [*DARK_RED]
    no_truth = Maps(np.full((3, 3), NAN, np.float32), true.disparity_next, true.flow)
    assert scene_flow_error_image(true, true, no_truth)[1, 1].tolist() == [*BLUE]
    with pytest.raises(InputError, match="a map is missing"):
        scene_flow_error_image(Maps(flow=true.flow), true, true)


def test_an_error_image_of_another_size_is_refused():
    true = np.ones((3, 3), np.float32)
    with pytest.raises(InputError, match="expected one shape"):
        disparity_error_image(true, true[:2], true)
