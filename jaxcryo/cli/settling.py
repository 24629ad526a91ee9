"""What the thresholds over all tomograms change of one run after the other, in whatever process."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

from jaxcryo.cli.deciding import facts_of
from jaxcryo.cli.pages import page_path
from jaxcryo.cli.picker import RunTask
from jaxcryo.errors import InputError
from jaxcryo.page import change_thresholds
from jaxcryo.picking.thresholds import Decision
from jaxcryo.picks.candidates import read_candidates
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.report import draw_picks
from jaxcryo.runtime.workers import Listener, Work
from jaxcryo.tomogram.volumes import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settling:
    """What is the same for all runs."""

    out: pathlib.Path
    reading: Reading
    decision: Decision


def open_settling(settling: Settling) -> Work[RunTask, int]:
    """A function that writes the picks of a run anew, tells its page, draws its picture, and gives their number.

    A picture that cannot be drawn, since the tomogram cannot be read, is a note. The function raises InputError where
    candidates or a page cannot be read, or a file cannot be written.
    """
    out, decision = settling.out, settling.decision

    def settle(task: RunTask, listener: Listener) -> int:
        name = task.run.name
        candidates = read_candidates(out, decision.types, [name]).get(name)
        if candidates is None:
            raise InputError(f"{out}: the candidates of {name} are gone; give the same command again")
        picks = decision.select(candidates)
        write_copick_picks(picks, out)
        page = page_path(out, name)
        if page.is_file():
            thresholds = {t.name: t.threshold for t in decision.types}
            chances = decision.with_probabilities(candidates)
            change_thresholds(page, thresholds, {"Thresholds": facts_of(decision, [picks])}, chances)
        with warnings.catch_warnings():  # all was said when it was picked
            warnings.simplefilter("ignore", UserWarning)
            try:
                volume = settling.reading.open(task.run.volume_path, name)
                draw_picks(out / "pictures" / f"{name}.png", volume, picks, task.truth)
            except InputError as error:  # the picks are written, and count
                listener.note(f"{name}: its picture still shows the picks at the models' own thresholds: {error}")
        return len(picks)

    return settle
