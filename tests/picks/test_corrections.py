"""Corrections change what was decided about and nothing else, and an edited layer of napari is the same as them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from unittest import mock

import numpy as np
import pytest

from jaxcryo.cli.napari_view import add_layers
from jaxcryo.cli.picks import main
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picks.candidates import write_candidates
from jaxcryo.picks.copick_json import read_copick_folder, write_copick_picks
from jaxcryo.picks.corrections import (
    ROUNDED_ANGSTROM,
    Corrections,
    Decision,
    Region,
    corrected,
    corrections_between,
    read_corrections,
    write_corrections,
)
from jaxcryo.picks.formats import format_of, write_picks
from jaxcryo.picks.geometry import Geometries, TomogramGeometry
from jaxcryo.serialize import types_to_json

RIBOSOME, APO = "ribosome", "apo-ferritin"


@pytest.fixture
def picks() -> Picks:
    rng = np.random.default_rng(5)
    kinds = np.repeat(np.arange(6), 5)
    score = rng.uniform(0.3, 1, 30)
    return Picks(
        run="TS_1", types=CZII_TYPES, xyz_angstrom=rng.uniform(0, 3000, (30, 3)), type_index=kinds, score=score
    )


def place(picks: Picks, index: int) -> tuple[float, float, float]:
    x, y, z = picks.xyz_angstrom[index].tolist()
    return x, y, z


def of(picks: Picks, *decisions: Decision) -> Corrections:
    return Corrections(run=picks.run, decisions=decisions)


def rows(picks: Picks) -> set[tuple[float, ...]]:
    return {(*xyz, k) for xyz, k in zip(picks.xyz_angstrom.tolist(), picks.type_index.tolist(), strict=True)}


def test_each_decision_changes_its_own_pick(picks: Picks) -> None:
    first, second, third = (place(picks, i) for i in (10, 11, 12))  # ribosomes
    after = corrected(
        picks,
        of(
            picks,
            Decision(xyz_angstrom=first, was=RIBOSOME, now=RIBOSOME),
            Decision(xyz_angstrom=second, was=RIBOSOME, now=None),
            Decision(xyz_angstrom=third, was=RIBOSOME, now=APO),
            Decision(xyz_angstrom=(1.0, 2.0, 3.0), was=None, now=RIBOSOME),
        ),
    )
    expected = (rows(picks) - {(*second, 2), (*third, 2)}) | {(*third, 0), (1.0, 2.0, 3.0, 2)}
    assert rows(after) == expected and len(after) == len(expected)
    named = {(*first, 2), (*third, 0), (1.0, 2.0, 3.0, 2)}
    for xyz, kind, score in zip(after.xyz_angstrom.tolist(), after.type_index.tolist(), after.score, strict=True):
        assert (score == 1) == ((*xyz, kind) in named)
    again = corrected(after, of(picks, Decision(xyz_angstrom=third, was=RIBOSOME, now=APO)))
    assert rows(again) == expected and len(again) == len(expected), "applied twice, as once"


def test_a_place_means_the_nearest_pick_where_picks_were_found_anew(picks: Picks) -> None:
    moved = dataclasses.replace(picks, xyz_angstrom=picks.xyz_angstrom + 20)
    rejected = of(picks, Decision(xyz_angstrom=place(picks, 10), was=RIBOSOME, now=None))
    assert rows(corrected(moved, rejected)) == rows(moved.select(np.arange(30) != 10))
    far = dataclasses.replace(picks, xyz_angstrom=picks.xyz_angstrom + 5000)
    notes: list[str] = []
    assert rows(corrected(far, rejected, note=notes.append)) == rows(far)
    assert len(notes) == 1 and "1 rejected" in notes[0]


def test_a_rejected_candidate_takes_no_neighbor_with_it(picks: Picks) -> None:
    beside = picks.xyz_angstrom[10] + 10.0
    candidates = dataclasses.replace(
        picks, xyz_angstrom=np.where(np.arange(30)[:, None] == 11, beside, picks.xyz_angstrom)
    )
    above = candidates.select(np.arange(30) != 11)
    rejected = of(picks, Decision(xyz_angstrom=place(candidates, 11), was=RIBOSOME, now=None))
    assert rows(corrected(above, rejected, candidates=candidates)) == rows(above)


def test_picks_that_are_corrected_already_lose_no_neighbor(picks: Picks) -> None:
    rejected = of(picks, Decision(xyz_angstrom=place(picks, 10), was=RIBOSOME, now=None))
    for away, stays in ((4.0, False), (25.0, True)):  # rounded in a file, or another one
        xyz = np.where(np.arange(30)[:, None] == 10, picks.xyz_angstrom + np.array([away, 0, 0]), picks.xyz_angstrom)
        near = dataclasses.replace(picks, xyz_angstrom=xyz)
        notes: list[str] = []
        after = corrected(near, rejected, reach_angstrom=ROUNDED_ANGSTROM, note=notes.append)
        assert rows(after) == rows(near.select((np.arange(30) != 10) | stays)) and len(notes) == stays


def test_files_come_back_and_others_are_refused(picks: Picks, tmp_path: pathlib.Path) -> None:
    region = Region(low_xyz_angstrom=(0.0, 0.0, 0.0), high_xyz_angstrom=(100.0, 200.0, 300.0))
    whole = dataclasses.replace(
        of(picks, Decision(xyz_angstrom=(0.1, 1 / 3, 3.0), was=None, now=APO)),
        complete=(region,),
        thresholds={APO: 0.4},
    )
    write_corrections(tmp_path / "a.json", whole)
    assert read_corrections(tmp_path / "a.json") == whole
    plain = json.loads((tmp_path / "a.json").read_text())
    for change in ({"kind": "picks"}, {"more": 1}, {"decisions": [{"xyz_angstrom": [1, 2], "was": None, "now": APO}]},
                   {"decisions": [{"xyz_angstrom": [1, 2, 3], "was": None, "now": None}]}):  # fmt: skip
        (tmp_path / "b.json").write_text(json.dumps(plain | change))
        with pytest.raises(InputError, match=r"b\.json"):
            read_corrections(tmp_path / "b.json")
    with pytest.raises(InputError, match="virus"):
        corrected(picks, of(picks, Decision(xyz_angstrom=(1.0, 2.0, 3.0), was=None, now="virus")))


def test_what_changed_between_two_sets_leads_from_one_to_the_other(picks: Picks) -> None:
    changed = picks.select(np.arange(30) % 4 != 0)
    changed = dataclasses.replace(
        changed, xyz_angstrom=changed.xyz_angstrom + (np.arange(len(changed)) == 3)[:, None] * 40
    )
    corrections = corrections_between(picks, changed, types={t.name for t in CZII_TYPES})
    assert rows(corrected(picks, corrections)) == rows(changed)
    assert corrections.counts() == {"accepted": 0, "rejected": 9, "retyped": 0, "added": 1}


@pytest.fixture
def folder(picks: Picks, tmp_path: pathlib.Path) -> pathlib.Path:
    out = tmp_path / "picks"
    for run in ("TS_1", "TS_2"):
        write_copick_picks(dataclasses.replace(picks, run=run), out)
    both = {run: dataclasses.replace(picks, run=run) for run in ("TS_1", "TS_2")}
    geometry = TomogramGeometry(voxel_spacing_xyz_angstrom=(10.0,) * 3, pixel_size_angstrom=1.5)
    for name in ("kaggle", "relion4", "napari"):
        format_ = format_of(name)
        write_picks(both, out / (format_.place or name), format_, Geometries(default=geometry))
    return out


def test_an_edited_layer_is_taken_back_in_every_format(folder, picks, tmp_path, capsys) -> None:
    # A layer of one type as napari saves it: its rows of TS_1 without the first, and one more.
    lines = (folder / "napari" / "TS_1.csv").read_text().splitlines()
    mine = [line for line in lines[1:] if f",{RIBOSOME}," in line]
    points = [line.split(",")[:4] for line in mine[1:]] + [["9", "1.5", "2.5", "3.5"]]
    layer = tmp_path / f"{RIBOSOME}.csv"
    layer.write_text("\n".join(["index,axis-0,axis-1,axis-2", *(",".join(p) for p in points)]) + "\n")
    command = ["apply", str(folder), str(layer), "--voxel-spacing", "10"]
    assert main(command) == 2 and "--run" in capsys.readouterr().err
    assert main([*command, "--run", "TS_1"]) == 2
    assert "--pixel-size" in capsys.readouterr().err and not (tmp_path / "picks-corrected").exists()
    assert main([*command, "--run", "TS_1", "--pixel-size", "1.5"]) == 0
    out = tmp_path / "picks-corrected"
    after = read_copick_folder(out, CZII_TYPES)
    assert rows(after["TS_2"]) == rows(dataclasses.replace(picks, run="TS_2"))
    gone, added = {(*place(picks, 10), 2)}, {(35.0, 25.0, 15.0, 2)}
    assert rows(after["TS_1"]) == (rows(picks) - gone) | added
    assert {p.name for p in out.iterdir()} == {
        "ExperimentRuns", "submission.csv", "relion4", "napari", "settings.json", "corrections"
    }  # fmt: skip
    assert (out / "relion4" / f"{RIBOSOME}.star").read_text().count("TS_1") == 5
    assert read_corrections(out / "corrections" / "TS_1-corrections.json").counts()["added"] == 1
    assert "ribosome" not in capsys.readouterr().out, "as many ribosomes as before"
    command = ["apply", str(folder), str(layer), "--run", "TS_1", "--pixel-size", "1.5", "--out", str(tmp_path / "no")]
    assert main([*command, "--voxel-spacing", "9"]) == 2  # no point is where a pick is
    assert "--voxel-spacing" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_threshold_that_moved_picks_its_own_type_anew(picks: Picks, tmp_path: pathlib.Path) -> None:
    thresholds = {t.name: 0.5 for t in CZII_TYPES}
    settings = {"thresholds": thresholds, "floor": 0.05, "particles": types_to_json(CZII_TYPES)}
    out = tmp_path / "picks"
    decided = picks.select(np.arange(30) % 5 > 0)  # fewer than the candidates above the thresholds
    write_candidates(picks, out)
    write_copick_picks(decided, out)
    (out / "settings.json").write_text(json.dumps(settings))
    lower = Corrections(run="TS_1", thresholds=thresholds | {RIBOSOME: 0.1})
    write_corrections(tmp_path / "c.json", lower)
    assert main(["apply", str(out), str(tmp_path / "c.json")]) == 0
    after = read_copick_folder(tmp_path / "picks-corrected", CZII_TYPES)["TS_1"].counts()
    assert after == {t.name: 5 if t.name == RIBOSOME else 4 for t in CZII_TYPES}


def test_layers_of_a_tomogram_with_an_origin_are_read_back(picks: Picks, tmp_path: pathlib.Path) -> None:
    viewer = mock.Mock()
    grid = VoxelGrid(
        shape_zyx=(8, 9, 10), spacing_zyx_angstrom=(10.0, 11.0, 12.0), origin_xyz_angstrom=(100.0, 200.0, 300.0)
    )
    voxels = np.random.default_rng(0).normal(size=grid.shape_zyx).astype(np.float32)
    add_layers(viewer, Volume(name="TS_1", voxels=voxels, grid=grid), picks)
    (image,) = viewer.add_image.call_args_list
    for index, layer in enumerate(viewer.add_points.call_args_list):
        own = picks.of_type(index)
        world = layer.args[0] * layer.kwargs["scale"]
        np.testing.assert_allclose(world[:, ::-1], own)  # as the format reads them
        seen = (world - image.kwargs["translate"]) / image.kwargs["scale"]
        np.testing.assert_allclose(seen, grid.to_voxel(own) - 0.5)
