"""Two CPU devices, so that what is replicated can be compared with what is not; a double of TensorRT and its card."""

import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# What XLA compiled is found again by later tests and by the processes that they start. Each process of pytest-xdist has
# its own folder, in that of the process that started it, since one might read what another has half written.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
    prefix="jaxcryo-tests-", dir=os.environ.get("JAX_COMPILATION_CACHE_DIR")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import pytest

sys.path.append(str(pathlib.Path(__file__).parent / "bindings"))

WITH_TENSORRT = ("jaxcryo.inference.tensorrt", "convert.engine_build")
"""Modules that import TensorRT; they are imported anew with the double, and again without it."""


LONGEST = ("training/test_processes.py", "training/test_step.py", "training/test_loop.py", "cli/test_pipeline.py")
"""Files that are begun first: else a process is at one of them when there is nothing left for the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, file in enumerate(LONGEST) if item.path.as_posix().endswith(file)), len(LONGEST))

    items.sort(key=place)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


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
