import numpy as np

from dwarf_ros.inference.teachers import TeacherMaps, consistent_maps
from dwarf_ros.samples import Maps


def test_what_does_not_agree_is_not_kept():
    shape = (20, 60)
    disparity = np.full(shape, 6, np.float32)
    right, right_next = np.full((2, *shape), 6, np.float32)
    flow = np.tile(np.array([4, 0], np.float32), (*shape, 1))
    backward = -flow
    right[5, 20:25] = 9
    right_next[7, 20:25] = 9
    backward[9, 20:25] += 3
    maps = Maps(disparity, disparity.copy(), flow)
    kept = consistent_maps(TeacherMaps(maps, right, right_next, backward), 1.0)

    known = np.ones(shape, bool)
    known[:, :6] = False  # not in the right image
    known[5, 26:31] = False
    assert np.array_equal(np.isfinite(kept.disparity), known)
    in_next = np.ones(shape, bool)
    in_next[:, 56:] = False
    in_next[9, 16:21] = False
    assert np.array_equal(np.isfinite(kept.flow).all(axis=-1), in_next)
    in_next[:, :2] = False
    in_next[7, 22:27] = False
    assert np.array_equal(np.isfinite(kept.disparity_next), in_next)
    assert (kept.disparity[known] == 6).all()

    lenient = consistent_maps(TeacherMaps(maps, right, right_next, backward), 5.0)
    assert np.isfinite(lenient.disparity[:, 6:]).all()
    assert np.isfinite(lenient.disparity_next[:, 2:56]).all()
    assert np.isfinite(lenient.flow[:, :56]).all()
    unchecked = consistent_maps(TeacherMaps(maps), 1.0)
    assert all(np.isfinite(values).all() for values in vars(unchecked).values())
    huge = TeacherMaps(Maps(disparity + 300, disparity + 300, flow + 600))
    assert all(np.isnan(values).all() for values in vars(consistent_maps(huge, 1.0)).values())
