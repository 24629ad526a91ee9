"""The records of a training: tables, TensorBoard's event files, and pictures."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.files import atomic_path
from jaxcryo.report import draw_picks
from jaxcryo.training.append_log import AppendLog
from jaxcryo.training.run_folder import RunFolder
from jaxcryo.training.tensorboard import EventFile
from jaxcryo.training.validation import Validation

METRICS = ("loss", "loss_positive", "loss_negative", "learning_rate", "gradient_norm", "samples_per_second")
SCORE_DIGITS = 4


class Record:
    """The run folder's tables; rows after the step that a training resumes at are dropped.

    Rows are written at once; on a full disk they wait until `flush`. Of several processes, only the one that `writes`
    writes them.
    """

    def __init__(
        self, folder: RunFolder, types: Sequence[ParticleType], resume_step: int, *, writes: bool = True
    ) -> None:
        self._folder = folder
        self._writes = writes
        self._names = [t.name for t in types]
        columns = ("weighted_f4", "weighted_f4_best", *self._names)
        columns += tuple(f"{name} {what}" for what in ("threshold", "best", "best_threshold") for name in self._names)
        self._metrics = _Table(folder.metrics, ("step", *METRICS))
        self._validation = _Table(folder.validation, ("step", *columns))
        if writes:
            self._metrics.keep_until(resume_step)
            self._validation.keep_until(resume_step)
            self._events = EventFile(folder.tensorboard, resume_step + 1)

    def best_score(self) -> float:
        """The best weighted F4 so far, -1 before the first validation."""
        scores = self._validation.values()
        return float(scores[:, 1].max()) if len(scores) else -1.0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One training step: all of `METRICS`."""
        if not self._writes:
            return
        self._metrics.append([step, *(f"{values[name]:.6g}" for name in METRICS)])
        self._events.scalars(step, {f"train/{name}": values[name] for name in METRICS})

    def validation(self, step: int, result: Validation) -> None:
        """One validation."""
        chosen, best = ([c.f_beta for c in s.counts] for s in (result.chosen, result.best))
        row = [result.chosen.weighted_f4_of_known, result.best.weighted_f4_of_known, *chosen]
        thresholds = [t.threshold for t in result.types]
        self._validation.append(
            [step, *(f"{v:.{SCORE_DIGITS}f}" for v in (*row, *thresholds, *best, *result.best_thresholds))]
        )
        tags = (f"validation/{name}" for name in ("weighted_f4", "weighted_f4_best", *self._names))
        self._events.scalars(step, dict(zip(tags, row, strict=True)))

    def flush(self) -> None:
        """Writes rows that could not be written before.

        Raises:
            OutputError: they still cannot be written.
        """
        if self._writes:
            self._metrics.log.flush()
            self._validation.log.flush()
            self._events.flush()

    def draw(self, volume: Volume, truth: Picks, result: Validation) -> tuple[pathlib.Path, ...]:
        """The curves, and slices of the held-out run with heatmaps, picks and truth; returns the pictures' paths."""
        curves, slices = self._folder.curves, self._folder.picture
        figure = _curves(self._metrics.values(), self._validation.values(), self._names)
        with atomic_path(curves) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
        found = result.picks.above([t.threshold for t in result.types])
        draw_picks(slices, volume, found, truth, result.heatmaps)
        return curves, slices


def _curves(
    metrics: Float[NDArray[np.float64], "n m"], scores: Float[NDArray[np.float64], "v k"], names: Sequence[str]
) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(10, 9), layout="constrained")
    loss, rate, f4 = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 2))
    if len(metrics):
        steps, width = metrics[:, 0], max(len(metrics) // 50, 1)
        loss.plot(steps, metrics[:, 1], color="0.8", linewidth=0.5)
        smooth = np.convolve(metrics[:, 1], np.ones(width) / width, mode="valid")
        loss.plot(steps[width - 1 :], smooth, color="tab:blue", label=f"loss, mean of {width} steps")
        loss.set_yscale("log")
        loss.legend()
        rate.plot(steps, metrics[:, 1 + METRICS.index("learning_rate")], color="tab:orange")
    if len(scores):
        f4.plot(scores[:, 0], scores[:, 1], "k.-", linewidth=2, label="weighted F4")
        for i, name in enumerate(names):
            f4.plot(scores[:, 0], scores[:, 3 + i], ".-", label=name)
        f4.legend(fontsize="small", ncols=2)
    loss.set_ylabel("loss")
    rate.set_ylabel("learning rate")
    f4.set(ylabel="F4 of the held-out run", xlabel="step", ylim=(0, 1))
    return figure


class _Table:
    def __init__(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, columns
        self.log = AppendLog(path)

    def keep_until(self, step: int) -> None:
        """Opens the file, keeping its rows up to a step."""
        rows = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                rows = [r for r in csv.reader(file) if len(r) == len(self._columns) and r[0].isdigit()]
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self._columns)
            writer.writerows(r for r in rows if int(r[0]) <= step)

    def append(self, row: Sequence[object]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(row)
        self.log.add(text.getvalue().encode())

    def values(self) -> Float[NDArray[np.float64], "n m"]:
        if not self._path.exists():
            return np.zeros((0, len(self._columns)))
        with self._path.open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        return np.array(rows, np.float64).reshape(-1, len(self._columns))
