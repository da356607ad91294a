"""The library's CPU kernels through both frameworks against keras.ops, float64 and finite differences; its build and check."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import shutil

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.network import correlation
from dwarf_ros.network.correlation import ops as reference
from dwarf_ros.network.correlation.cuda import build, jax_binding, tensorflow_binding
from dwarf_ros.network.correlation.cuda import kernels as library_kernels
from dwarf_ros.network.correlation.cuda.kernels import find_fault
from dwarf_ros.types import InputError

# The first test waits for the build.
pytestmark = pytest.mark.timeout(300)

BINDINGS = {"tensorflow": tensorflow_binding, "jax": jax_binding}
NVCC = shutil.which("nvcc")
SLOPE = 0.1
quick = settings(max_examples=7, deadline=None, derandomize=True)

sizes = st.tuples(*[st.integers(1, 2), st.integers(1, 6), st.integers(1, 9), st.integers(1, 12)])


@pytest.fixture(scope="session")
def libraries(request):
    """Framework -> library, with CUDA for one architecture where there is an nvcc; kept from one run of the tests to the next."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build the library with")
    folder = request.config.cache.mkdir("correlation-with-nvcc" if NVCC else "correlation")
    frameworks = [name for name in BINDINGS if name in build.installed_frameworks()]
    files = [build.library_file(name, folder) for name in frameworks]
    if not all(file.is_file() for file in files):
        files = build.build(frameworks, ["sm_90"] if NVCC else [], NVCC, folder)
    return dict(zip(frameworks, files, strict=True))


@pytest.fixture(scope="session", params=BINDINGS)
def framework(request):
    """Name of each framework that is installed."""
    pytest.importorskip(request.param, reason="its binding cannot be built")
    return request.param


@pytest.fixture(scope="session")
def kernels(framework, libraries):
    """The library's functions for that framework."""
    return BINDINGS[framework].load_kernels(libraries[framework])


def arrays(size, seed, count=2, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(dtype) for _ in range(count)]


def tensors(framework, *values):
    """NumPy arrays as the framework's tensors."""
    if framework == "tensorflow":
        return [importlib.import_module("tensorflow").constant(value) for value in values]
    return [importlib.import_module("jax.numpy").asarray(value) for value in values]


def gradients(framework, function, inputs, cotangent):
    """Gradients of the sum of cotangent * function(*inputs) by each input, by the framework's own differentiation."""
    inputs = tensors(framework, *inputs)
    if framework == "tensorflow":
        tf = importlib.import_module("tensorflow")
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            volume = function(*inputs)
        return [np.asarray(g) for g in tape.gradient(volume, inputs, tf.constant(cotangent))]
    jax = importlib.import_module("jax")
    _, pull_back = jax.vjp(function, *inputs)
    return [np.asarray(g) for g in pull_back(jax.numpy.asarray(cotangent))]


def activated(volume):
    return np.where(volume > 0, volume, SLOPE * volume)


def correlation_64(first, second, reach_y, reach_x, depth=0):
    """The definition in float64."""
    _, height, width, channels = first.shape
    padded = np.pad(second, [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (depth, depth)])
    return np.stack(
        [
            (first * padded[:, j : j + height, i : i + width, k : k + channels]).mean(axis=-1)
            for k in range(2 * depth + 1)
            for j in range(2 * reach_y + 1)
            for i in range(2 * reach_x + 1)
        ],
        axis=-1,
    )


def cost_volumes_64(left_t0, right_t0, left_t1, right_t1, reach, depth):
    stereo_t0 = activated(correlation_64(left_t0, right_t0, 0, reach))
    stereo_t1 = activated(correlation_64(left_t1, right_t1, 0, reach))
    temporal = activated(correlation_64(stereo_t0, stereo_t1, reach, reach, depth))
    flow = activated(correlation_64(left_t0, left_t1, reach, reach))
    return np.concatenate([stereo_t0, stereo_t1, temporal, flow], axis=-1)


@quick
@given(size=sizes, reach=st.integers(0, 11), seed=st.integers(0, 99))
def test_1d_and_2d_are_those_of_keras_ops(kernels, size, reach, seed):
    first, second = arrays(size, seed)
    ours = np.asarray(kernels.correlate(first, second, 0, reach))
    theirs = np.asarray(reference.correlation_1d(first, second, reach))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    reach = min(reach, 7)
    ours = np.asarray(kernels.correlate(first, second, reach, reach))
    theirs = np.asarray(reference.correlation_2d(first, second, reach))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@quick
@given(size=sizes, reach=st.integers(0, 3), depth=st.integers(0, 3), seed=st.integers(0, 99))
def test_3d_is_that_of_keras_ops(kernels, size, reach, depth, seed):
    first, second = arrays(size, seed)
    ours = np.asarray(kernels.correlate(first, second, reach, reach, depth))
    theirs = np.asarray(reference.correlation_3d(first, second, reach, depth))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@quick
@given(
    size=sizes,
    reach=st.integers(0, 3),
    depth=st.integers(0, 2),
    slope=st.sampled_from([SLOPE, 1.0]),
    seed=st.integers(0, 99),
)
def test_volumes_of_a_level_are_those_of_keras_ops(kernels, size, reach, depth, slope, seed):
    features = arrays(size, seed, 4)
    ours = np.asarray(kernels.cost_volumes(*features, reach, depth, slope))
    theirs = np.asarray(reference.cost_volumes(*features, reach, depth, slope))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@quick
@given(size=sizes, reach=st.integers(0, 3), depth=st.integers(0, 2), seed=st.integers(0, 99))
def test_gradients_of_a_level_are_finite_differences(framework, kernels, size, reach, depth, seed):
    features = arrays(size, seed, 4)
    directions = arrays(size, seed + 100, 4, np.float64)
    exact = [feature.astype(np.float64) for feature in features]
    shape = cost_volumes_64(*exact, reach, depth).shape
    cotangent = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    ours = gradients(
        framework,
        lambda *inputs: kernels.cost_volumes(*inputs, reach, depth, SLOPE),
        features,
        cotangent,
    )
    step = 1e-6
    for operand, direction in enumerate(directions):
        sums = []
        for sign in (1, -1):
            moved = list(exact)
            moved[operand] = exact[operand] + sign * step * direction
            sums.append((cotangent * cost_volumes_64(*moved, reach, depth)).sum())
        slope = (sums[0] - sums[1]) / (2 * step)
        assert abs((ours[operand] * direction).sum() - slope) <= 1e-4 * max(1, abs(slope))


@pytest.mark.parametrize(
    ("size", "name", "reaches", "kernel_reaches"),
    [
        ((2, 5, 7, 3), "correlation_1d", (4,), (0, 4)),
        ((1, 6, 11, 8), "correlation_2d", (3,), (3, 3)),
        ((2, 3, 4, 1), "correlation_2d", (6,), (6, 6)),
        ((1, 4, 5, 5), "correlation_3d", (2, 3), (2, 2, 3)),
        ((2, 5, 9, 6), "cost_volumes", (2, 1, SLOPE), (2, 1, SLOPE)),
    ],
)
def test_gradients_are_those_of_keras_ops(framework, kernels, size, name, reaches, kernel_reaches):
    count = 4 if name == "cost_volumes" else 2
    inputs = arrays(size, 3, count)
    kernel = kernels.cost_volumes if name == "cost_volumes" else kernels.correlate
    ops = getattr(reference, name)
    shape = np.shape(ops(*inputs, *reaches))
    cotangent = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    ours = gradients(framework, lambda *i: kernel(*i, *kernel_reaches), inputs, cotangent)
    keras_backend = importlib.import_module("keras").backend.backend()
    theirs = gradients(keras_backend, lambda *i: ops(*i, *reaches), inputs, cotangent)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_rounded_once(framework, kernels, dtype):
    first, second = arrays((2, 5, 9, 33), 8, dtype=dtype)
    volume = kernels.correlate(*tensors(framework, first, second), 3, 3)
    assert np.asarray(volume).dtype == dtype
    expected = correlation_64(first.astype(np.float64), second.astype(np.float64), 3, 3)
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(volume).astype(np.float64), expected, rtol=0.51 * eps, atol=1e-7
    )
    cotangent = np.ones(volume.shape, dtype)
    of_first, _ = gradients(
        framework, lambda *i: kernels.correlate(*i, 3, 3), (first, second), cotangent
    )
    padded = np.pad(second.astype(np.float64), [(0, 0), (3, 3), (3, 3), (0, 0)])
    windows = [padded[:, j : j + 5, i : i + 9] for j in range(7) for i in range(7)]
    assert of_first.dtype == dtype
    np.testing.assert_allclose(
        of_first.astype(np.float64), sum(windows) / 33, rtol=0.51 * eps, atol=1e-6
    )


def test_conversions_round_as_numpy_does(framework, kernels):
    """A correlation of one channel over no displacement is a product, here with one."""
    values = np.float32([0, 1, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65519, 65520, 1e9, np.inf])
    tiny = np.float32([6e-8, 2.9e-8, 3e-8, 2**-14, 6.1e-5, 2**-25, 3 * 2**-25])
    drawn = np.random.default_rng(1).normal(size=500).astype(np.float32)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        with np.errstate(over="ignore"):
            exact = np.concatenate([values, -values, tiny, drawn, drawn * 1e-6]).astype(dtype)
        first = exact[None, None, :, None]
        volume = kernels.correlate(*tensors(framework, first, np.ones_like(first)), 0, 0, 0, 1.0)
        np.testing.assert_array_equal(
            np.asarray(volume).astype(np.float32), first.astype(np.float32)
        )
        # Products of two numbers of the type are exact in float32, and NumPy rounds them once.
        second = np.roll(first, 7, axis=2)
        with np.errstate(all="ignore"):
            product = (first.astype(np.float32) * second.astype(np.float32)).astype(dtype)
        volume = np.asarray(kernels.correlate(*tensors(framework, first, second), 0, 0, 0, 1.0))
        np.testing.assert_array_equal(volume.astype(np.float32), product.astype(np.float32))


def test_volumes_lie_in_their_slices_as_if_computed_alone(framework, kernels):
    features = tensors(framework, *arrays((2, 6, 10, 7), 2, 4))
    left_t0, right_t0, left_t1, right_t1 = features
    reach, depth = 2, 1
    stereo_t0 = kernels.correlate(left_t0, right_t0, 0, reach, 0, SLOPE)
    stereo_t1 = kernels.correlate(left_t1, right_t1, 0, reach, 0, SLOPE)
    temporal = kernels.correlate(stereo_t0, stereo_t1, reach, reach, depth, SLOPE)
    flow = kernels.correlate(left_t0, left_t1, reach, reach, 0, SLOPE)
    alone = np.concatenate([stereo_t0, stereo_t1, temporal, flow], axis=-1)
    together = np.asarray(kernels.cost_volumes(*features, reach, depth, SLOPE))
    assert together.tobytes() == alone.tobytes()
    assert (alone < 0).any()


def test_every_run_gives_the_same_bits(framework, kernels):
    features = arrays((2, 9, 17, 20), 6, 4)
    cotangent = np.random.default_rng(7).normal(size=(2, 9, 17, 60)).astype(np.float32)

    def bits():
        volumes = np.asarray(kernels.cost_volumes(*features, 2, 0, SLOPE))
        found = gradients(
            framework, lambda *i: kernels.cost_volumes(*i, 2, 0, SLOPE), features, cotangent
        )
        return [array.tobytes() for array in (volumes, *found)]

    first = bits()
    assert all(bits() == first for _ in range(4))


def test_graphs_of_unknown_size_and_compiled_ones(framework, kernels):
    first, second = arrays((2, 5, 6, 3), 1)
    expected = correlation_64(first, second, 2, 2)
    if framework == "tensorflow":
        tf = importlib.import_module("tensorflow")
        anything = tf.TensorSpec((None, None, None, 3), tf.float32)

        @tf.function(input_signature=[anything, anything])
        def volume(a, b):
            found = kernels.correlate(a, b, 2, 2)
            assert found.shape.as_list() == [None, None, None, 25]
            return found
    else:
        volume = importlib.import_module("jax").jit(lambda a, b: kernels.correlate(a, b, 2, 2))
    np.testing.assert_allclose(np.asarray(volume(first, second)), expected, atol=1e-5)
    if framework == "tensorflow":
        with pytest.raises(tf.errors.InvalidArgumentError, match="input 1 has shape"):
            volume(first, second[:, :4])


def test_empty_maps_have_empty_volumes(framework, kernels):
    maps = tensors(framework, *arrays((0, 4, 5, 3), 0))
    assert kernels.correlate(*maps, 0, 2).shape == (0, 4, 5, 5)


@pytest.mark.parametrize(
    ("maps", "reach", "message"),
    [
        (((2, 3, 4), (2, 3, 4)), 1, r"left_t0 has shape \(2, 3, 4\), expected batch x H x W x C"),
        (
            ((1, 2, 3, 4), (1, 2, 3, 5)),
            1,
            r"right_t0 has shape .* expected \(1, 2, 3, 4\) as left_t0",
        ),
        (((1, 2, 3, 4), (1, 2, 3, 4)), -1, "max_displacement is -1, expected a whole number"),
        (((1, 2, 3, 4), (1, 2, 3, 4)), 1.5, "max_displacement is 1.5, expected a whole number"),
    ],
)
def test_wrong_maps_are_named_in_one_line(kernels, maps, reach, message):
    left, right = (np.zeros(shape, np.float32) for shape in maps)
    with pytest.raises(ValueError, match=message) as error:
        kernels.cost_volumes(left, right, left, right, reach, 0, SLOPE)
    assert "\n" not in str(error.value)


def test_wrong_types_are_named(kernels):
    left = np.zeros((1, 2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="first is float64, expected float32, float16, bfloat16"):
        kernels.correlate(left.astype(np.float64), left, 1, 1)
    with pytest.raises(ValueError, match="second is float16, expected float32 as first"):
        kernels.correlate(left, left.astype(np.float16), 0, 1)


def test_what_python_lets_through_the_library_refuses(framework, kernels):
    maps = tuple(tensors(framework, *arrays((1, 2, 3, 4), 0)))

    def attributes(*values):
        return tuple(zip(("reach_y", "reach_x", "depth", "slope"), values, strict=True))

    with pytest.raises(Exception, match="displacement is 1025, expected 0 to 1024"):
        np.asarray(kernels.forward("Correlation", maps, attributes(1025, 0, 0, 1.0)))
    with pytest.raises(Exception, match="slope is not positive"):
        np.asarray(kernels.correlate(*maps, 1, 1, 0, 0.0))


def test_self_check_passes_the_library_and_no_other(kernels):
    assert find_fault(kernels) == ""

    def wrong_forward(only, change):
        def forward(function, inputs, attributes):
            volume = kernels.forward(function, inputs, attributes)
            return change(np.asarray(volume)) if function == only else volume

        return dataclasses.replace(kernels, forward=forward)

    for only in ("Correlation", "CostVolumes"):
        for change in (np.zeros_like, lambda v: v[..., ::-1], lambda v: v + np.nan, np.transpose):
            assert find_fault(wrong_forward(only, change))


@pytest.fixture
def fresh_loads():
    """Nothing is remembered of libraries loaded before, nor afterwards of those of the test."""
    library_kernels.load.cache_clear()
    yield
    library_kernels.load.cache_clear()


def test_a_library_that_passes_is_used(libraries, fresh_loads):
    backend = importlib.import_module("keras").backend.backend()
    loaded = library_kernels.load(backend, libraries[backend])
    assert loaded is not None
    assert loaded.compiles == (backend == "jax")


def test_cuda_is_the_library_where_the_build_put_it(libraries, fresh_loads, monkeypatch):
    backend = importlib.import_module("keras").backend.backend()
    monkeypatch.setattr(build, "library_file", libraries.get)
    loaded = correlation.load("cuda")
    assert loaded.name == "cuda"
    assert loaded.compiles == (backend == "jax")


def test_a_wrong_library_is_left_alone_with_one_warning(
    kernels, libraries, fresh_loads, monkeypatch, caplog
):
    wrong = dataclasses.replace(kernels, forward=lambda *inputs: kernels.forward(*inputs) * 0)
    backend = importlib.import_module("keras").backend.backend()
    monkeypatch.setattr(BINDINGS[backend], "load_kernels", lambda library: wrong)
    monkeypatch.setattr(build, "library_file", libraries.get)
    with caplog.at_level(logging.WARNING):
        names = [correlation.load("cuda").name for _ in range(3)]
    assert names == ["ops"] * 3
    assert len(caplog.records) == 1
    assert "its 1D correlation differs from that of keras.ops" in caplog.text


def test_a_broken_or_absent_file_is_left_alone(tmp_path, fresh_loads, caplog):
    broken = tmp_path / "correlation.so"
    broken.write_text("not a library")
    with caplog.at_level(logging.WARNING):
        backend = importlib.import_module("keras").backend.backend()
        assert library_kernels.load(backend, broken) is None
        assert library_kernels.load(backend, tmp_path / "none.so") is None
    assert "it fails" in caplog.records[0].message
    assert "build it with" in caplog.records[1].message
    assert all("\n" not in record.message for record in caplog.records)


def test_auto_without_a_gpu_is_ops_and_says_nothing(fresh_loads, monkeypatch, caplog):
    for binding in BINDINGS.values():
        monkeypatch.setattr(binding, "sees_gpu", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert correlation.load().name == "ops"
    assert not caplog.records
    with pytest.raises(InputError, match="got 'gpu', expected one of auto, ops, cuda"):
        correlation.load("gpu")


def test_auto_with_a_gpu_uses_a_library_that_was_built_with_cuda(
    libraries, fresh_loads, monkeypatch, caplog
):
    backend = importlib.import_module("keras").backend.backend()
    monkeypatch.setattr(BINDINGS[backend], "sees_gpu", lambda: True)
    monkeypatch.setattr(build, "library_file", libraries.get)
    with caplog.at_level(logging.WARNING):
        loaded = correlation.load("auto").name
    assert loaded == ("cuda" if NVCC else "ops")
    assert ("built without CUDA" in caplog.text) == (not NVCC)


def test_nvcc_compiles_and_links(libraries):
    if NVCC is None:
        pytest.skip("no nvcc")
    assert {build.architectures_of(file) for file in libraries.values()} == {"sm_90"}


def test_gxx_alone_builds_the_cpu_kernel(tmp_path):
    pytest.importorskip("jax", reason="its binding cannot be built")
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build the library with")
    if NVCC is None:
        pytest.skip("no nvcc: the library of the other tests is of this kind")
    (file,) = build.build(["jax"], nvcc=None, folder=tmp_path)
    assert build.architectures_of(file) == ""
    assert list(tmp_path.iterdir()) == [file]
    kernels = jax_binding.load_kernels(file)
    first, second = arrays((1, 3, 4, 5), 0)
    volume = kernels.correlate(first, second, 1, 1, 0, 1.0)
    np.testing.assert_allclose(volume, correlation_64(first, second, 1, 1), atol=1e-6)


def test_build_says_in_one_line_what_it_lacks(tmp_path, monkeypatch, capsys):
    assert build.main(["sm_90", "--nvcc", "no-such-nvcc", "--out", str(tmp_path)]) == 2
    assert "no no-such-nvcc to build for sm_90" in capsys.readouterr().err
    if NVCC:
        assert build.main(["sm_1", "--out", str(tmp_path)]) == 2
        assert "architecture 'sm_1' is not one of" in capsys.readouterr().err
    failing = tmp_path / "nvcc"
    failing.write_text("#!/bin/sh\necho 'fatal error: no licence' >&2; exit 3\n")
    failing.chmod(0o755)
    assert build.main(["--nvcc", str(failing), "--out", str(tmp_path)]) == 2
    assert "failed: fatal error: no licence" in capsys.readouterr().err
    assert build.main(["--nvcc", "none", "--out", str(failing / "folder")]) == 2
    assert "folder cannot be created: Not a directory" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert build.main(["--out", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == "build: error: correlation: no g++ on the PATH to build with\n"
    )
    with pytest.raises(InputError, match="none of tensorflow, jax is installed"):
        build.build([])
