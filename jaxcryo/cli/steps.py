"""Runs as the steps in which workers do them: whole, or shared out in ranges of slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxcryo.cli.picker import PickedRun, RangeTask, RunTask, SurveyTask
from jaxcryo.runtime.workers import Outcome

_PARTS = 100
"""In which the progress of a run that is shared out is told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What one worker is given."""

    task: RunTask
    run: int
    """The index of the run that it is of."""
    share: float = 1.0
    """Of the work that the run is."""
    after: tuple[int, ...] = ()
    """Indices of the steps that come before."""


def steps_of(tasks: Sequence[RunTask]) -> list[Step]:
    """The steps of all runs, those that come before others first.

    Of a run that is shared out the tomogram is gone through first, then come its ranges, then the whole.
    """
    steps: list[Step] = []
    for run, task in enumerate(tasks):
        if task.ranges == 1:
            steps.append(Step(task=task, run=run))
            continue
        survey = len(steps)
        own = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
        steps.append(Step(task=SurveyTask(**own), run=run))
        for index in range(task.ranges):
            steps.append(Step(task=RangeTask(**own, index=index), run=run, share=1 / task.ranges, after=(survey,)))
        steps.append(Step(task=task, run=run, after=tuple(range(survey, len(steps)))))
    return steps


def advance_of_runs(
    steps: Sequence[Step], on_advance: Callable[[int, int, int], None]
) -> Callable[[int, int, int], None]:
    """What is called with the progress of steps, to call `on_advance` with that of runs."""
    shares: dict[int, dict[int, float]] = {}

    def advance(index: int, done: int, total: int) -> None:
        step = steps[index]
        if step.task.ranges == 1:
            on_advance(step.run, done, total)
            return
        own = shares.setdefault(step.run, {})
        own[index] = step.share * done / max(total, 1)
        on_advance(step.run, round(_PARTS * sum(own.values())), _PARTS)

    return advance


def outcomes_of_runs(
    steps: Sequence[Step], outcomes: Iterable[Outcome[PickedRun | None]]
) -> Iterator[Outcome[PickedRun]]:
    """One outcome for each run: of its last step, or of the first that failed."""
    failed: set[int] = set()
    for outcome in outcomes:
        step = steps[outcome.index]
        if step.run in failed:
            continue
        if outcome.failure:
            failed.add(step.run)
            yield Outcome(index=step.run, failure=outcome.failure)
        elif outcome.result is not None:
            yield Outcome(index=step.run, result=outcome.result)
