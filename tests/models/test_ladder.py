"""The parity ladder: every rung within its stated tolerance (golden/rungs.py; `python tests/golden/ladder.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from golden.rungs import LADDER, Rung

LONG = ("encoder_stages", "network", "decoder_block", "bottleneck")


@pytest.mark.parametrize(
    "measure",
    [pytest.param(m, marks=[pytest.mark.slow] * (m.__name__ in LONG)) for m in LADDER],
    ids=lambda m: m.__name__,
)
def test_every_rung_is_within_its_tolerance(measure: Callable[[], Iterator[Rung]]) -> None:
    rungs = list(measure())
    assert rungs
    assert not [r for r in rungs if not r.error <= r.tolerance]
