"""What a backend is: a way to run converted models."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol

from jaxcryo.errors import InputError
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import Predict
from jaxcryo.runtime.precision import PRECISIONS, PrecisionChoice, in_bfloat16, in_float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a backend suits this machine; the first that does is used."""

    suits: bool
    reason: str
    """In words. If it does not suit, why not; empty if nobody would have expected it to."""


class Backend(Protocol):
    """A way to run converted models. Except in `open`, it must neither start JAX nor import what may be missing."""

    @property
    def name(self) -> str:
        """Its name for `--backend`."""

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        """Whether it can run these models here and is a good choice."""

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        """The models, each with the precision that it will run in, and a phrase on which and why.

        Raises:
            InputError: it cannot compute in what was chosen, on this machine.
        """

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The network of a model, ready to run.

        Raises:
            InputError: it cannot be run here, or its files cannot be used; the message says what to do.
        """


def precision_as_asked(choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
    """For backends that compute in both float32 and bfloat16: the requested precision, or the models' own."""
    match choice:
        case "bfloat16":
            return in_bfloat16(entries), "bfloat16 (as asked for)"
        case "float32":
            return in_float32(entries), "float32 (as asked for)"
        case "auto":
            own = sorted({"bfloat16" if e.precision == "bfloat16" else "float32" for e in entries})
            return tuple(entries), " and ".join(own)
        case "int8":
            raise InputError(
                "--precision is int8, which only the OpenVINO backend computes: choose --backend openvino, or leave "
                "precision at auto"
            )
    raise InputError(f"--precision is {choice}; expected one of {', '.join(PRECISIONS)}")
