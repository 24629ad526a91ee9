"""NVIDIA GPUs of this machine, as the driver lists them, without starting JAX or taking a card's memory."""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax

_DRIVER = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute of the driver's API."""
_JAX_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
_XLA_MEMORY = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_ALLOCATOR")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One card, as the driver names it."""

    index: int
    """Number among the cards that CUDA_VISIBLE_DEVICES leaves."""
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    """The newest CUDA version that the driver supports."""


def find_gpus() -> tuple[Gpu, ...]:
    """The cards that this process may use; none where there is no driver."""
    try:
        cuda = ctypes.CDLL(_DRIVER)
    except OSError:
        return ()
    count, version = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return ()
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_gpu(cuda, index, driver) for index in range(count.value))


def jax_gpus() -> tuple[Gpu, ...]:
    """The cards that JAX will compute on, without starting it; none where it has no CUDA or was told not to use it."""
    platforms = {p for p in (jax.config.jax_platforms or "").split(",") if p}  # type: ignore[attr-defined]
    if platforms and not platforms & {"cuda", "gpu"}:
        return ()
    return find_gpus() if any(map(importlib.util.find_spec, _JAX_PLUGINS)) else ()


def gpu_environment(gpu: Gpu) -> dict[str, str]:
    """Environment variables that make this card the only one of a process."""
    visible = [v.strip() for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if v.strip()]
    return {"CUDA_VISIBLE_DEVICES": visible[gpu.index] if visible else str(gpu.index)}


def share_memory() -> None:
    """Lets XLA take a card's memory as needed, not three quarters at once, so that some is left for TensorRT.

    Call it before JAX starts; processes started afterwards inherit it. A setting of the user is kept.
    """
    if not any(name in os.environ for name in _XLA_MEMORY):
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def described(gpus: Sequence[Gpu]) -> str:
    """The cards in words: `2 × Tesla T4`."""
    counts = collections.Counter(gpu.name for gpu in gpus)
    return ", ".join(name if n == 1 else f"{n} × {name}" for name, n in counts.items())


def _gpu(cuda: Any, index: int, driver: str) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(
        index=index,
        name=name.value.decode(),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        driver=driver,
    )
