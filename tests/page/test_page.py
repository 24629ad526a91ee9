"""The file: whole, alone, and closed to whatever names come in."""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from jaxcryo.domain import ParticleType, Picks, VoxelGrid
from jaxcryo.page import IndexRow, write_index, write_page
from jaxcryo.page.content import MAX_PICKS, colors, types_content

EVIL = "</script><script>alert(1)</script>&\"' \u2028"


def content_of(path: pathlib.Path) -> Any:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text())
    assert found
    return json.loads(found[1])


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f8")


def test_nothing_is_fetched(world) -> None:
    text = world.path.read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"<link|<img|<iframe|@import|\bsrc=|\bimport\(|fetch\(|XMLHttpRequest|WebSocket", text)
    assert "default-src 'none'" in text


def test_every_image_is_there_once(world) -> None:
    text = world.path.read_text()
    for name, images in (("slice", world.page.slices.jpegs), ("heat", world.page.overlay.pngs)):
        found = re.findall(rf'<script type="text/plain" id="{name}-(\d+)">([^<]*)</script>', text)
        assert [int(i) for i, _ in found] == list(range(len(images)))
        assert [base64.b64decode(data) for _, data in found] == list(images)


def test_picks_and_truth_come_through_exactly(world) -> None:
    content = content_of(world.path)
    assert [t["threshold"] for t in content["types"]] == [t.threshold for t in world.page.types]
    for index, own in enumerate(content["types"]):
        mine = world.picks.select(world.picks.type_index == index)
        np.testing.assert_array_equal(unpacked(own["picks"]["xyz_angstrom"]).reshape(-1, 3), mine.xyz_angstrom)
        np.testing.assert_array_equal(unpacked(own["picks"]["score"]), mine.score)
        truth = world.truth.of_type(index)
        np.testing.assert_array_equal(unpacked(own["truth"]["xyz_angstrom"]).reshape(-1, 3), truth)
        voxels = unpacked(own["truth"]["zyx_voxel"]).reshape(-1, 3)
        np.testing.assert_allclose(world.page.grid.to_angstrom(voxels), truth)


def test_names_end_no_element(world, tmp_path) -> None:
    types = (ParticleType(name=EVIL.replace("/", "|"), radius_angstrom=60), *world.page.types[1:])
    page = dataclasses.replace(world.page, run=EVIL, types=types, record={EVIL: {EVIL: EVIL}}, commands=((EVIL, EVIL),))
    write_page(tmp_path / "a.html", page)
    text = (tmp_path / "a.html").read_text()
    assert text.count("</script>") == world.path.read_text().count("</script>")
    assert "alert(1)</script>" not in text
    content = content_of(tmp_path / "a.html")
    assert content["run"] == EVIL and content["record"] == {EVIL: {EVIL: EVIL}}


def test_of_too_many_picks_the_best_are_shown() -> None:
    n = MAX_PICKS + 700
    kind = ParticleType(name="dust", radius_angstrom=60)
    score = np.random.default_rng(0).uniform(0.05, 1, n)
    picks = Picks(
        run="TS_1", types=(kind,), xyz_angstrom=np.zeros((n, 3)), type_index=np.zeros(n, np.int64), score=score
    )
    grid = VoxelGrid(shape_zyx=(9, 9, 9), spacing_zyx_angstrom=(10.0,) * 3)
    (own,) = types_content((kind,), picks, None, grid, 0.05)
    shown = unpacked(own["picks"]["score"])
    np.testing.assert_array_equal(shown, np.sort(score)[::-1][:MAX_PICKS])
    assert own["left_out"] == 700
    # What is above the lowest threshold is all here.
    assert np.count_nonzero(score > own["lowest"]) == np.count_nonzero(shown > own["lowest"])
    assert shown[-1] <= own["lowest"] <= shown[-1] + 0.001


def test_types_are_told_apart_by_color() -> None:
    same = [ParticleType(name=n, radius_angstrom=60) for n in ("a", "b", "c")]
    assert len(set(colors(same))) == 3
    own = [dataclasses.replace(t, color=(i, 0, 0)) for i, t in enumerate(same)]
    assert colors(own) == [t.color for t in own]


def test_the_index_links_every_run(world, tmp_path) -> None:
    rows = [
        IndexRow(run=EVIL, file_name="a #1%.html", counts=(1, 2, 3), weighted_f4=0.5),
        IndexRow(run="TS_2", file_name="TS_2.html", counts=(0, 0, 0), weighted_f4=None),
    ]
    write_index(tmp_path / "index.html", world.page.types, rows)
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r'href="([^"]*)"', text) == ["a%20%231%25.html", "TS_2.html"]
    assert "<script" not in text and "<td>0.500</td>" in text and "<td>–</td>" in text


@pytest.mark.parametrize("missing", ["overlay", "truth"])
def test_what_is_not_known_is_left_out(world, tmp_path, missing: str) -> None:
    write_page(tmp_path / "a.html", dataclasses.replace(world.page, **{missing: None}))
    content = content_of(tmp_path / "a.html")
    assert (content["overlay"] is None) == (missing == "overlay")
    assert content["known"] == (missing != "truth")
