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
from jaxcryo.runtime.precision import PrecisionChoice, in_float32, in_int8, where_harmless, where_int8_pays


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
        """By default, bfloat16 or int8 if the CPU supports it or is faster in it, and a comparison found it as good."""
        if choice == "float32":
            return precision_as_asked(choice, entries)
        if choice == "int8":
            return in_int8(entries), "int8 (as asked for)"
        from jaxcryo.runtime.openvino import cpu_described, cpu_has_bfloat16  # heavy, and not on every machine

        if choice == "bfloat16":
            if not cpu_has_bfloat16():
                raise InputError("--precision is bfloat16, which this CPU does not compute in; leave it at auto")
            return precision_as_asked(choice, entries)
        floats = where_harmless if cpu_has_bfloat16() else _without_bfloat16
        return where_int8_pays(entries, floats, cpu=cpu_described())

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The ONNX file of the model's precision, compiled for this CPU."""
        if importlib.util.find_spec("openvino") is None:
            raise InputError("OpenVINO is not installed; run pip install openvino, or choose --backend flax")
        from jaxcryo.runtime.openvino import openvino_predict  # heavy to import, and not on every machine

        int8 = entry.int8 if entry.precision == "int8" else None
        return openvino_predict(
            folder / (entry.onnx_file if int8 is None else int8.onnx_file),
            batch=entry.batch,
            classes=entry.model.classes,
            patch_zyx=entry.patch_zyx,
            precision="float32" if entry.precision == "float16" else entry.precision,
        )


def _without_bfloat16(entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
    return in_float32(entries), "float32 (this CPU has no bfloat16)"
