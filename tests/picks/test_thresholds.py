"""Thresholds from a file replace those of the types that it names."""

from __future__ import annotations

import pathlib

import pytest

from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.picks.thresholds import read_thresholds, with_thresholds


def test_named_types_get_them_and_others_keep_theirs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "t.json").write_text('{"ribosome": 0.65, "apo-ferritin": 1}')
    types = with_thresholds(CZII_TYPES, read_thresholds(tmp_path / "t.json"))
    assert [t.threshold for t in types] == [1.0, 0.3, 0.65, 0.3, 0.3, 0.3]
    assert [(t.name, t.weight, t.color) for t in types] == [(t.name, t.weight, t.color) for t in CZII_TYPES]


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        InputError, match="thresholds of actin, ribosom; the types are apo-ferritin, beta-galactosidase"
    ):
        with_thresholds(CZII_TYPES, {"ribosom": 0.5, "actin": 0.5, "ribosome": 0.5})


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"ribosome": null}', '{"ribosome": Infinity}', "\x00"])
def test_what_holds_no_thresholds_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=r"t\.json: "):
        read_thresholds(tmp_path / "t.json")
