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
    """Whether a backend is the one to take on this machine, among those that were not asked yet."""

    suits: bool
    reason: str
    """For people. Why not, where it does not suit: empty if nobody would have expected it to."""


class Backend(Protocol):
    """A way to run converted models. Asking it anything must neither start JAX nor import what is not installed."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""

    def fit(self, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> Fit:
        """Whether it can run these models here and is a good choice."""

    def precision(self, choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
        """The models, each with the precision that it is to run in, and which that is and why, for people.

        Raises:
            InputError: it cannot compute in what was chosen, on this machine.
        """

    def open(self, folder: pathlib.Path, entry: ModelEntry) -> Predict:
        """The network of a model, ready to run.

        Raises:
            InputError: it cannot be run here, or its files cannot be used; the message says what to do.
        """


def precision_as_asked(choice: PrecisionChoice, entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
    """For backends that compute in float32 and bfloat16 alike: what was asked for, or the models' own."""
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
