"""A training leaves the page of its last validation, with the picks and thresholds of that."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

import pytest

from jaxcryo.training import loop
from jaxcryo.training.checkpoint import RunDescription
from jaxcryo.training.loop import Length, fit
from jaxcryo.weights import load_model


def test_the_page_is_that_of_the_last_validation(config, examples, tmp_path: pathlib.Path, monkeypatch) -> None:
    drawn: list[str] = []
    whole = loop.HeldOutPage._slices.func  # type: ignore[attr-defined]
    monkeypatch.setattr(loop.HeldOutPage._slices, "func", lambda page: drawn.append("once") or whole(page))
    description = RunDescription(
        config=dataclasses.replace(config, validate_every_epochs=0.01),
        types=examples[0].picks.types,
        fold=1,
        train_runs=(examples[0].volume.name,),
        held_out=examples[1].volume.name,
        spacing_angstrom=examples[0].volume.grid.spacing_angstrom,
        steps=2,
    )
    outcome = fit(
        examples[:1], examples[1], description, tmp_path, length=Length(steps=2), save_every_seconds=1e9,
        say=lambda _: None,
    )  # fmt: skip
    path = tmp_path / "report.html"
    assert path in outcome.files
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text())
    assert found
    content = json.loads(found[1])
    assert content["run"] == "PH_001" and content["known"]
    assert content["record"]["Validation"]["step"] == "2"
    types = load_model(tmp_path / "last.safetensors").types
    assert [t["threshold"] for t in content["types"]] == pytest.approx([t.threshold for t in types])
    assert content["overlay"]["count"] == content["slices"]["count"] == examples[1].volume.grid.shape_zyx[0]
    assert drawn == ["once"], "slices of the held-out run are drawn once in a training"
