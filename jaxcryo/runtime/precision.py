"""Which precision models are run in on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxcryo.errors import InputError
from jaxcryo.runtime.backends import Runner
from jaxcryo.runtime.manifest import EngineEntry

PrecisionChoice = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[PrecisionChoice, ...] = ("auto", "float32", "bfloat16")
MAX_F4_CHANGE = 0.002
"""Of the weighted F4 on phantoms; bfloat16 that changes it by less is taken unasked where it is faster."""


def choose_precision(
    choice: PrecisionChoice, backend: Runner, entries: Sequence[EngineEntry]
) -> tuple[tuple[EngineEntry, ...], str]:
    """The models, each with the precision that it is to run in, and which that is and why, for people.

    Raises:
        InputError: the backend or this CPU cannot do what was chosen.
    """
    if backend == "tensorrt":
        if choice != "auto":
            raise InputError(
                f"--precision is {choice}, but TensorRT computes as the files say; convert onnx --precision decides "
                "that, or choose another --backend"
            )
        return tuple(entries), " and ".join(sorted({e.precision for e in entries}))
    if backend == "openvino" and choice != "float32":
        from jaxcryo.runtime.openvino import cpu_has_bfloat16  # heavy to import, and not on every machine

        if not cpu_has_bfloat16():
            if choice == "bfloat16":
                raise InputError("--precision is bfloat16, which this CPU does not compute in; leave it at auto")
            return _in_float32(entries), "float32 (this CPU has no bfloat16)"
        if choice == "auto":
            return _harmless_in_bfloat16(entries)
    if choice == "bfloat16":
        return _in_bfloat16(entries), "bfloat16 (as asked for)"
    if choice == "float32":
        return _in_float32(entries), "float32 (as asked for)"
    return tuple(entries), " and ".join(
        sorted({"bfloat16" if e.precision == "bfloat16" else "float32" for e in entries})
    )


def is_harmless(f4_change: float | None) -> bool:
    """Whether a model's change of weighted F4 by bfloat16 is known and small."""
    return f4_change is not None and abs(f4_change) < MAX_F4_CHANGE


def _harmless_in_bfloat16(entries: Sequence[EngineEntry]) -> tuple[tuple[EngineEntry, ...], str]:
    harmless = [is_harmless(e.bfloat16_f4_change) for e in entries]
    chosen = tuple(
        (_in_bfloat16 if fits else _in_float32)([entry])[0] for entry, fits in zip(entries, harmless, strict=True)
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


def _why_not(entry: EngineEntry) -> str:
    change = entry.bfloat16_f4_change
    if change is None:
        return "not compared yet, see 'python -m convert check --bfloat16'"
    return f"changes the weighted F4 on phantoms by {change:+.4f}"


def _in_bfloat16(entries: Sequence[EngineEntry]) -> tuple[EngineEntry, ...]:
    return tuple(dataclasses.replace(e, precision="bfloat16") for e in entries)


def _in_float32(entries: Sequence[EngineEntry]) -> tuple[EngineEntry, ...]:
    """A float16 file stays one: other backends than TensorRT compute it in float32."""
    return tuple(dataclasses.replace(e, precision="float32") if e.precision == "bfloat16" else e for e in entries)
