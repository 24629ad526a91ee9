"""Which precision models are run in; a backend chooses among these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxcryo.calling import command
from jaxcryo.runtime.manifest import ModelEntry

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[PrecisionChoice, ...] = ("auto", "float32", "bfloat16")
MAX_F4_CHANGE = 0.002
"""Of the weighted F4 on phantoms; bfloat16 that changes it by less is taken unasked where it is faster."""


def is_harmless(f4_change: float | None) -> bool:
    """Whether a model's change of weighted F4 by bfloat16 is known and small."""
    return f4_change is not None and abs(f4_change) < MAX_F4_CHANGE


def where_harmless(entries: Sequence[ModelEntry]) -> tuple[tuple[ModelEntry, ...], str]:
    """bfloat16 for the models that a comparison found as good in it; which, and why, for people."""
    harmless = [is_harmless(e.bfloat16_f4_change) for e in entries]
    chosen = tuple(
        (in_bfloat16 if fits else in_float32)([entry])[0] for entry, fits in zip(entries, harmless, strict=True)
    )
    changes = [abs(e.bfloat16_f4_change or 0.0) for e, fits in zip(entries, harmless, strict=True) if fits]
    told = f"changes the weighted F4 on phantoms by {max(changes, default=0.0):.4f} at most"
    if all(harmless):
        return chosen, f"bfloat16 ({told})"
    rest = [_why_not(e) for e, fits in zip(entries, harmless, strict=True) if not fits]
    if not any(harmless):
        return chosen, f"float32 (bfloat16: {'; '.join(dict.fromkeys(rest))})"
    names = ", ".join(e.name for e, fits in zip(entries, harmless, strict=True) if fits)
    others = ", ".join(f"{e.name} ({_why_not(e)})" for e, fits in zip(entries, harmless, strict=True) if not fits)
    return chosen, f"bfloat16: {names} ({told}), and in float32: {others}"


def _why_not(entry: ModelEntry) -> str:
    change = entry.bfloat16_f4_change
    if change is None:
        return f"not compared yet, see '{command('convert check --bfloat16')}'"
    return f"changes the weighted F4 on phantoms by {change:+.4f}"


def in_bfloat16(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """All of them, as asked for."""
    return tuple(dataclasses.replace(e, precision="bfloat16") for e in entries)


def in_float32(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """A float16 file stays one: other backends than TensorRT compute it in float32."""
    return tuple(dataclasses.replace(e, precision="float32") if e.precision == "bfloat16" else e for e in entries)
