"""8-bit integers: the network is quantised once, runs, and stays near the float32 one; what it changed is kept beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dwarf_ros.engines import load_engine
from dwarf_ros.engines.cache import cache_folder
from dwarf_ros.evaluation.quantization import change_in_words
from dwarf_ros.types import InputError

for package in ("tensorflow", "openvino", "nncf"):
    pytest.importorskip(package, reason=f"quantisation needs {package}")


@pytest.mark.timeout(300)
def test_quantised_network(lite, quantize_apart):
    from dwarf_ros.engines.openvino import quantized_entry
    from dwarf_ros.engines.quantization import quantize
    from dwarf_ros.engines.source import NetworkSource

    weights, pictures, _ = lite
    source = NetworkSource(weights)
    with pytest.raises(InputError, match="dwarf_lite is not quantized for 128 x 64 px, expected: "):
        load_engine("openvino", weights, "int8").run(pictures)

    told = quantize_apart(weights, 64, 128, [2, 3], [1])
    assert (told["calibrated_on"], told["measured_on"]) == (2, 1)
    assert f"disparity {told['change_px']['disparity']['mean']:.2f} px" in change_in_words(told)
    entry = cache_folder() / quantized_entry(source, (1, 64, 128, 3))
    assert json.loads((entry / "accuracy.json").read_text()) == told
    written = (entry / "model.xml").stat().st_mtime_ns
    assert quantize(source, [pictures], [pictures]) == told
    assert (entry / "model.xml").stat().st_mtime_ns == written

    engine = load_engine("openvino", weights, "int8")
    answer = engine.run(pictures)
    exact = load_engine("openvino", weights, "f32").run(pictures)
    for name, change in told["change_px"].items():
        length = np.linalg.norm(exact[name] - answer[name], axis=-1)
        assert change["mean"] == pytest.approx(length.mean(), rel=0.01)
        assert change["p99"] == pytest.approx(np.percentile(length, 99), rel=0.01)
        assert change["mean_answer"] == pytest.approx(
            np.linalg.norm(exact[name], axis=-1).mean(), rel=0.01
        )
        # An untrained network passes rounding on as a trained one does not.
        assert 0 < change["mean"] < 0.25 * change["mean_answer"]

    model = engine._compiled.get_runtime_model()
    precisions = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in model.get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    integers = sum(precision in ("i8", "u8") for precision in precisions)
    assert integers > len(precisions) / 3
    assert integers < len(precisions)
