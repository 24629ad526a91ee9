"""Which precision models are run in; a backend chooses among these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from jaxcryo.calling import command
from jaxcryo.errors import InputError
from jaxcryo.runtime.manifest import Int8Model, ModelEntry

PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]
PRECISIONS: tuple[PrecisionChoice, ...] = ("auto", "float32", "bfloat16", "int8")
MAX_F4_CHANGE = 0.002
"""Change of the weighted F4 on phantoms; bfloat16 that changes it by less is used by default where it is faster."""

MAX_INT8_LOSS = 0.003
"""Loss of the weighted F4 on phantoms; int8 that loses less is used by default where it is faster."""
LEAST_SPEEDUP = 1.1
"""Least speedup over the fastest float precision for int8 by default: less is within the variation of times."""


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


def where_int8_pays(
    entries: Sequence[ModelEntry],
    floats: Callable[[Sequence[ModelEntry]], tuple[tuple[ModelEntry, ...], str]],
    *,
    cpu: str,
) -> tuple[tuple[ModelEntry, ...], str]:
    """int8 for the models that a comparison found as good and faster in it on this CPU, for the others what `floats`
    says; which, and why, for people."""
    if all(e.int8 is None for e in entries):
        return floats(entries)
    against = [_why_not_int8(e.int8, cpu) for e in entries]
    taken = [e.int8 for e, why in zip(entries, against, strict=True) if e.int8 is not None and not why]
    if not taken:
        chosen, told = floats(entries)
        return chosen, f"{told}, not int8 ({'; '.join(dict.fromkeys(against))})"
    measured = (
        f"changes the weighted F4 on phantoms by {min(m.f4_change or 0.0 for m in taken):+.4f}, "
        f"{min(m.speedup for m in taken):.1f} times as fast here"
    )
    if len(taken) == len(entries):
        return tuple(map(_in_int8, entries)), f"int8 ({measured})"
    others, told = floats([e for e, why in zip(entries, against, strict=True) if why])
    rest = iter(others)
    chosen = tuple(next(rest) if why else _in_int8(e) for e, why in zip(entries, against, strict=True))
    names = ", ".join(e.name for e, why in zip(entries, against, strict=True) if not why)
    left = ", ".join(f"{e.name} ({why})" for e, why in zip(entries, against, strict=True) if why)
    return chosen, f"int8: {names} ({measured}); {left} in {told}"


def _why_not_int8(model: Int8Model | None, cpu: str) -> str:
    if model is None:
        return f"no int8 model, see '{command('convert quantize')}'"
    if model.f4_change is None:
        return "finds too little to compare"
    if model.f4_change <= -MAX_INT8_LOSS:
        return f"changes the weighted F4 on phantoms by {model.f4_change:+.4f}"
    if model.cpu != cpu:
        return f"timed on another CPU, {model.cpu}, see '{command('convert check --int8')}'"
    if model.speedup < LEAST_SPEEDUP:
        return f"{model.speedup:.2f} times as fast on this CPU"
    return ""


def in_int8(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """All of them, as asked for.

    Raises:
        InputError: one has no int8 model.
    """
    missing = [e.name for e in entries if e.int8 is None]
    if missing:
        raise InputError(
            f"--precision is int8, but there is no int8 model of {', '.join(missing)}: "
            f"run '{command('convert quantize')}' on the folder first, or leave precision at auto"
        )
    return tuple(map(_in_int8, entries))


def _in_int8(entry: ModelEntry) -> ModelEntry:
    return dataclasses.replace(entry, precision="int8")


def in_bfloat16(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """All of them, as asked for."""
    return tuple(dataclasses.replace(e, precision="bfloat16") for e in entries)


def in_float32(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """A float16 file stays one: other backends than TensorRT compute it in float32."""
    return tuple(dataclasses.replace(e, precision="float32") if e.precision == "bfloat16" else e for e in entries)
