"""What stitching needs to know of a network, whatever runs it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import jax
from jaxtyping import Array, Float

from jaxcryo.config import IntensityConfig
from jaxcryo.errors import InputError

Predict = Callable[[Float[Array, "b d h w"]], Float[Array, "b c d h w"]]
"""Windows to heatmaps, traceable by jit: a Flax apply, a runtime behind a callback, the identity in a test.

Arrays that it needs are best bound with `jax.tree_util.Partial(apply, params)`: they are then arguments of the
compiled step, and other parameters of the same shapes do not compile again. One that runs outside of XLA may have
an attribute `failure` with the exception of its last call, which XLA would only give as text.
"""


Flips = tuple[tuple[int, ...], ...]
"""For every pass of a window through the network the axes (0 z, 1 y, 2 x) along which it is reversed."""
NO_FLIPS: Flips = ((),)
IN_PLANE_FLIPS: Flips = ((), (2,), (1,), (1, 2))
"""What a slice may be turned into without leaving what training showed: flips along x, and turns by 180 degrees."""

INPUT, OUTPUT = "windows", "heatmaps"
"""Names of a model's input (b, d, h, w) and output (b, c, d, h, w), both float32."""


class ModelError(RuntimeError):
    """A model failed while it ran; the cause is the exception it raised."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A network ready to run on batches of windows of one size."""

    name: str
    patch_zyx: tuple[int, int, int]
    stride_zyx: tuple[int, int, int]
    batch: int
    classes: int
    predict: Predict
    intensity: IntensityConfig
    padding: Literal["zeros", "reflect"] = "zeros"
    """What lies beyond the volume."""
    flips: Flips = NO_FLIPS
    """A window's heatmaps are the mean over these passes, each turned back."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"{self.name}: the batch is {self.batch} windows; expected at least 1")
        if not self.flips:
            raise InputError(f"{self.name}: no pass through the network was asked for; expected at least one")


@contextlib.contextmanager
def model_failures(model: OpenModel) -> Iterator[None]:
    """Turns XLA's report of a failed callback into a `ModelError` that says what the model said."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        failure = getattr(model.predict, "failure", None)
        if failure is None:
            raise
        raise ModelError(f"{model.name}: {failure}") from failure if isinstance(failure, Exception) else error
