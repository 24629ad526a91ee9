"""Two CPU devices, so that what is replicated can be compared with what is not; a double of TensorRT and its card."""

import os
import pathlib
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from hypothesis import settings

sys.path.extend(str(pathlib.Path(__file__).parent / name) for name in ("bindings", "fuzzing"))

# `pytest --hypothesis-profile fuzz tests/io/test_hostile.py tests/io/test_formats_hostile.py` looks longer.
settings.register_profile("fuzz", max_examples=2000)

WITH_TENSORRT = ("jaxcryo.inference.tensorrt", "convert.engine_build")
"""Modules that import TensorRT; they are imported anew with the double, and again without it."""


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch):
    """The double's faults, while TensorRT and a T4 seem to be at hand; XLA's CPU buffers are the card's memory."""
    import tensorrt_double as double

    from jaxcryo.inference import backends, tensorrt_target
    from jaxcryo.inference.cuda import Gpu

    faults = double.FAULTS
    vars(faults).update(vars(double.Faults()))
    card = Gpu(index=0, name="Tesla T4", compute_capability="7.5", memory_bytes=15 * 2**30, driver="12.4")
    for module in (backends, tensorrt_target):
        monkeypatch.setattr(module, "jax_gpus", lambda: (card,))
    monkeypatch.setattr(tensorrt_target, "_import_tensorrt", double.module)
    for name in WITH_TENSORRT:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", double.module())
    import numpy as np

    import jaxcryo.inference.tensorrt as runtime

    monkeypatch.setattr(runtime, "_address", lambda buffer: np.asarray(buffer).ctypes.data)
    monkeypatch.setattr(runtime, "_stream", lambda context: 1234)
    monkeypatch.setattr(runtime, "_platform", lambda: "gpu")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    yield faults
    for name in WITH_TENSORRT:
        sys.modules.pop(name, None)
