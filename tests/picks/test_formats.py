"""Picks survive every format that can hold them, and mean the same place to its own reader."""

from __future__ import annotations

import csv
import json
import pathlib

import dynamotable
import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import (
    Geometries,
    TomogramGeometry,
    above_thresholds,
    check_writable,
    detect,
    format_for,
    format_of,
    geometries_of_tomograms,
    losses,
    read_picks,
    read_tomograms,
    writable_formats,
    write_picks,
)
from jaxcryo.project.dataset import find_runs
from jaxcryo.tomogram.volumes import write_ome_zarr

TYPES = CZII_TYPES[:3]
GEOMETRY = TomogramGeometry(
    pixel_size_angstrom=1.54, unbinned_size_xyz=(4096, 4094, 1201), voxel_spacing_xyz_angstrom=(10.012, 10.012, 9.5)
)
GEOMETRIES = Geometries(default=GEOMETRY)
WRITABLE = writable_formats()


def out_of(name: str) -> str:
    """A place to write a format to: a table for all runs, or a folder."""
    return "a.csv" if (format_of(name).place or "").endswith(".csv") else "out"


def turned(n: int, seed: int = 0) -> np.ndarray:
    """Rotation matrices, among them none at all and a tilt of 0."""
    matrices = Rotation.random(n, rng=seed).as_matrix()
    matrices[:1] = np.eye(3)
    matrices[1:2] = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    return matrices


def make_picks(run: str = "TS_1", n: int = 20, *, scored: bool = True, seed: int = 0, oriented: bool = False) -> Picks:
    rng = np.random.default_rng(seed)
    return Picks(
        run=run,
        types=TYPES,
        xyz_angstrom=rng.uniform(0, 6000, (n, 3)),
        type_index=np.sort(rng.integers(0, len(TYPES), n)),
        score=rng.uniform(size=n) if scored else None,
        orientation=turned(n, seed) if oriented else None,
    )


def two_runs(*, scored: bool = True) -> dict[str, Picks]:
    return {"TS_1": make_picks(scored=scored), "data_2": make_picks("data_2", 7, scored=scored, seed=1)}


def assert_same(a: dict[str, Picks], b: dict[str, Picks], *, atol: float, scored: bool) -> None:
    assert sorted(a) == sorted(b)
    for run in a:
        order_a, order_b = (np.lexsort((*p.xyz_angstrom.T, p.type_index)) for p in (a[run], b[run]))
        np.testing.assert_allclose(a[run].xyz_angstrom[order_a], b[run].xyz_angstrom[order_b], rtol=0, atol=atol)
        np.testing.assert_array_equal(a[run].type_index[order_a], b[run].type_index[order_b])
        assert a[run].types == b[run].types
        if scored:
            sa, sb = a[run].score, b[run].score
            assert sa is not None and sb is not None
            np.testing.assert_allclose(sa[order_a], sb[order_b], rtol=1e-14)


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("name", WRITABLE)
def test_round_trip_loses_only_what_is_said(tmp_path: pathlib.Path, name: str, scored: bool) -> None:
    kind, picks = format_of(name), two_runs(scored=scored)
    files = write_picks(picks, tmp_path / out_of(name), kind, GEOMETRIES)
    assert all(f.is_file() for f in files)
    assert detect(tmp_path / out_of(name)) is kind
    again = read_picks(tmp_path / out_of(name), TYPES, GEOMETRIES)
    held = scored and kind.holds_scores
    assert_same(picks, again, atol=5.1e-4 if name == "kaggle" else 1e-8, scored=held)
    said = losses(picks, kind)
    assert any("scores" in s for s in said) == ((scored and not held) or (not scored and name == "dynamo"))
    assert any("positions finer" in s for s in said) == (name == "kaggle")


@pytest.mark.parametrize(("name", "suffix"), [("relion4", ".star"), ("relion5", ".star"), ("dynamo", ".tbl")])
def test_one_file_for_all_particles(tmp_path: pathlib.Path, name: str, suffix: str) -> None:
    path = tmp_path / f"particles{suffix}"
    write_picks(two_runs(), path, format_of(name), GEOMETRIES)
    notes: list[str] = []
    assert detect(path) is format_of(name)
    assert_same(two_runs(), read_picks(path, TYPES, GEOMETRIES, note=notes.append), atol=1e-8, scored=True)
    assert ("1 apo-ferritin" in "".join(notes)) == (name == "dynamo")


@pytest.mark.parametrize("name", WRITABLE)
def test_runs_without_picks(tmp_path: pathlib.Path, name: str) -> None:
    kind = format_of(name)
    picks = {"TS_1": make_picks(), "TS_2": make_picks("TS_2", 0)}
    write_picks(picks, tmp_path / out_of(name), kind, GEOMETRIES)
    assert ("TS_2" in read_picks(tmp_path / out_of(name), TYPES, GEOMETRIES)) == kind.holds_empty_runs
    assert any("TS_2 has no picks" in s for s in losses(picks, kind)) != kind.holds_empty_runs
    write_picks({"TS_2": picks["TS_2"]}, tmp_path / out_of(name), kind, GEOMETRIES, force=True)


def test_relion_reads_the_places(tmp_path: pathlib.Path) -> None:
    """RELION's rules for pixels from 0: coordinate as it is, or / pixel size + size / 2; a binned voxel is p / b."""
    picks = {"TS_1": make_picks()}
    first = TYPES[0].name
    expected = picks["TS_1"].of_type(0) / 1.54
    write_picks(picks, tmp_path / "4", format_of("relion4"), GEOMETRIES)
    table = starfile.read(tmp_path / "4" / f"{first}.star")
    assert set(table.columns) >= {"rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"}
    np.testing.assert_allclose(table[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy(), expected)
    write_picks(picks, tmp_path / "5", format_of("relion5"), GEOMETRIES)
    blocks = starfile.read(tmp_path / "5" / f"{first}.star", always_dict=True)
    assert list(blocks) == ["particles"] and set(blocks["particles"]["rlnTomoName"]) == {"TS_1"}
    centered = blocks["particles"][[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()
    np.testing.assert_allclose(centered / 1.54 + np.array([4096, 4094, 1201]) / 2, expected)


SAMPLE = """
# version 50001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnTomoTiltSeriesPixelSize #3
1 opticsGroup1 2.0

# version 50001

data_particles

loop_
_rlnTomoName #1
_rlnTomoSubtomogramRot #2
_rlnTomoSubtomogramTilt #3
_rlnTomoSubtomogramPsi #4
_rlnOpticsGroup #5
_rlnOriginXAngst #6
_rlnOriginYAngst #7
_rlnOriginZAngst #8
_rlnCenteredCoordinateXAngst #9
_rlnCenteredCoordinateYAngst #10
_rlnCenteredCoordinateZAngst #11
_rlnCoordinateX #12
007  10.0 20.0 30.0 1  1.0 2.0 3.0   0.0 -10.0 20.0  5
007   0.0  0.0  0.0 1  1.0 2.0 3.0   0.0 -10.0 20.0  5
"""


def test_a_refined_file_of_relion_5(tmp_path: pathlib.Path) -> None:
    """Its pixel size is used, and shifts of refinement are applied as `rlnOrigin_to_rlnCoordinate_row` does."""
    path = tmp_path / "ribosome.star"
    path.write_text(SAMPLE)
    frames = Geometries(default=TomogramGeometry(unbinned_size_xyz=(100, 200, 300)))
    notes: list[str] = []
    picks = read_picks(path, TYPES, frames, note=notes.append)["007"]
    rotation = Rotation.from_euler("ZYZ", [10, 20, 30], degrees=True).as_matrix()
    place = np.array([100, 190, 320.0])
    np.testing.assert_allclose(picks.xyz_angstrom, [place - rotation.T @ [1, 2, 3], place - [1, 2, 3]])
    assert set(picks.type_index.tolist()) == {2} and picks.score is None
    assert picks.orientation is not None and not notes
    np.testing.assert_allclose(picks.orientation[0], rotation.T, atol=1e-12)


def test_dynamo_counts_pixels_from_one(tmp_path: pathlib.Path) -> None:
    picks = {"TS_1": make_picks(), "TS_2": make_picks("TS_2", 5)}
    write_picks(picks, tmp_path / "all.tbl", format_of("dynamo"), GEOMETRIES)
    table = dynamotable.read(str(tmp_path / "all.tbl"), str(tmp_path / "all.doc"))
    assert set(table["tomo_file"]) == {"TS_1.mrc", "TS_2.mrc"} and sorted(table["tag"]) == list(range(1, 26))
    mine = table[(table["tomo"] == 1) & (table["class"] == 2)]
    expected = picks["TS_1"].of_type(1) / [10.012, 10.012, 9.5] + 1
    np.testing.assert_allclose(mine[["x", "y", "z"]].to_numpy(), expected)
    score = picks["TS_1"].score
    assert score is not None
    np.testing.assert_allclose(mine["cc"].to_numpy(), score[picks["TS_1"].type_index == 1])


def test_dynamo_from_its_own_library(tmp_path: pathlib.Path) -> None:
    """Shifts count, a tilt turns clockwise, and a table called after a particle needs no classes."""
    import pandas

    frame = pandas.DataFrame(
        {
            "x": [11.0, 1.0],
            "y": [21, 1],
            "z": [31, 1],
            "dx": [0.5, 0],
            "tilt": [30.0, 0],
            "tomo_file": ["v/TS_9.mrc"] * 2,
        }
    )
    dynamotable.write(frame, str(tmp_path / "ribosome.tbl"))
    notes: list[str] = []
    picks = read_picks(tmp_path / "ribosome.tbl", TYPES, GEOMETRIES, note=notes.append)["TS_9"]
    np.testing.assert_allclose(picks.xyz_angstrom, [[105.126, 200.24, 285], [0, 0, 0]])
    assert picks.orientation is not None and not notes
    np.testing.assert_allclose(picks.orientation, Rotation.from_euler("x", [[-30], [0]], degrees=True).as_matrix())
    (tmp_path / "ribosome.doc").unlink()
    with pytest.raises(InputError, match=r"expected ribosome\.doc or tomograms\.doc or indices_column20\.doc"):
        read_picks(tmp_path / "ribosome.tbl", TYPES, GEOMETRIES)


def test_napari_points(tmp_path: pathlib.Path) -> None:
    """The header that napari recognises as points, and z, y, x in voxels."""
    write_picks({"TS_1": make_picks()}, tmp_path / "points.csv", format_of("napari"), GEOMETRIES)
    rows = list(csv.reader((tmp_path / "points.csv").read_text().splitlines()))
    assert rows[0] == ["index", "axis-0", "axis-1", "axis-2", "particle", "run", "score"]
    zyx = np.array([row[1:4] for row in rows[1:]], float)
    np.testing.assert_allclose(zyx * [9.5, 10.012, 10.012], make_picks().xyz_angstrom[:, ::-1])
    with pytest.raises(InputError, match="2 runs"):
        write_picks(two_runs(), tmp_path / "b.csv", format_of("napari"), GEOMETRIES)


def test_a_single_file_of_copick_or_kaggle(tmp_path: pathlib.Path) -> None:
    files = write_picks({"TS_1": make_picks()}, tmp_path, format_of("copick"))
    ribosomes = read_picks(files[2], TYPES)["TS_1"]
    np.testing.assert_array_equal(ribosomes.xyz_angstrom, make_picks().of_type(2))
    kaggle = files[2].with_name("ribosome.json")
    kaggle.write_text(json.dumps({"points": [{"location": {"x": 1, "y": 2, "z": 3}}]}))
    assert read_picks(kaggle, TYPES)["TS_1"].xyz_angstrom.tolist() == [[1, 2, 3]]
    outside = tmp_path / "ribosome.json"
    outside.write_text(kaggle.read_text())
    with pytest.raises(InputError, match="run_name"):
        read_picks(outside, TYPES)
    with pytest.raises(InputError, match="is about 'ribosome'; the types are apo-ferritin"):
        read_picks(kaggle, TYPES[:1])


def test_a_plain_table_of_one_particle(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("tomogram,x,y,z\nT1,1,2,3\n")
    picks = read_picks(tmp_path / "a.csv", TYPES[2:])
    assert picks["T1"].xyz_angstrom.tolist() == [[1, 2, 3]]
    with pytest.raises(InputError, match="lacks particle; expected a CSV table"):
        read_picks(tmp_path / "a.csv", TYPES)


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("relion4", TomogramGeometry(), "TS_1: the pixel size .* --pixel-size"),
        (
            "relion5",
            TomogramGeometry(pixel_size_angstrom=2),
            "TS_1: the size of the unbinned tomogram .* --unbinned-size",
        ),
        ("relion5", TomogramGeometry(unbinned_size_xyz=(9, 9, 9)), "TS_1: the pixel size"),
        ("dynamo", TomogramGeometry(pixel_size_angstrom=2), "TS_1: the voxel spacing .* --voxel-spacing"),
        ("napari", TomogramGeometry(), "TS_1: the voxel spacing"),
    ],
)
def test_a_frame_that_lacks_something(tmp_path: pathlib.Path, name: str, frame: TomogramGeometry, message: str) -> None:
    frames = Geometries(default=frame)
    with pytest.raises(InputError, match=message):
        write_picks({"TS_1": make_picks()}, tmp_path / "out", format_of(name), frames)
    with pytest.raises(InputError, match=message):
        check_writable(format_of(name), tmp_path / "out", ["TS_1"], frames)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_frames_that_make_no_sense(bad: float) -> None:
    with pytest.raises(InputError, match="the pixel size is"):
        TomogramGeometry(pixel_size_angstrom=bad)
    with pytest.raises(InputError, match="the voxel spacing is"):
        TomogramGeometry(voxel_spacing_xyz_angstrom=(1, 1, bad))
    with pytest.raises(InputError, match="the unbinned size is"):
        TomogramGeometry(unbinned_size_xyz=(1, 0, 1))


def test_geometries_of_tomograms(tmp_path: pathlib.Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((4, 5, 6), np.float32), (10.0, 10.0, 10.0), levels=1)
    (tmp_path / "b.mrc").write_text("broken")
    notes: list[str] = []
    runs = find_runs(tmp_path)
    frames = geometries_of_tomograms(runs, TomogramGeometry(pixel_size_angstrom=2.5), note=notes.append)
    assert frames.of("a") == TomogramGeometry(
        pixel_size_angstrom=2.5,
        unbinned_size_xyz=(24, 20, 16),
        voxel_spacing_xyz_angstrom=(10, 10, 10),
        shape_xyz=(6, 5, 4),
    )
    assert frames.of("b") == frames.default
    assert any("b.mrc" in n for n in notes) and any("24×20×16" in n for n in notes)
    said = TomogramGeometry(voxel_spacing_xyz_angstrom=(7, 7, 7))
    assert geometries_of_tomograms(runs[:1], said).of("a").voxel_spacing_xyz_angstrom == (7, 7, 7)


def test_frames_of_relions_tomograms(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tomograms.star"
    path.write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesPixelSize #2\n_rlnTomoTomogramBinning #3\n"
        "_rlnTomoSizeX #4\n_rlnTomoSizeY #5\n_rlnTomoSizeZ #6\n001 1.5 4.0 100 200 50\n"
    )
    frames = read_tomograms(path, TomogramGeometry())
    assert frames.of("001") == TomogramGeometry(
        pixel_size_angstrom=1.5, unbinned_size_xyz=(100, 200, 50), voxel_spacing_xyz_angstrom=(6, 6, 6)
    )
    assert read_tomograms(path, TomogramGeometry(pixel_size_angstrom=2)).of("001").pixel_size_angstrom == 2
    path.write_text(path.read_text().replace("SizeZ", "Depth"))
    with pytest.raises(InputError, match="lacks the column rlnTomoSizeZ"):
        read_tomograms(path, TomogramGeometry())


def test_nothing_is_overwritten_without_force(tmp_path: pathlib.Path) -> None:
    for name, kind in WRITABLE.items():
        out = tmp_path / name / out_of(name)
        files = write_picks(two_runs(), out, kind, GEOMETRIES)
        files[-1].write_text("mine")
        for file in files[:-1]:
            file.unlink()
        with pytest.raises(InputError, match=r"already exists.*--force"):
            write_picks(two_runs(), out, kind, GEOMETRIES)
        assert files[-1].read_text() == "mine" and not any(f.exists() for f in files[:-1])
        assert write_picks(two_runs(), out, kind, GEOMETRIES, force=True) == files


@pytest.mark.parametrize("run", ["", ".", "..", "../up", "a/b", "a\\b", "a\0b", "a\nb", ".hidden", " a", "x" * 201])
def test_run_names_that_are_no_folder_names(tmp_path: pathlib.Path, run: str) -> None:
    picks = {run: make_picks(run)}
    for kind in WRITABLE.values():
        with pytest.raises(InputError, match="a run is called"):
            write_picks(picks, tmp_path / "out", kind, GEOMETRIES)
    if run == run.strip():  # a table's cells lose the space around them
        (tmp_path / "a.csv").write_text(f'run,particle,x,y,z\n"{run}",ribosome,1,2,3\n')
    else:
        (tmp_path / "a.csv").write_text("run,particle,x,y,z\n ,ribosome,1,2,3\n")
    with pytest.raises(InputError):
        read_picks(tmp_path / "a.csv", TYPES)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("run", ["my tomogram", 'a"b', "a#b", "nan"])
@pytest.mark.parametrize("name", ["relion4", "relion5", "dynamo"])
def test_names_that_tables_separated_by_space_cannot_hold(tmp_path: pathlib.Path, name: str, run: str) -> None:
    with pytest.raises(InputError, match="which this format cannot hold"):
        write_picks({run: make_picks(run)}, tmp_path / "out", format_of(name), GEOMETRIES)


def test_formats_that_are_not_clear(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected picks in one of the formats csv"):
        detect(tmp_path / "none")
    with pytest.raises(InputError, match="none is recognised"):
        detect(tmp_path)
    write_picks(two_runs(), tmp_path / "a.tbl", format_of("dynamo"), GEOMETRIES)
    write_picks(two_runs(), tmp_path / "a.csv", format_of("csv"))
    with pytest.raises(InputError, match=r"its format is not clear .*dynamo"):
        detect(tmp_path)
    with pytest.raises(InputError, match="--to"):
        format_for("a.star", None)
    with pytest.raises(InputError, match="'mod' is not a format"):
        format_for("a.star", "mod")
    (tmp_path / "some.star").write_text(SAMPLE)
    with pytest.raises(InputError, match="which particle it holds is not clear"):
        read_picks(tmp_path / "some.star", TYPES, GEOMETRIES)


def test_a_folder_with_other_particles(tmp_path: pathlib.Path) -> None:
    write_picks(two_runs(), tmp_path, format_of("relion4"), GEOMETRIES)
    notes: list[str] = []
    picks = read_picks(tmp_path, TYPES[2:], GEOMETRIES, note=notes.append)
    assert sum(map(len, picks.values())) == sum(len(p.of_type(2)) for p in two_runs().values())
    assert "skipped apo-ferritin.star, beta-galactosidase.star" in notes[0]
    (tmp_path / "ribosome.star").unlink()
    with pytest.raises(InputError, match=r"has no <particle>\.star of ribosome"):
        read_picks(tmp_path, TYPES[2:], GEOMETRIES)


def test_thresholds() -> None:
    picks = make_picks()
    score = picks.score
    assert score is not None
    limit = float(np.sort(score[picks.type_index == 0])[1])
    kept = above_thresholds(picks, {TYPES[0].name: limit})
    assert len(kept.of_type(0)) == len(picks.of_type(0)) - 2 and kept.types[0].threshold == limit
    assert len(kept.of_type(1)) == len(picks.of_type(1))
    with pytest.raises(InputError, match="thresholds of actin"):
        above_thresholds(picks, {"actin": 0.1})
    with pytest.raises(InputError, match="have no scores"):
        above_thresholds(make_picks(scored=False), {"ribosome": 0.1})
