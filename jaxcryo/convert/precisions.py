"""Whether a model picks as well in another precision as in float32, and how fast it is in each.

Phantoms are picked by the whole pipeline, with OpenVINO.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxcryo.convert.comparison import phantom_windows
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.metric import Score, score
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.runtime.backends import open_model
from jaxcryo.runtime.manifest import Int8Model, ModelEntry, RunPrecision, read_manifest, write_manifest
from jaxcryo.runtime.openvino import cpu_described, cpu_has_bfloat16
from jaxcryo.runtime.precision import MAX_F4_CHANGE, MAX_INT8_LOSS, in_int8, is_harmless

LEAST_F4 = 0.1
"""Below it a model finds too little for a comparison to mean anything."""
# Far from the seeds of trainings and demos, so that a model has not seen these phantoms.
_SEED = 71_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickedPhantoms:
    """What a model found in all phantoms in one precision."""

    score: Score
    found: Mapping[str, Picks]
    seconds: float
    """Duration of the picking, including the first compilation."""

    @property
    def picks(self) -> int:
        """Number of picks in all phantoms."""
        return sum(map(len, self.found.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionComparison:
    """A model in float32 and in another precision on the same phantoms."""

    model: str
    precision: RunPrecision
    float32: PickedPhantoms
    other: PickedPhantoms

    @property
    def change(self) -> float | None:
        """The change of the weighted F4; None if the model finds too little to tell."""
        before, after = self.float32.score.weighted_f4, self.other.score.weighted_f4
        return None if before < LEAST_F4 else after - before

    @property
    def agreement(self) -> float:
        """The share of both sets of picks with a pick of the same type near it in the other set; 1 if there are none.

        Near means as near as the score requires of a pick.
        """
        counts = score(self.float32.found, self.other.found, self.float32.score.types).counts
        both, either = sum(c.true_positive for c in counts), sum(c.truth + c.found for c in counts)
        return 2 * both / either if either else 1.0

    @property
    def is_good(self) -> bool:
        """Whether it picks as well in this precision, by the precision's own limit."""
        if self.precision == "int8":
            return self.change is not None and self.change > -MAX_INT8_LOSS
        return is_harmless(self.change)

    @property
    def verdict(self) -> str:
        """The conclusion in words."""
        if self.change is None:
            return f"finds too little to tell (F4 below {LEAST_F4})"
        if not self.is_good:
            return "float32 will be used"
        return f"{self.precision} will be used{' where it is faster' * (self.precision == 'int8')}"


def phantoms_for(entry: ModelEntry, count: int, shape_zyx: tuple[int, int, int]) -> Iterator[tuple[Volume, Picks]]:
    """Tomograms of the entry's particles at its voxel spacing, with the truth; always the same ones."""
    config = PhantomConfig(shape_zyx=shape_zyx, spacing_angstrom=entry.spacing_angstrom, types=entry.types)
    for number in range(count):
        yield make_phantom(config, seed=_SEED + number, name=f"phantom {number}")


def in_precision(entry: ModelEntry, precision: RunPrecision) -> ModelEntry:
    """The model, set to run in this precision.

    Raises:
        InputError: this CPU has no bfloat16, or the model no int8 file.
    """
    if precision == "int8":
        return in_int8([entry])[0]
    if precision == "bfloat16" and not cpu_has_bfloat16():
        raise InputError("this CPU does not compute in bfloat16, so nothing can be measured here; leave out --bfloat16")
    return dataclasses.replace(entry, precision=precision)


def pick_phantoms(
    folder: pathlib.Path,
    entries: Sequence[ModelEntry],
    phantoms: Iterable[tuple[Volume, Picks]],
    *,
    on_search: Callable[[], object] = lambda: None,
) -> tuple[PickedPhantoms, ...]:
    """One model in several precisions.

    Raises:
        InputError: a precision cannot be run here, or the phantoms are smaller than the model's window.
    """
    models = [open_model(folder, entry, "openvino") for entry in entries]
    truth: dict[str, Picks] = {}
    found: list[dict[str, Picks]] = [{} for _ in entries]
    seconds = [0.0] * len(entries)
    for volume, picks in phantoms:
        truth[volume.name] = picks
        for i, (entry, model) in enumerate(zip(entries, models, strict=True)):
            began = time.monotonic()
            found[i][volume.name] = find_picks(volume, [model], entry.types, config=entry.inference)
            seconds[i] += time.monotonic() - began
            on_search()
    return tuple(
        PickedPhantoms(score=score(truth, f, entries[0].types), found=f, seconds=s)
        for f, s in zip(found, seconds, strict=True)
    )


def compare_precisions(
    folder: pathlib.Path,
    entry: ModelEntry,
    phantoms: Iterable[tuple[Volume, Picks]],
    precision: RunPrecision,
    *,
    on_search: Callable[[], object] = lambda: None,
) -> PrecisionComparison:
    """One model in float32 and in another precision; raises as `in_precision` and `pick_phantoms` do."""
    pair = (in_precision(entry, "float32"), in_precision(entry, precision))
    wide, other = pick_phantoms(folder, pair, phantoms, on_search=on_search)
    return PrecisionComparison(model=entry.name, precision=precision, float32=wide, other=other)


def seconds_per_window(
    folder: pathlib.Path, entry: ModelEntry, precisions: Sequence[RunPrecision], *, repeats: int = 7
) -> dict[RunPrecision, float]:
    """The model's time in each precision: medians over batches that take turns, so that other load on the
    machine affects all alike."""
    windows = jnp.asarray(phantom_windows(entry, entry.batch))
    models = {p: open_model(folder, in_precision(entry, p), "openvino") for p in precisions}
    times: dict[RunPrecision, list[float]] = {p: [] for p in precisions}
    for repeat in range(repeats + 1):
        for precision, model in models.items():
            began = time.perf_counter()
            jax.block_until_ready(model.predict(windows))
            if repeat:  # the first one compiles
                times[precision].append(time.perf_counter() - began)
    return {p: statistics.median(t) / entry.batch for p, t in times.items()}


def milliseconds(seconds: Mapping[RunPrecision, float]) -> str:
    """In words, such as `float32 12.3 ms, int8 7.1 ms`."""
    return ", ".join(f"{precision} {1e3 * s:.1f} ms" for precision, s in seconds.items())


def float_precisions() -> tuple[RunPrecision, ...]:
    """The precisions that this CPU computes in."""
    return ("float32", "bfloat16") if cpu_has_bfloat16() else ("float32",)


def measured(int8: Int8Model, comparison: PrecisionComparison, seconds: Mapping[RunPrecision, float]) -> Int8Model:
    """The int8 model with what was measured on this machine; `seconds` has those of every precision."""
    return dataclasses.replace(
        int8,
        f4_change=comparison.change,
        agreement=comparison.agreement,
        cpu=cpu_described(),
        speedup=min(s for p, s in seconds.items() if p != "int8") / seconds["int8"],
    )


def record(folder: pathlib.Path, entry: ModelEntry) -> None:
    """Writes what was measured of a model into the manifest, for inference to choose by."""
    write_manifest(folder, [entry if e.name == entry.name else e for e in read_manifest(folder)])


def precision_rows(comparisons: Sequence[PrecisionComparison]) -> list[tuple[str, ...]]:
    """A table's heading and a row for each comparison."""
    rows: list[tuple[str, ...]] = [
        ("model", "precision", "weighted F4 float32", "in it", "change", "limit", "picks", "agree", "seconds", "")
    ]
    for c in comparisons:
        rows.append(
            (
                c.model,
                c.precision,
                f"{c.float32.score.weighted_f4:.4f}",
                f"{c.other.score.weighted_f4:.4f}",
                "" if c.change is None else f"{c.change:+.4f}",
                f"-{MAX_INT8_LOSS:g}" if c.precision == "int8" else f"{MAX_F4_CHANGE:g}",
                f"{c.float32.picks} / {c.other.picks}",
                f"{c.agreement:.1%}",
                f"{c.float32.seconds:.1f} / {c.other.seconds:.1f}",
                c.verdict,
            )
        )
    return rows
