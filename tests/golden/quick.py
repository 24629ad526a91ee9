"""Compiling a network's functions in a fraction of the time, for tests that run them once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The jitted function with XLA's costly optimisations left out."""
    return jax.jit(
        function,
        compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
    )
