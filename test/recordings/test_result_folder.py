import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.formats import write_disparity_png
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.recordings.result_folder import ResultFolder, read_map
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    disparity, disparity_next = rng.uniform(0, 255, (2, 3, 4)).astype(np.float32)
    flow = rng.uniform(-500, 500, (3, 4, 2)).astype(np.float32)
    flow[1, 2] = disparity[0, 3] = np.nan
    folder = ResultFolder(tmp_path_factory.mktemp("results") / "out")
    assert not folder.exists()
    folder.create()
    assert folder.exists()
    folder.write("000010_10", Maps(disparity, disparity_next, flow))
    assert folder.names() == {"000010_10"}
    maps = folder.read("000010_10")
    np.testing.assert_allclose(maps.disparity, disparity, atol=1 / 256)
    np.testing.assert_allclose(maps.disparity_next, disparity_next, atol=1 / 256)
    np.testing.assert_allclose(maps.flow, flow, atol=1 / 64)
    for file, values in zip(folder.files("000010_10"), vars(maps).values(), strict=True):
        np.testing.assert_array_equal(read_map(file), values)


def test_incomplete_results_and_those_of_different_sizes(tmp_path):
    folder = ResultFolder(tmp_path)
    folder.create()
    folder.write("a", Maps(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3, 2))))
    write_disparity_png(tmp_path / RESULT_FOLDERS[0] / "b.png", np.ones((2, 3)))
    assert folder.names() == {"a"}
    write_disparity_png(tmp_path / RESULT_FOLDERS[1] / "a.png", np.ones((2, 2)))
    with pytest.raises(InputError, match=r"disp_0, disp_1 and flow of a\.png differ in size"):
        folder.read("a")
