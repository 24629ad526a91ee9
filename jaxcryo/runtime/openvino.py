"""Networks on CPUs through OpenVINO, inside jit and on XLA's own buffers."""

from __future__ import annotations

import os
import pathlib
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import Buffer, ExecutionContext, buffer_callback
from jaxtyping import Array, Float

from jaxcryo.errors import InputError
from jaxcryo.runtime.manifest import RunPrecision
from jaxcryo.runtime.opened import INPUT, OUTPUT

# OpenVINO would report its use to its makers, from a forked process; without this package it has a stub that does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

_PRECISION_HINTS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def openvino_predict(
    onnx_path: str | pathlib.Path,
    *,
    batch: int,
    classes: int,
    patch_zyx: tuple[int, int, int],
    precision: RunPrecision = "float32",
    timed: bool = False,
) -> OpenVinoPredict:
    """The network of an ONNX file, compiled for this CPU.

    bfloat16 is what the network computes in; windows and heatmaps are float32 either way. int8 is for a file that
    says which of its layers are integers; the others are computed in bfloat16 where the CPU has it. A failure while it
    runs is left in the attribute `failure`.

    Raises:
        InputError: the file cannot be read or compiled, its input or output is not as asked for, or the CPU computes
            no bfloat16.
    """
    onnx_path = pathlib.Path(onnx_path)
    if not onnx_path.is_file():
        raise InputError(f"{onnx_path}: does not exist; expected an ONNX file: convert the checkpoint first")
    if precision == "bfloat16" and not cpu_has_bfloat16():
        raise InputError("this CPU does not compute in bfloat16; convert for it with precision float32")
    windows = (batch, *patch_zyx)
    heatmaps = (batch, classes, *patch_zyx)
    if precision == "int8":
        precision = "bfloat16" if cpu_has_bfloat16() else "float32"
    core = openvino.Core()
    try:
        model = core.read_model(onnx_path)
        _check_port(onnx_path, model.inputs, INPUT, windows)
        _check_port(onnx_path, model.outputs, OUTPUT, heatmaps)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                # One batch at a time on all cores; the other hint splits the cores among several.
                "PERFORMANCE_HINT": "LATENCY",
                "EXECUTION_MODE_HINT": "PERFORMANCE",
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
                "CACHE_DIR": "",
                "PERF_COUNT": timed,
            },
        )
    except RuntimeError as error:
        raise InputError(
            f"{onnx_path}: OpenVINO {openvino.__version__} cannot compile it ({_last_line(error)}): convert again"
        ) from error
    return OpenVinoPredict(compiled, heatmaps)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16, and does not only store it."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_described() -> str:
    """The CPU with the features that decide how fast a precision is: a name alone may stand for several generations."""
    core = openvino.Core()
    name = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    kinds = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"FP32", "FP16", "BF16", "INT8"}
    info = pathlib.Path("/proc/cpuinfo")
    vnni = ["VNNI"] if info.is_file() and "vnni" in info.read_text() else []
    return f"{name} ({', '.join([*sorted(kinds), *vnni])}, {os.cpu_count()} cores)"


class OpenVinoPredict:
    """Holds one inference request, so that calls wait for each other."""

    failure: Exception | None = None

    def __init__(self, compiled: Any, heatmaps: tuple[int, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._call = buffer_callback(self._infer, jax.ShapeDtypeStruct(heatmaps, jnp.float32))

    def __call__(self, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        heatmaps: Array = self._call(windows.astype(jnp.float32))
        return heatmaps

    def layer_seconds(self) -> dict[str, float]:
        """Of the last call, by the names of the ONNX file's nodes; of a network that was opened `timed`."""
        return {
            part.node_name.removesuffix("/WithoutBiases"): part.real_time.total_seconds()
            for part in self._request.profiling_info
        }

    def _infer(self, context: ExecutionContext, heatmaps: Buffer, windows: Buffer) -> None:
        self.failure = None
        try:
            with self._lock:
                # On CPUs these are views of XLA's buffers, whose memory the request reads and writes itself.
                self._request.set_input_tensor(openvino.Tensor(np.asarray(windows), shared_memory=True))
                self._request.set_output_tensor(openvino.Tensor(np.asarray(heatmaps), shared_memory=True))
                self._request.infer()
        except Exception as error:
            self.failure = error
            raise


def _check_port(onnx_path: pathlib.Path, ports: list[Any], name: str, shape: tuple[int, ...]) -> None:
    found = [(sorted(port.get_names()), str(port.get_partial_shape()), port.get_element_type()) for port in ports]
    matches = (
        len(ports) == 1
        and name in ports[0].get_names()
        and ports[0].get_element_type() == openvino.Type.f32
        and ports[0].get_partial_shape().is_static
        and tuple(ports[0].get_shape()) == shape
    )
    if not matches:
        listed = "; ".join(f"{'/'.join(names)} {kind.to_string()} {size}" for names, size, kind in found) or "nothing"
        raise InputError(f"{onnx_path}: has {listed}; expected one {name!r} of shape {list(shape)}, f32: convert again")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
