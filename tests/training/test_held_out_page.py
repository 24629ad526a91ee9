"""The page of the held-out run is that of the last validation."""

from __future__ import annotations

import base64
import json
import pathlib
import re
from collections.abc import Callable

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float

from jaxcryo.runtime.opened import OpenModel
from jaxcryo.training import held_out_page
from jaxcryo.training.held_out_page import HeldOutPage
from jaxcryo.training.run_folder import RunDescription, RunFolder
from jaxcryo.training.validation import validate


@pytest.mark.slow
def test_each_validation_replaces_the_page(config, examples, tmp_path: pathlib.Path, monkeypatch) -> None:
    drawn: list[str] = []
    draw: Callable[..., object] = held_out_page.slice_images
    monkeypatch.setattr(held_out_page, "slice_images", lambda volume: drawn.append(volume.name) or draw(volume))
    volume, truth = examples[1].volume, examples[1].picks
    types = truth.types
    description = RunDescription(
        config=config,
        types=types,
        fold=1,
        train_runs=(examples[0].volume.name,),
        held_out=volume.name,
        spacing_angstrom=volume.grid.spacing_angstrom,
        steps=2,
    )
    page = HeldOutPage(folder=RunFolder(tmp_path), description=description, volume=volume, truth=truth)
    for step in (1, 2):

        def predict(windows: Float[Array, "b d h w"], step: int = step) -> Float[Array, "b c d h w"]:
            return jnp.stack([windows / (i + step + 1) for i in range(len(types))], axis=1)

        engine = OpenModel(
            name="fake",
            patch_zyx=(16, 32, 32),
            stride_zyx=(8, 16, 16),
            batch=4,
            classes=len(types),
            predict=predict,
            intensity=config.intensity,
        )
        overlay = page.overlay()
        result = validate(engine, volume, truth, types, config, on_slab=overlay.add)
        page.write(step, result, overlay, seconds=1.0)
        content = content_of(tmp_path / "report.html")
        assert content["run"] == volume.name and content["known"]
        assert content["record"]["Validation"]["step"] == str(step)
        assert [t["threshold"] for t in content["types"]] == pytest.approx([t.threshold for t in result.types])
        assert sum(t["left_out"] + len(base64.b64decode(t["picks"]["score"])) // 8 for t in content["types"]) == len(
            result.picks
        )
        assert content["overlay"]["count"] == content["slices"]["count"] == volume.grid.shape_zyx[0]
    assert drawn == [volume.name], "the slices are the same at every validation"


def content_of(path: pathlib.Path) -> dict:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text())
    assert found
    return json.loads(found[1])
