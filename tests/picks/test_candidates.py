"""Candidates come back as they were, to the last bit."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.candidates import FLOOR, floor_of, read_candidates, write_candidates


def picks_of(run: str, n: int) -> Picks:
    rng = np.random.default_rng(n)
    return Picks(
        run=run,
        types=CZII_TYPES,
        xyz_angstrom=rng.uniform(0, 6000, (n, 3)),
        type_index=np.sort(rng.integers(0, 6, n)),
        score=rng.uniform(0.05, 1, n).astype(np.float32).astype(np.float64),
    )


def test_there_and_back(tmp_path: pathlib.Path) -> None:
    written = {run: picks_of(run, n) for run, n in (("TS_1", 300), ("TS_2", 0))}
    for picks in written.values():
        write_candidates(picks, tmp_path)
    found = read_candidates(tmp_path, CZII_TYPES, ["TS_1", "TS_2", "TS_3"])
    assert set(found) == {"TS_1", "TS_2"}
    for run, picks in found.items():
        np.testing.assert_array_equal(picks.xyz_angstrom, written[run].xyz_angstrom)
        np.testing.assert_array_equal(picks.type_index, written[run].type_index)
        np.testing.assert_array_equal(picks.score, written[run].score)


def test_no_threshold_is_below_the_floor() -> None:
    assert floor_of(CZII_TYPES) == FLOOR < min(t.threshold for t in CZII_TYPES)
    low = (*CZII_TYPES, dataclasses.replace(CZII_TYPES[0], name="faint", threshold=0.01))
    assert floor_of(low) == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,particle,x,y,z,score\nTS_2,ribosome,1,2,3,0.5\n", "holds picks of TS_2; expected TS_1 alone"),
        ("run,particle,x,y,z,score\nTS_1,ribosome,1,2,3,\n", "not every candidate has a score"),
        ("run,particle,x,y,z,score\nTS_1,actin,1,2,3,0.5\n", "unknown particle 'actin'"),
        ("run,particle,x", "TS_1.csv"),
    ],
)
def test_other_files_are_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "TS_1.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_candidates(tmp_path, CZII_TYPES, ["TS_1"])
