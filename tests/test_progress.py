"""A bar on a terminal, lines at growing intervals elsewhere."""

import io

import pytest

from jaxcryo import progress
from jaxcryo.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Seconds that a test moves on."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    own = Clock()
    monkeypatch.setattr("tqdm.std.time", own)
    monkeypatch.setattr(progress.Progress, "monitor_interval", 0)
    return own


def test_off_a_terminal_lines_grow_rarer(clock) -> None:
    file = io.StringIO()
    with Progress(total=3600, unit="step", desc="training", file=file) as bar:
        for _ in range(3600):
            clock.now += 1
            bar.update()
            bar.set_postfix_str("loss 1")
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue()
    assert 8 <= len(lines) <= 20  # an hour; 29 kB were written in 2.6 minutes before
    done = [int(line.split(", ")[1].split()[0]) for line in lines]
    assert done[0] == 10 and done[-1] == 3600 and done == sorted(set(done))
    assert "3600 of 3600 steps" in lines[-1] and "loss 1" in lines[-1]


def test_what_is_over_soon_leaves_no_line(clock) -> None:
    file = io.StringIO()
    for _ in Progress(range(5), file=file):
        clock.now += 1
    assert file.getvalue() == ""


def test_a_terminal_gets_a_bar(clock) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    with Progress(total=10, file=file) as bar:
        clock.now += 5
        bar.update(5)
    assert "\r" in file.getvalue() and "5/10" in file.getvalue()
