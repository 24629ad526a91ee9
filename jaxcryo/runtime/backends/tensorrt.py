"""Models by TensorRT, on an NVIDIA GPU for which `convert engine` has built engines."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from jaxcryo.errors import InputError
from jaxcryo.runtime.backends.base import Fit, precision_as_asked
from jaxcryo.runtime.cuda import described, jax_gpus
from jaxcryo.runtime.engine_files import find_engine
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import Predict
from jaxcryo.runtime.precision import PrecisionChoice
from jaxcryo.runtime.tensorrt_target import this_machine


class TensorRtBackend:
    """TensorRT, with engines that were built for exactly this kind of card."""

    name = "tensorrt"

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        """Suits if there is a card and an engine of every model."""
        gpus = jax_gpus()
        if not gpus:
            return Fit(suits=False, reason="")
        try:
            target = this_machine()
            for entry in entries:
                find_engine(folder, entry, target)
        except InputError as error:
            return Fit(suits=False, reason=f"{described(gpus)} at hand, but not TensorRT: {error}")
        return Fit(suits=True, reason=f"{described(gpus)} and TensorRT {target.tensorrt} at hand")

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        """The precision of the files."""
        if choice == "int8":
            return precision_as_asked(choice, entries)
        if choice != "auto":
            raise InputError(
                f"--precision is {choice}, but TensorRT computes as the files say; convert onnx --precision decides "
                "that, or choose another --backend"
            )
        return tuple(entries), " and ".join(sorted({e.precision for e in entries}))

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The model's engine, on the first card."""
        path = find_engine(folder, entry, this_machine())
        from jaxcryo.runtime.tensorrt import tensorrt_predict  # where there is a GPU only

        return tensorrt_predict(path, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx)
