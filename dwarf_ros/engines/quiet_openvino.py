"""The openvino package, imported without its telemetry."""

import sys

# OpenVINO reports its import and every conversion to its maker, and leaves files in the home directory, unless this
# package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

__all__ = ["ov"]
