import csv
import datetime
import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from dwarf_ros.evaluation.kitti.folder import evaluate_folder
from dwarf_ros.evaluation.kitti.report import csv_text, evaluate, kitti_report, print_table
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.types import InputError

NAMES = tuple(f"{number:06d}_10.png" for number in range(3))
BAD = NAMES[1]
CALIBRATION = "P_rect_02: 40 0 20 0 0 40 10 0 0 0 1 0\nP_rect_03: 40 0 20 -20 0 40 10 0 0 0 1 0\n"


@pytest.fixture
def folders(tmp_path):
    """Three images of 40 x 20 px; the second one's results are the worst."""
    rng = np.random.default_rng(3)
    for name in NAMES:
        disparity = rng.uniform(1, 60, (20, 40)).astype(np.float32)
        flow = rng.normal(0, 20, (20, 40, 2)).astype(np.float32)
        noise = 6 if name == BAD else 2
        for folder in ("gt/obj_map", "gt/image_2", "gt/calib_cam_to_cam"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "gt/obj_map" / name, (disparity > 30).astype(np.uint8))
        write_image(tmp_path / "gt/image_2" / name, rng.integers(0, 255, (20, 40, 3), np.uint8))
        (tmp_path / "gt/calib_cam_to_cam" / f"{name[:6]}.txt").write_text(CALIBRATION)
        for values, folder, truths in (
            (disparity, "disp_0", ("disp_occ_0", "disp_noc_0")),
            (disparity, "disp_1", ("disp_occ_1", "disp_noc_1")),
            (flow, "flow", ("flow_occ", "flow_noc")),
        ):
            write = write_flow_png if folder == "flow" else write_disparity_png
            for truth in truths:
                (tmp_path / "gt" / truth).mkdir(exist_ok=True)
                write(tmp_path / "gt" / truth / name, values)
            (tmp_path / "res" / folder).mkdir(parents=True, exist_ok=True)
            estimate = values + rng.normal(0, noise, values.shape).astype(np.float32)
            write(tmp_path / "res" / folder / name, estimate)
    return tmp_path


def evaluate_to_files(folders):
    out = folders / "out"
    out.mkdir(exist_ok=True)
    files = {kind: out / f"scores.{kind}" for kind in ("json", "csv", "html")}
    evaluation = evaluate(folders / "res", folders / "gt", **files, method="noise")
    return evaluation, files


def printed(evaluation):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_table(evaluation, console)
    return console.file.getvalue()


def test_json_and_csv_hold_the_scores(folders):
    evaluation, files = evaluate_to_files(folders)
    assert json.loads(files["json"].read_text()) == evaluation.to_dict()
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert files["csv"].read_text() == csv_text(evaluation)
    assert len(rows) == 4 * 5 * 2  # pooled and three images; four measures and 3D; occ and noc
    assert [row["image"] for row in rows[::10]] == ["all images", *NAMES]
    row = next(r for r in rows if (r["image"], r["measure"], r["region"]) == (BAD, "Fl", "occ"))
    counts = evaluation.images[BAD]["Fl"]["occ"].to_dict()
    for column, value in counts.items():
        assert float(row[column]) == pytest.approx(value, rel=1e-5)
    errors = evaluation.errors[BAD].pixels["Fl"]["occ"]
    assert float(row["epe"]) == pytest.approx(errors.mean, rel=1e-5)
    assert float(row["over_1px"]) == pytest.approx(errors.rate_1, rel=1e-5)
    assert row["within_5cm"] == ""
    pooled = rows[8]
    assert (pooled["measure"], pooled["region"], pooled["fg"]) == ("3D", "occ", "")
    motion = evaluation.pooled_errors.motion["occ"]
    assert float(pooled["epe"]) == pytest.approx(motion.mean, rel=1e-5)
    assert float(pooled["within_10cm"]) == pytest.approx(motion.accuracy_relaxed, rel=1e-5)


def test_the_development_kits_verdict_is_on_the_terminal_and_in_the_report(real_data):
    data = real_data("devkit_small")
    evaluation = evaluate_folder(data / "res", data / "gt")
    shown = printed(evaluation)
    for measure, regions in evaluation.to_dict().items():
        for region, row in regions.items():
            line = next(x for x in shown.splitlines() if f"│ {measure} │ {region} " in x)
            for column in ("bg", "fg", "all", "all_est", "density"):
                assert f" {row[column]:.2f} " in line
    report = kitti_report(evaluation, data / "res", data / "gt", "kit", datetime.date(2026, 1, 2))
    outliers = report.tables[0]
    assert list(outliers.rows[0]) == ["D1", "occ", *evaluation.to_dict()["D1"]["occ"].values()]
    assert report.subtitle.endswith("6 images, 2026-01-02")
    assert any("need D1, D2, Fl and a calibration" in note for note in report.notes)


def test_what_was_skipped_is_said_everywhere(folders):
    shutil.rmtree(folders / "res" / "disp_1")
    evaluation, files = evaluate_to_files(folders)
    assert list(json.loads(files["json"].read_text())) == ["D1", "Fl"]
    assert f"D2 skipped: no PNG in {folders / 'res' / 'disp_1'}" in printed(evaluation)
    page = files["html"].read_text()
    assert "D2 was skipped: no PNG in" in page
    assert "SF was skipped: needs D1, D2 and Fl" in page
    assert {row["measure"] for row in csv.DictReader(files["csv"].open())} == {"D1", "Fl"}


def test_the_page_in_a_browser(folders, in_chromium):
    _, files = evaluate_to_files(folders)
    seen = in_chromium(files["html"])
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["images"] == [[40, True]] * (3 * 8)
    order = seen["sorted"]["#frames table"][0][1]
    assert order[0] == "000001_10"
    assert sorted(order) == ["000000_10", "000001_10", "000002_10"]
    assert any("distance [m]" in name for name in seen["names"])


def test_pictures_of_a_frame(folders):
    evaluation, _ = evaluate_to_files(folders)
    report = kitti_report(
        evaluation, folders / "res", folders / "gt", "noise", datetime.date(2026, 1, 2)
    )
    frame = next(f for f in report.frames if f.name == "000001_10")
    pictures = frame.pictures()
    assert [p.title.partition(",")[0] for p in pictures] == [
        *("left image", "SF error", "disparity", "D1 error", "disparity of the next frame"),
        *("D2 error", "optical flow", "Fl error"),
    ]
    assert {(p.image.shape, p.image.dtype.name) for p in pictures} == {((20, 40, 3), "uint8")}
    assert report.frame_columns[report.sort_column] == "SF [%]"
    errors = dict(zip(report.frame_columns, frame.values, strict=True))
    assert errors["SF [%]"] == evaluation.images[BAD]["SF"]["occ"].all.percent
    assert errors["3D EPE [m]"] == evaluation.errors[BAD].motion["occ"].mean
    shutil.rmtree(folders / "gt" / "image_2")
    assert frame.pictures()[-1].title == "SF error"


def test_own_figures_stand_beside_published_ones_with_their_sources(folders):
    evaluation, _ = evaluate_to_files(folders)
    report = kitti_report(
        evaluation, folders / "res", folders / "gt", "mine", datetime.date.today()
    )
    table = next(t for t in report.tables if t.title == "Beside published figures")
    own, *published = table.rows
    assert own[0] == "mine"
    assert own[4] == evaluation.to_dict()["SF"]["occ"]["all"]
    assert all(len(row) == 6 and row[5] for row in published)
    assert ["RAFT-3D", None, None, None, 5.77, "its paper's abstract"] in published
    assert not any(row[0].lower().startswith("dwarf") for row in published)


def test_real_ground_truth_in_metres(real_data, tmp_path):
    truth = real_data("kitti2012") / "training"
    for folder, kind in (("disp_0", "disp_noc"), ("flow", "flow_noc")):
        (tmp_path / folder).mkdir()
        for file in (truth / kind).iterdir():
            shutil.copy(file, tmp_path / folder / file.name)
    evaluation = evaluate(tmp_path, truth, html=tmp_path / "page.html")
    by_distance = evaluation.pooled_errors.bands["D1", "distance"]
    disparity = [read_disparity_png(file) for file in (truth / "disp_occ").iterdir()]
    # Both cameras' focal length times baseline, 386.1448 px m, at 5 m; the error is of occluded pixels alone, which are near.
    nearest = sum(np.count_nonzero(d > 386.1448 / 5) for d in disparity)
    assert by_distance.pixels[0] == nearest > 1000
    assert sum(by_distance.pixels) == sum(np.count_nonzero(d > 0) for d in disparity)
    assert by_distance.total[-4:] == (0, 0, 0, 0)
    assert sum(by_distance.total) > 0
    page = (tmp_path / "page.html").read_text()
    assert "distance [m]" in page
    assert "all_est [%]" in page
    assert "fg [%]" not in page  # there is no map of objects
    assert page.count("<img ") == 2 * 5
    assert "D2 was skipped" in page


@pytest.mark.parametrize(
    ("record", "method"),
    [
        ('{"estimator": "dwarf", "engine": "openvino"}', "dwarf on openvino"),
        ("[]", "res"),
        ("not json", "res"),
    ],
)
def test_the_page_names_the_recorded_estimator(folders, record, method):
    (folders / "res" / "prediction.json").write_text(record)
    evaluate(folders / "res", folders / "gt", html=folders / "page.html")
    title = f"<h1>KITTI evaluation of {method}</h1>"
    assert title in (folders / "page.html").read_text()


def too_small(file):
    read, write = (
        (read_flow_png, write_flow_png)
        if "flow" in str(file.parent.name)
        else (read_disparity_png, write_disparity_png)
    )
    write(file, read(file)[:, 1:])
    return "is 39 x 20 px, expected 40 x 20 px"


def eight_bit(file):
    write_image(file, np.zeros((20, 40), np.uint8))
    return "found 8-bit gray PNG, expected a 16-bit"


def other_kind(file):
    other = "disp_0" if file.parent.name == "flow" else "flow"
    shutil.copy(file.parents[1] / other / file.name, file)
    return "found 16-bit"


def missing(file):
    file.unlink()
    return "missing, expected a result for each of the 3 images"


@pytest.mark.parametrize("damage", [too_small, eight_bit, other_kind, missing])
@pytest.mark.parametrize("folder", ["disp_0", "flow"])
def test_bad_results_are_named_and_nothing_is_written(folders, folder, damage):
    file = folders / "res" / folder / NAMES[2]
    expected = damage(file)
    with pytest.raises(InputError) as caught:
        evaluate_to_files(folders)
    assert str(caught.value).startswith(f"{file}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((folders / "out").iterdir()) == []


def test_places_that_cannot_be_written_to_are_refused_before_any_work(folders):
    def progress(done, total):
        raise AssertionError("work was done")

    for file, message in (
        (folders / "none" / "a.json", "no such folder"),
        (folders / "res", "is a folder, expected a file"),
    ):
        for kind in ("json", "csv", "html"):
            with pytest.raises(InputError, match=message) as caught:
                evaluate(folders / "res", folders / "gt", progress=progress, **{kind: file})
            assert str(caught.value).startswith(f"{file}: ")
