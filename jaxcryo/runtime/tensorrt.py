"""Networks on NVIDIA GPUs through TensorRT, inside jit: on XLA's device buffers and stream, without a copy.

One code path for TensorRT 10.12 to 11. Importing this module imports TensorRT.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import tensorrt as trt
from jax.experimental.buffer_callback import Buffer, ExecutionContext, buffer_callback
from jaxtyping import Array, Float

from jaxcryo.calling import command
from jaxcryo.errors import InputError
from jaxcryo.runtime.opened import INPUT, OUTPUT, Predict

_KEPT_ERRORS = 20


class Log(trt.ILogger):  # type: ignore[misc] # untyped
    """Keeps the errors that TensorRT reports, to say them where it only returns nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.kept: collections.deque[str] = collections.deque(maxlen=_KEPT_ERRORS)

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self.kept.append(" ".join(msg.split()))


LOG = Log()
"""The only one: TensorRT keeps the first logger of a process for its global messages."""


def reported() -> str:
    """The errors that TensorRT reported since the last call, in one line."""
    said = "; ".join(dict.fromkeys(LOG.kept))
    LOG.kept.clear()
    return said or "TensorRT gave no reason"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedEngine:
    """An engine on the card, and the runtime that must live as long."""

    runtime: trt.Runtime
    engine: trt.ICudaEngine


def tensorrt_predict(path: str | pathlib.Path, *, batch: int, classes: int, patch_zyx: tuple[int, int, int]) -> Predict:
    """The network of an engine file, ready on the first GPU.

    A failure while it runs is left in the attribute `failure`.

    Raises:
        InputError: the file cannot be read or does not suit this machine, its input or output is not as asked for,
            or JAX does not run on a GPU.
    """
    path = pathlib.Path(path)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a TensorRT engine") from error
    return engine_predict(load_engine(plan, str(path)), str(path), batch=batch, classes=classes, patch_zyx=patch_zyx)


def load_engine(plan: bytes, what: str) -> LoadedEngine:
    """A serialised engine, on the card.

    Raises:
        InputError: TensorRT refuses it; the message begins with `what`.
    """
    runtime = trt.Runtime(LOG)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(
            f"{what}: TensorRT {trt.__version__} cannot load it ({reported()}); engines run with the TensorRT "
            "version and on the kind of card that built them: build it again on this machine with "
            f"{command('convert engine')}"
        )
    return LoadedEngine(runtime=runtime, engine=engine)


def engine_predict(
    loaded: LoadedEngine, what: str, *, batch: int, classes: int, patch_zyx: tuple[int, int, int]
) -> Predict:
    """An engine on the card as a function of windows; raises as `tensorrt_predict` does."""
    platform = _platform()
    if platform != "gpu":
        raise InputError(
            f"JAX runs on {platform}, TensorRT works on the buffers of JAX on a GPU: pip install 'jax[cuda12]', and "
            "leave JAX_PLATFORMS alone"
        )
    heatmaps = (batch, classes, *patch_zyx)
    _check_tensors(loaded.engine, what, {INPUT: (batch, *patch_zyx), OUTPUT: heatmaps})
    context = loaded.engine.create_execution_context()
    if context is None:
        raise InputError(
            f"{what}: TensorRT cannot make room for it on the card ({reported()}); end other programs on the card, "
            "or convert with a smaller --batch"
        )
    return _TensorRtPredict(loaded, context, heatmaps)


class _TensorRtPredict:
    """Holds one execution context, so that calls are enqueued one after the other."""

    failure: Exception | None = None

    def __init__(self, loaded: LoadedEngine, context: trt.IExecutionContext, heatmaps: tuple[int, ...]) -> None:
        self._loaded = loaded
        self._context = context
        self._lock = threading.Lock()
        self._call = buffer_callback(self._enqueue, jax.ShapeDtypeStruct(heatmaps, jnp.float32))

    def __call__(self, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        heatmaps: Array = self._call(windows.astype(jnp.float32))
        return heatmaps

    def _enqueue(self, context: ExecutionContext, heatmaps: Buffer, windows: Buffer) -> None:
        """Puts the engine into XLA's stream and returns; what XLA enqueues later waits for it there."""
        self.failure = None
        try:
            with self._lock:
                for name, buffer in ((INPUT, windows), (OUTPUT, heatmaps)):
                    address = _address(buffer)
                    if not self._context.set_tensor_address(name, address):
                        raise RuntimeError(
                            f"TensorRT refused the address {address:#x} of {name!r} ({reported()}); it needs "
                            "multiples of 256"
                        )
                if not self._context.execute_async_v3(_stream(context)):
                    raise RuntimeError(f"TensorRT could not enqueue the engine ({reported()})")
        except Exception as error:
            self.failure = error
            raise


def _platform() -> str:
    return jax.default_backend()


def _address(buffer: Buffer) -> int:
    address: int = buffer.__cuda_array_interface__["data"][0]
    return address


def _stream(context: ExecutionContext) -> int:
    return context.stream


def _check_tensors(engine: trt.ICudaEngine, what: str, expected: dict[str, tuple[int, ...]]) -> None:
    modes = {INPUT: trt.TensorIOMode.INPUT, OUTPUT: trt.TensorIOMode.OUTPUT}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    fits = set(names) == set(expected) and all(
        engine.get_tensor_mode(name) == modes[name]
        and engine.get_tensor_dtype(name) == trt.DataType.FLOAT
        and tuple(engine.get_tensor_shape(name)) == shape
        for name, shape in expected.items()
    )
    if not fits:
        found = "; ".join(f"{n} {engine.get_tensor_dtype(n)} {list(engine.get_tensor_shape(n))}" for n in names)
        wanted = ", ".join(f"{name!r} {list(shape)}" for name, shape in expected.items())
        raise InputError(f"{what}: has {found or 'nothing'}; expected {wanted}, float32: build it again")
