"""Teachers of ptlflow: names and weights that are refused, and disparities from flows of rectified pairs."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.estimators.ptlflow import MAX_ROW_ERROR, require_ptlflow, stereo_disparity
from dwarf_ros.types import InputError, StereoFrame

installed = importlib.util.find_spec("ptlflow") and importlib.util.find_spec("torch")
needs_ptlflow = pytest.mark.skipif(not installed, reason="extra `teachers` is not installed")


@given(st.floats(0.1, 20), st.floats(-3, 3))
def test_a_match_on_its_row_to_the_left_is_a_disparity(disparity, row_error):
    flow = np.zeros((4, 32, 2), np.float32)
    flow[..., 0], flow[..., 1] = -disparity, row_error
    found = stereo_disparity(flow)
    if abs(np.float32(row_error)) > MAX_ROW_ERROR:
        assert np.isnan(found).all()
        return
    assert (found == np.float32(disparity)).all()


def test_a_match_to_the_right_is_no_disparity():
    flow = np.zeros((2, 8, 2), np.float32)
    flow[0, :, 0] = 2
    assert np.isnan(stereo_disparity(flow)).all()


def test_a_name_without_a_model_is_refused():
    with pytest.raises(InputError, match="names no model"):
        require_ptlflow("ptlflow:")


def test_an_engine_that_cannot_run_it_is_refused():
    with pytest.raises(InputError, match="engine: tensorflow given to ptlflow:raft"):
        require_ptlflow("ptlflow:raft", "tensorflow")


@pytest.mark.skipif(bool(installed), reason="extra `teachers` is installed")
def test_what_is_missing_is_named():
    with pytest.raises(InputError, match=r"not installed.*dwarf_ros\[teachers\]"):
        choose_estimator("ptlflow:raft", "things")


@needs_ptlflow
class TestInstalled:
    def test_weights_are_required(self):
        with pytest.raises(InputError, match="weights: none given"):
            choose_estimator("ptlflow:rapidflow")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match="is missing"):
            choose_estimator("ptlflow:rapidflow", tmp_path / "nothing.ckpt")

    def test_unknown_models_and_weights_are_named(self):
        from dwarf_ros.estimators.ptlflow import PtlflowEstimator

        with pytest.raises(InputError, match="no model 'nothing'"):
            PtlflowEstimator("ptlflow:nothing", "things")
        with pytest.raises(InputError, match="weights: nothing"):
            PtlflowEstimator("ptlflow:rapidflow", "nothing")

    def test_a_file_that_runs_code_is_refused(self, tmp_path):
        from dwarf_ros.estimators.ptlflow import PtlflowEstimator

        file = tmp_path / "code.ckpt"
        file.write_bytes(pickle.dumps(print))
        with pytest.raises(InputError, match="is not a checkpoint of tensors"):
            PtlflowEstimator("ptlflow:rapidflow", file)

    def test_a_state_dictionary_gives_an_estimate(self, tmp_path):
        import ptlflow
        import torch

        from dwarf_ros.estimators.ptlflow import PtlflowEstimator

        file = tmp_path / "rapidflow.pkl"
        torch.save({"state_dict": ptlflow.get_model("rapidflow").state_dict()}, file)
        estimator = PtlflowEstimator("ptlflow:rapidflow", file)
        images = np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), np.uint8)
        frames = StereoFrame(*images[:2]), StereoFrame(*images[2:], stamp=10**8)
        estimate = estimator.estimate(*frames)
        assert estimate.flow.shape == (96, 128, 2)
        assert estimate.disparity.shape == (96, 128)
        assert estimate.dt == pytest.approx(0.1)
