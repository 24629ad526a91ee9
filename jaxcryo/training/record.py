"""What a training leaves to look at: metrics.csv, validation.csv, and a picture of both."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from jaxcryo.domain import ParticleType
from jaxcryo.io.atomic import atomic_path
from jaxcryo.training.validation import Validation

_METRICS = ("step", "loss", "learning_rate", "gradient_norm", "samples_per_second")


class Record:
    """Appends rows to the run folder's tables; rows from beyond the step that a training resumes at are dropped."""

    def __init__(self, folder: pathlib.Path, types: Sequence[ParticleType], resume_step: int) -> None:
        self._folder = folder
        self._names = [t.name for t in types]
        self._metrics = _Table(folder / "metrics.csv", _METRICS, resume_step)
        self._validation = _Table(
            folder / "validation.csv", ("step", "weighted_f4", "weighted_f4_best", *self._names), resume_step
        )

    def step(self, step: int, loss: float, rate: float, norm: float, speed: float) -> None:
        """One training step."""
        self._metrics.append([step, f"{loss:.6g}", f"{rate:.6g}", f"{norm:.4g}", f"{speed:.4g}"])

    def validation(self, step: int, result: Validation) -> None:
        """One validation."""
        scores = [f"{c.f_beta:.4f}" for c in result.chosen.counts]
        self._validation.append([step, f"{result.chosen.weighted_f4:.4f}", f"{result.best.weighted_f4:.4f}", *scores])

    def draw(self) -> pathlib.Path:
        """The curves of loss, learning rate and F4; returns the picture's path."""
        metrics, scores = self._metrics.values(), self._validation.values()
        figure = matplotlib.figure.Figure(figsize=(10, 9), layout="constrained")
        loss, rate, f4 = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 2))
        if len(metrics):
            steps = metrics[:, 0]
            loss.plot(steps, metrics[:, 1], color="0.8", linewidth=0.5)
            width = max(len(steps) // 50, 1)
            smooth = np.convolve(metrics[:, 1], np.ones(width) / width, mode="valid")
            loss.plot(steps[width - 1 :], smooth, color="tab:blue", label=f"loss, mean of {width} steps")
            loss.set_yscale("log")
            loss.legend()
            rate.plot(steps, metrics[:, 2], color="tab:orange")
        if len(scores):
            f4.plot(scores[:, 0], scores[:, 1], "k.-", linewidth=2, label="weighted F4")
            for i, name in enumerate(self._names):
                f4.plot(scores[:, 0], scores[:, 3 + i], ".-", label=name)
            f4.legend(fontsize="small", ncols=2)
        loss.set_ylabel("loss")
        rate.set_ylabel("learning rate")
        f4.set(ylabel="F4 of the held-out run", xlabel="step", ylim=(0, 1))
        path = self._folder / "curves.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
        return path


class _Table:
    def __init__(self, path: pathlib.Path, columns: Sequence[str], resume_step: int) -> None:
        self._path = path
        rows = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [r for r in csv.reader(file) if len(r) == len(columns) and r[0].isdigit()]
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(r for r in rows if int(r[0]) <= resume_step)

    def append(self, row: Sequence[object]) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow(row)

    def values(self) -> np.ndarray:
        return np.genfromtxt(self._path, delimiter=",", skip_header=1, ndmin=2)
