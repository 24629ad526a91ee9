"""What a batch gave: its counts are those of the picks, and tomograms unlike the others are named."""

from __future__ import annotations

import json
import pathlib

import matplotlib.image
import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.picks.overview import Overview, overview_of
from jaxcryo.report import draw_overview

TYPES = CZII_TYPES[:3]


def batch(*counts: tuple[int, int, int], chance: float | None = 0.5) -> Overview:
    found = {}
    for number, of_types in enumerate(counts):
        index = np.repeat(np.arange(3), of_types)
        found[f"TS_{number}"] = Picks(
            run=f"TS_{number}",
            types=TYPES,
            xyz_angstrom=np.zeros((len(index), 3)),
            type_index=index,
            score=np.ones(len(index)),
            probability=None if chance is None else np.full(len(index), chance),
        )
    return overview_of(found, TYPES)


def test_counts_and_expectations_are_those_of_the_picks() -> None:
    plain = json.loads(json.dumps(batch((4, 0, 2), (1, 3, 0)).to_plain()))
    names = [t.name for t in TYPES]
    assert plain["runs"]["TS_0"] == {
        "picks": dict(zip(names, (4, 0, 2), strict=True)),
        "expected_right": dict(zip(names, (2.0, 0.0, 1.0), strict=True)),
    }
    assert plain["thresholds"] == {t.name: t.threshold for t in TYPES} and plain["outliers"] == []
    assert batch((1, 1, 1), chance=None).to_plain()["runs"]["TS_0"]["expected_right"] is None


@pytest.mark.parametrize("strange", [0, 2, 4])
def test_one_unlike_the_others_is_named_once_wherever_it_stands(strange: int) -> None:
    counts = [(40, 30, 20)] * 4
    counts.insert(strange, (2, 1, 0))
    (outlier,) = batch(*counts).outliers
    assert (outlier.run, outlier.type, outlier.count, outlier.median) == (f"TS_{strange}", None, 3, 90.0)
    assert "3 picks" in str(outlier) and "90" in str(outlier)


def test_one_type_alone_and_too_many_are_named() -> None:
    ordinary = [(40, 30, 20)] * 3
    (few,) = batch(*ordinary, (40, 3, 20)).outliers
    assert (few.run, few.type, few.count) == ("TS_3", TYPES[1].name, 3)
    (many,) = batch(*ordinary, (900, 30, 20)).outliers  # ten times as many in all
    assert (many.run, many.type, many.count) == ("TS_3", None, 950)


def test_chance_and_small_batches_name_nobody() -> None:
    assert not batch((40, 30, 20), (40, 30, 20), (0, 0, 0)).outliers  # which of three is strange?
    assert not batch(*[(40, 9, 20)] * 4, (40, 0, 20)).outliers  # nine may be none by chance
    assert not batch(*[(40, 30, 20)] * 4, (5, 4, 3)).outliers  # less than ten times


@pytest.mark.slow
def test_it_is_drawn_however_many_there_are(tmp_path: pathlib.Path) -> None:
    heights = []
    for count in (1, 5, 200):
        draw_overview(tmp_path / "all.png", batch(*[(40, 30, 20)] * (count - 1), (0, 1, 0)))
        heights.append(matplotlib.image.imread(tmp_path / "all.png").shape[0])
    assert heights[0] < heights[1] < heights[2] < 3000
