"""Models by OpenVINO, the fastest on CPUs."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence

import jax

from jaxcryo.errors import InputError
from jaxcryo.runtime.backends.base import Fit, precision_as_asked
from jaxcryo.runtime.cuda import jax_gpus
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import Predict
from jaxcryo.runtime.precision import PrecisionChoice, in_float32, where_harmless


class OpenVinoBackend:
    """OpenVINO, on this CPU."""

    name = "openvino"

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        """Where JAX has nothing but the CPU either."""
        if jax_gpus():  # before the next question, which starts JAX
            return Fit(suits=False, reason="")
        if jax.default_backend() != "cpu":
            return Fit(suits=False, reason=f"a {jax.default_backend()} is at hand")
        if importlib.util.find_spec("openvino") is None:
            return Fit(suits=False, reason="OpenVINO is not installed")
        return Fit(suits=True, reason="the fastest on a CPU")

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        """bfloat16 unasked, where the CPU has it and a comparison found it as good."""
        if choice == "float32":
            return precision_as_asked(choice, entries)
        from jaxcryo.runtime.openvino import cpu_has_bfloat16  # heavy to import, and not on every machine

        if not cpu_has_bfloat16():
            if choice == "bfloat16":
                raise InputError("--precision is bfloat16, which this CPU does not compute in; leave it at auto")
            return in_float32(entries), "float32 (this CPU has no bfloat16)"
        return where_harmless(entries) if choice == "auto" else precision_as_asked(choice, entries)

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The ONNX file, compiled for this CPU."""
        if importlib.util.find_spec("openvino") is None:
            raise InputError("OpenVINO is not installed; run pip install openvino, or choose --backend flax")
        from jaxcryo.runtime.openvino import openvino_predict  # heavy to import, and not on every machine

        return openvino_predict(
            folder / entry.onnx_file,
            batch=entry.batch,
            classes=entry.model.classes,
            patch_zyx=entry.patch_zyx,
            precision="bfloat16" if entry.precision == "bfloat16" else "float32",
        )
