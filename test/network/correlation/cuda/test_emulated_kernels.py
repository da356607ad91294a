"""The CUDA kernels run thread by thread on the CPU, against float64, where no GPU is needed and none is used.

An emulator compiles correlation.cu with g++: it takes the threads of a block in one order and in the other between barriers,
copies in the background as late as it may, starts from shared memory full of NaN and guards what lies behind it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCES = Path(__file__).parents[4] / "dwarf_ros" / "network" / "correlation" / "cuda"
EMULATOR = Path(__file__).parent / "emulator"
TYPES = (np.float32, np.float16, ml_dtypes.bfloat16)
SLOPE = 0.1


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The emulated kernels, as a library of two C functions."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build the emulated kernels with")
    library = tmp_path_factory.mktemp("emulator") / "emulated.so"
    command = ["g++", "-std=c++17", "-O1", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
    command += [f"-I{EMULATOR}", f"-I{SOURCES}", "-x", "c++", str(EMULATOR / "emulated.cc")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def wider(array, before, after):
    """The array in a slice of wider memory full of 77, and that memory; its channels begin at `before`."""
    memory = np.full((*array.shape[:3], before + array.shape[3] + after), 77, array.dtype)
    memory[..., before : before + array.shape[3]] = array
    return memory


def pointer(array, channel=0):
    return ctypes.c_void_p(array.ctypes.data + channel * array.itemsize)


def expected_volume(first, second, reaches, slope):
    """The definition, in float64."""
    reach_y, reach_x, depth = reaches
    _, height, width, channels = first.shape
    padding = [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (depth, depth)]
    padded = np.pad(second.astype(np.float64), padding)
    volume = [
        (first.astype(np.float64) * padded[:, j : j + height, i : i + width, k : k + channels])
        .mean(axis=-1)
        for k in range(2 * depth + 1)
        for j in range(2 * reach_y + 1)
        for i in range(2 * reach_x + 1)
    ]  # fmt: skip
    volume = np.stack(volume, axis=-1)
    return np.where(volume > 0, volume, slope * volume)


def expected_gradients(first, second, volume, cotangent, reaches, slope):
    """Gradients of the sum of cotangent * volume, in float64, given the volume as it was stored."""
    reach_y, reach_x, depth = reaches
    _, height, width, channels = first.shape
    padding = [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (depth, depth)]
    padded = np.pad(second.astype(np.float64), padding)
    weights = np.where(volume.astype(np.float64) > 0, 1, slope) * cotangent.astype(np.float64)
    of_first, of_second = np.zeros(first.shape), np.zeros(padded.shape)
    index = 0
    for k in range(2 * depth + 1):
        for j in range(2 * reach_y + 1):
            for i in range(2 * reach_x + 1):
                there = np.s_[:, j : j + height, i : i + width, k : k + channels]
                weight = weights[..., index, None] / channels
                of_first += weight * padded[there]
                of_second[there] += weight * first.astype(np.float64)
                index += 1
    inside = [slice(before, -before or None) for before in (0, reach_y, reach_x, depth)]
    return of_first, of_second[tuple(inside)]


@st.composite
def cases(draw):
    """Shapes, displacements and places in memory, each dimension near where the kernels' tiles begin anew."""
    shape = [draw(st.integers(*span)) for span in ((1, 2), (1, 10), (1, 35), (1, 37))]
    reaches = [draw(st.integers(*span)) for span in ((0, 5), (0, 6), (0, 2))]
    if draw(st.booleans()):
        shape[3] = draw(st.sampled_from([8, 16, 32, 36]))
        reaches[2] = 0
    margins = draw(st.sampled_from([(0, 0), (4, 8), (3, 2)]))
    return {
        "shape": tuple(shape),
        "reaches": tuple(reaches),
        "margins": margins,
        "dtype": TYPES[draw(st.integers(0, 2))],
        "slope": draw(st.sampled_from([1.0, SLOPE])),
        "strip": draw(st.sampled_from([0, 4, 8])),
        "seed": draw(st.integers(0, 99)),
    }


def tolerance(dtype):
    """Of one rounding to the type, of values up to about 4, beside float32's own."""
    return 2 * float(ml_dtypes.finfo(dtype).eps) + 1e-6


quick = settings(max_examples=30, deadline=None, derandomize=True)


@quick
@given(case=cases())
def test_forward_kernel_is_the_definition_and_the_order_of_threads_is_nothing(emulated, case):
    rng = np.random.default_rng(case["seed"])
    before, after = case["margins"]
    first, second = (rng.normal(size=case["shape"]).astype(case["dtype"]) for _ in range(2))
    expected = expected_volume(first, second, case["reaches"], case["slope"])
    wide = [wider(array, before, after) for array in (first, second)]
    sizes = (ctypes.c_int64 * 7)(*case["shape"], *case["reaches"])
    answers = []
    for backwards in (0, 1):
        volume = wider(np.full(expected.shape, np.nan, case["dtype"]), before, after)
        failed = emulated.emulated_correlate(
            TYPES.index(case["dtype"]),
            sizes,
            ctypes.c_float(case["slope"]),
            pointer(wide[0], before),
            ctypes.c_int64(wide[0].shape[-1]),
            pointer(wide[1], before),
            ctypes.c_int64(wide[1].shape[-1]),
            pointer(volume, before),
            ctypes.c_int64(volume.shape[-1]),
            case["strip"],
            backwards,
        )
        assert not failed
        answers.append(volume)
    end = before + expected.shape[-1]
    np.testing.assert_allclose(
        answers[0][..., before:end].astype(np.float64),
        expected,
        rtol=tolerance(case["dtype"]),
        atol=1e-6,
    )
    assert answers[0].tobytes() == answers[1].tobytes()
    assert (answers[0][..., :before] == 77).all()
    assert (answers[0][..., end:] == 77).all()


@quick
@given(case=cases(), operand=st.integers(0, 1), based=st.sampled_from(["zero", "other", "itself"]))
def test_gradient_kernel_is_the_derivative(emulated, case, operand, based):
    rng = np.random.default_rng(case["seed"])
    before, after = case["margins"]
    dtype = case["dtype"]
    first, second = (rng.normal(size=case["shape"]).astype(dtype) for _ in range(2))
    volume = expected_volume(first, second, case["reaches"], case["slope"]).astype(dtype)
    cotangent = rng.normal(size=volume.shape).astype(dtype)
    start = rng.normal(size=first.shape).astype(dtype)
    gradients = expected_gradients(first, second, volume, cotangent, case["reaches"], case["slope"])
    expected = gradients[operand] + (0 if based == "zero" else start.astype(np.float64))
    other = wider(second if operand == 0 else first, before, after)
    wide_volume, wide_cotangent = (wider(array, before, after) for array in (volume, cotangent))
    answers = []
    for backwards in (0, 1):
        gradient = wider(
            start if based == "itself" else np.full(start.shape, np.nan, dtype), before, after
        )
        base = gradient if based == "itself" else wider(start, before, after)
        failed = emulated.emulated_gradient(
            TYPES.index(dtype),
            (ctypes.c_int64 * 7)(*case["shape"], *case["reaches"]),
            ctypes.c_float(case["slope"]),
            operand,
            pointer(other, before),
            ctypes.c_int64(other.shape[-1]),
            pointer(wide_volume, before),
            pointer(wide_cotangent, before),
            ctypes.c_int64(wide_volume.shape[-1]),
            None if based == "zero" else pointer(base, before),
            pointer(gradient, before),
            ctypes.c_int64(gradient.shape[-1]),
            backwards,
        )
        assert not failed
        answers.append(gradient)
    end = before + expected.shape[-1]
    np.testing.assert_allclose(
        answers[0][..., before:end].astype(np.float64),
        expected,
        rtol=tolerance(dtype),
        atol=1e-5,
    )
    assert answers[0].tobytes() == answers[1].tobytes()
    assert (answers[0][..., :before] == 77).all()
    assert (answers[0][..., end:] == 77).all()
