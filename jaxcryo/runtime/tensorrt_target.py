"""Whether TensorRT can run here, and what it would run on."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from types import ModuleType

from jaxcryo.errors import InputError
from jaxcryo.runtime.cuda import Gpu, jax_gpus

OLDEST, BEFORE = (10, 12), (12,)
"""TensorRT versions that this code is written for: from the oldest to below the other."""
_INSTALL = "pip install 'jax[cuda12]' 'tensorrt-cu12>=10.12,<12'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What an engine is bound to, besides its ONNX file."""

    tensorrt: str
    gpu: Gpu

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt}, {self.gpu.name}, compute capability {self.gpu.compute_capability}"


def this_machine() -> Target:
    """What engines are built for and run on here: the first card that JAX will use. JAX is not started by it.

    Raises:
        InputError: there is no card, no JAX for it, or no TensorRT of a version that is supported.
    """
    gpus = jax_gpus()
    if not gpus:
        raise InputError(
            "no NVIDIA GPU that JAX can use was found; TensorRT engines are built and run on the card itself: go to a "
            f"machine with one (docs/t4.md), {_INSTALL}, and run this there; computers without one run --backend "
            "openvino"
        )
    version: str = _import_tensorrt().__version__
    if not OLDEST <= _numbers(version) < BEFORE:
        raise InputError(f"TensorRT {version} is installed; expected 10.12 or later, before 12: run {_INSTALL}")
    return Target(tensorrt=version, gpu=gpus[0])


def _import_tensorrt() -> ModuleType:
    spec = importlib.util.find_spec("tensorrt")
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise InputError(f"TensorRT is not installed; run {_INSTALL}")
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise InputError(f"TensorRT cannot be loaded ({error}); run {_INSTALL}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
