"""Files as other programs and their users make them: read right, or refused with the way out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import (
    Geometries,
    TomogramGeometry,
    detect,
    format_of,
    known_geometries,
    read_picks,
    read_tomograms,
    write_picks,
)
from jaxcryo.project.dataset import find_runs
from jaxcryo.tomogram.volumes import write_ome_zarr

TYPES = CZII_TYPES[:3]
NAMES = ("rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")


def star(
    path: pathlib.Path,
    columns: Sequence[str],
    rows: Sequence[str],
    optics: dict[str, object] | None = None,
) -> pathlib.Path:
    """A STAR file of particles."""
    text = ""
    if optics is not None:
        text = "data_optics\n\nloop_\n" + "".join(f"_{n}\n" for n in optics) + " ".join(map(str, optics.values()))
    text += "\n\ndata_particles\n\nloop_\n" + "".join(f"_{n}\n" for n in columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n".join(rows) + "\n")
    return path


def dynamo(path: pathlib.Path, *, cc: str = "0.5", angle: str = "0", n: int = 3) -> pathlib.Path:
    """A table of n particles at 1, 1, 1, the last of which has this cc and this tdrot."""
    row = ["0"] * 35
    row[9], row[19], row[23:26] = "0.5", "1", ["1", "1", "1"]
    last = [*row[:6], angle, *row[7:9], cc, *row[10:]]
    path.write_text("\n".join(" ".join(r) for r in [*[row] * (n - 1), last]) + "\n")
    path.with_suffix(".doc").write_text("1 TS_1.mrc\n")
    return path


SPACING = Geometries(default=TomogramGeometry(voxel_spacing_xyz_angstrom=(10, 10, 10)))


@pytest.mark.parametrize(
    ("unbinned", "binning", "image", "expected"),
    [
        (2.0, 5.0, 10.0, 10.0),  # before July 2026: the unbinned pixel beside coordinates in particles' pixels
        (10.0, 1.0, 10.0, 10.0),  # since then
        (2.0, 1.0, 2.0, 2.0),  # exported without binning
    ],
)
def test_warp_counts_pixels_of_its_particles(
    tmp_path: pathlib.Path, unbinned: float, binning: float, image: float, expected: float
) -> None:
    optics = {"rlnOpticsGroup": 1, "rlnTomoTiltSeriesPixelSize": unbinned, "rlnTomoSubtomogramBinning": binning}
    file = star(tmp_path / "ribosome.star", NAMES, ["TS_1.tomostar 100 200 50"], {**optics, "rlnImagePixelSize": image})
    notes: list[str] = []
    picks = read_picks(file, TYPES, note=notes.append)["TS_1.tomostar"]
    assert picks.xyz_angstrom.tolist() == [[100 * expected, 200 * expected, 50 * expected]]
    assert any("rlnImagePixelSize" in n and "--pixel-size" in n for n in notes) == (unbinned != image)
    said = Geometries(default=TomogramGeometry(pixel_size_angstrom=3))
    assert read_picks(file, TYPES, said)["TS_1.tomostar"].xyz_angstrom.tolist() == [[300, 600, 150]]


def test_warp_without_an_image_pixel_size_is_refused(tmp_path: pathlib.Path) -> None:
    optics = {"rlnOpticsGroup": 1, "rlnTomoTiltSeriesPixelSize": 2.0, "rlnTomoSubtomogramBinning": 5.0}
    file = star(tmp_path / "ribosome.star", NAMES, ["TS_1.tomostar 100 200 50"], optics)
    with pytest.raises(InputError, match=r"binning of 5 .* --pixel-size"):
        read_picks(file, TYPES)


def test_the_binning_of_relion_says_nothing_of_its_coordinates(tmp_path: pathlib.Path) -> None:
    optics = {"rlnOpticsGroup": 1, "rlnTomoTiltSeriesPixelSize": 2.0, "rlnTomoSubtomogramBinning": 5.0}
    file = star(tmp_path / "ribosome.star", NAMES, ["TS_1 100 200 50"], {**optics, "rlnImagePixelSize": 10.0})
    assert read_picks(file, TYPES)["TS_1"].xyz_angstrom.tolist() == [[200, 400, 100]]


def test_optics_groups_of_several_pixel_sizes(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "ribosome.star"
    file.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 2.0\n2 3.0\n\ndata_particles\n\nloop_\n"
        "_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_rlnOpticsGroup\nA 10 10 10 1\nB 10 10 10 2\n"
    )
    picks = read_picks(file, TYPES)
    assert picks["A"].xyz_angstrom.tolist() == [[20] * 3] and picks["B"].xyz_angstrom.tolist() == [[30] * 3]


TOMOGRAMS = (
    "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesPixelSize #2\n_rlnTomoSizeX #3\n_rlnTomoSizeY #4\n"
    "_rlnTomoSizeZ #5\nTS_1 2.25 4000 4000 1000\n"
)
CENTERED = ("rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"))


def test_two_sources_that_disagree(tmp_path: pathlib.Path) -> None:
    """Size and pixel size come of one source, tomograms.star before the file's optics; the contradiction is said."""
    (tmp_path / "tomograms.star").write_text(TOMOGRAMS)
    optics = {"rlnOpticsGroup": 1, "rlnTomoTiltSeriesPixelSize": 4.0}
    pixels = star(tmp_path / "4" / "ribosome.star", NAMES, ["TS_1 100 200 50"], optics)
    centered = star(tmp_path / "5" / "ribosome.star", CENTERED, ["TS_1 1 2 3"], optics)
    given = known_geometries(TomogramGeometry(), tomograms=tmp_path / "tomograms.star")
    for file, expected in ((pixels, [225, 450, 112.5]), (centered, [4501, 4502, 1128])):
        notes: list[str] = []
        picks = read_picks(file, TYPES, given, note=notes.append)["TS_1"]
        np.testing.assert_allclose(picks.xyz_angstrom, [expected])
        assert any("4 Å" in n and "2.25 Å" in n for n in notes)
    said: list[str] = []
    own = known_geometries(
        TomogramGeometry(pixel_size_angstrom=4), tomograms=tmp_path / "tomograms.star", note=said.append
    )
    assert "2.25 Å" in said[0] and "--pixel-size 4" in said[0]
    # The tomogram stays as large as its own source says: 9000 × 9000 × 2250 Å.
    np.testing.assert_allclose(read_picks(centered, TYPES, own)["TS_1"].xyz_angstrom, [[4501, 4502, 1127]], atol=2.1)
    assert read_picks(pixels, TYPES, own)["TS_1"].xyz_angstrom.tolist() == [[400, 800, 200]]


def test_shifts_of_relion_3(tmp_path: pathlib.Path) -> None:
    """rlnOriginX/Y/Z are pixels of the particles' images, and are subtracted as those in ångströms are."""
    geometries = Geometries(default=TomogramGeometry(pixel_size_angstrom=2))
    columns = (*NAMES, "rlnOriginX", "rlnOriginY", "rlnOriginZ")
    row = "TS_1 100 200 50 1 -2 3"
    image = star(tmp_path / "1/ribosome.star", columns, [row], {"rlnOpticsGroup": 1, "rlnImagePixelSize": 8.0})
    assert read_picks(image, TYPES, geometries)["TS_1"].xyz_angstrom.tolist() == [[192, 416, 76]]
    detector = star(
        tmp_path / "2/ribosome.star", (*columns, "rlnDetectorPixelSize", "rlnMagnification"), [f"{row} 5 12500"]
    )
    notes: list[str] = []
    assert read_picks(detector, TYPES, geometries, note=notes.append)["TS_1"].xyz_angstrom.tolist() == [[196, 408, 88]]
    assert any("4 Å" in n for n in notes)
    plain = star(tmp_path / "3/ribosome.star", columns, [row])
    notes.clear()
    assert read_picks(plain, TYPES, geometries, note=notes.append)["TS_1"].xyz_angstrom.tolist() == [[198, 404, 94]]
    assert any("2 Å, as the coordinates" in n for n in notes)


def test_a_shift_along_one_axis_alone(tmp_path: pathlib.Path) -> None:
    file = star(tmp_path / "ribosome.star", (*NAMES, "rlnOriginXAngst"), ["TS_1 100 200 50 7"])
    notes: list[str] = []
    picks = read_picks(file, TYPES, Geometries(default=TomogramGeometry(pixel_size_angstrom=2)), note=notes.append)
    assert picks["TS_1"].xyz_angstrom.tolist() == [[193, 400, 100]]
    assert any("rlnOriginXAngst without rlnOriginYAngst, rlnOriginZAngst" in n for n in notes)


def test_particles_that_name_a_micrograph(tmp_path: pathlib.Path) -> None:
    """RELION 3's and Warp's: the run is the file's name without folders and suffix."""
    columns = ("rlnMicrographName", *NAMES[1:])
    file = star(tmp_path / "ribosome.star", columns, ["tomograms/TS_1/TS_1.mrc 100 200 50"])
    assert detect(file).name == "relion4"
    notes: list[str] = []
    said = Geometries(default=TomogramGeometry(pixel_size_angstrom=2))
    assert read_picks(file, TYPES, said, note=notes.append)["TS_1"].xyz_angstrom.tolist() == [[200, 400, 100]]
    assert any("rlnMicrographName" in n for n in notes)


def test_shares_of_the_tomogram_from_warps_template_matching(tmp_path: pathlib.Path) -> None:
    columns = ("rlnMicrographName", *NAMES[1:])
    file = star(tmp_path / "ribosome.star", columns, ["TS_1.tomostar 0.25 0.5 0.75"])
    with pytest.raises(InputError, match=r"from 0 to 1, .* --data"):
        read_picks(file, TYPES, Geometries(default=TomogramGeometry(pixel_size_angstrom=2)))
    write_ome_zarr(tmp_path / "data/TS_1.zarr", np.zeros((4, 6, 8), np.float32), (10.0,) * 3, levels=1)
    given = known_geometries(TomogramGeometry(), runs=find_runs(tmp_path / "data"))
    assert read_picks(file, TYPES, given)["TS_1"].xyz_angstrom.tolist() == [[20, 30, 30]]


def test_particles_of_m(tmp_path: pathlib.Path) -> None:
    names = [f"wrp{k}{a}{i}" for i in (1, 2) for k, axes in (("Coordinate", "XYZ"),) for a in axes]
    columns = (*names, "wrpAngleRot1", "wrpAngleTilt1", "wrpAnglePsi1", "wrpSourceName")
    file = star(tmp_path / "ribosome_particles.star", columns, ["10 20 30 12 20 30 0 90 180 TS_1.tomostar"])
    picks = read_picks(file, TYPES)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[11, 20, 30]] and picks.type_index.tolist() == [2]
    assert picks.orientation is not None
    np.testing.assert_allclose(picks.orientation[0] @ [0, 0, 1], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("cell", ["NaN", "-", "inf", "1+0i"])
def test_one_bad_score_loses_no_position(tmp_path: pathlib.Path, cell: str) -> None:
    notes: list[str] = []
    picks = read_picks(dynamo(tmp_path / "ribosome.tbl", cc=cell), TYPES, SPACING, note=notes.append)["TS_1"]
    assert len(picks) == 3 and picks.score is None
    assert any("1 of 3 picks have no score" in n for n in notes)
    (tmp_path / "a.csv").write_text(f"run,particle,x,y,z,score\nT,ribosome,1,2,3,0.5\nT,ribosome,1,2,3,{cell}\n")
    notes.clear()
    assert len(read_picks(tmp_path / "a.csv", TYPES, note=notes.append)["T"]) == 2
    assert any("1 of 2 picks have no score" in n for n in notes)
    folder = tmp_path / "c/ExperimentRuns/T/Picks"
    folder.mkdir(parents=True)
    points = [{"location": {"x": 1, "y": 2, "z": 3}, "score": s} for s in (0.5, cell)]
    (folder / "ribosome.json").write_text(json.dumps({"points": points}))
    notes.clear()
    own = read_picks(tmp_path / "c", TYPES, note=notes.append)["T"]
    assert len(own) == 2 and own.score is None and any("1 of 2 points" in n for n in notes)
    own_star = star(
        tmp_path / "s/ribosome.star", (*NAMES, "rlnAutopickFigureOfMerit"), ["T 1 1 1 0.5", f"T 1 1 1 {cell}"]
    )
    notes.clear()
    said = Geometries(default=TomogramGeometry(pixel_size_angstrom=2))
    assert len(read_picks(own_star, TYPES, said, note=notes.append)["T"]) == 2
    assert any("1 of 2 picks have no score" in n for n in notes)


def test_one_bad_angle_loses_no_orientation_but_its_own(tmp_path: pathlib.Path) -> None:
    table = dynamo(tmp_path / "ribosome.tbl", angle="NaN")
    table.write_text(table.read_text().replace("0 0 0 0 0 0 0 0 0 0.5", "0 0 0 0 0 0 30 0 0 0.5", 1))
    orientation = read_picks(table, TYPES, SPACING)["TS_1"].orientation
    assert orientation is not None and not np.allclose(orientation[0], np.eye(3))
    np.testing.assert_array_equal(orientation[2], np.eye(3))


def test_a_run_without_picks_refuses_no_other(tmp_path: pathlib.Path) -> None:
    """copick's `points: null`, an empty folder of picks, and one with other particles alone."""
    root = tmp_path / "ExperimentRuns"
    for run in ("TS_1", "TS_2", "TS_3", "TS_4"):
        (root / run / "Picks").mkdir(parents=True)
    (root / "TS_1/Picks/ribosome.json").write_text('{"points": [{"location": {"x": 1, "y": 2, "z": 3}}]}')
    (root / "TS_2/Picks/a_1_ribosome.json").write_text('{"points": null}')
    (root / "TS_4/Picks/a_1_membrane.json").write_text('{"points": []}')
    notes: list[str] = []
    found = read_picks(tmp_path, TYPES, note=notes.append)
    assert {run: len(p) for run, p in found.items()} == {"TS_1": 1, "TS_2": 0}
    assert any("TS_3, TS_4" in n for n in notes)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("rec_TS_01", "TS_01"),
        ("TS_01_10.00Apx", "TS_01"),
        ("TS_01.tomostar", "TS_01"),
        ("TS_01_Vol", "TS_01"),
        ("TS_01.mrc", "TS_01"),
        ("TS_01", "rec_TS_01"),
        ("TS_01_bin4", "TS_01_10.00Apx"),
        ("1", "TS_01"),
        ("001", "1"),
    ],
)
def test_names_that_programs_change(tmp_path: pathlib.Path, written: str, known: str) -> None:
    (tmp_path / "a.csv").write_text(f"run,particle,x,y,z\n{written},ribosome,1,2,3\n")
    notes: list[str] = []
    assert list(read_picks(tmp_path / "a.csv", TYPES, runs=[known, "TS_02"], note=notes.append)) == [known]
    assert any(written in n and known in n for n in notes)
    geometries = Geometries(by_run={known: TomogramGeometry(voxel_spacing_xyz_angstrom=(7, 7, 7))})
    assert geometries.of(written).voxel_spacing_xyz_angstrom == (7, 7, 7)


def test_names_that_may_mean_two(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("run,particle,x,y,z\nrec_TS_01,ribosome,1,2,3\n")
    assert list(read_picks(tmp_path / "a.csv", TYPES, runs=["TS_01_bin2", "TS_01_bin4"])) == ["rec_TS_01"]
    (tmp_path / "a.csv").write_text("run,particle,x,y,z\nrec_TS_01,ribosome,1,2,3\nTS_01,ribosome,1,2,3\n")
    assert list(read_picks(tmp_path / "a.csv", TYPES, runs=["TS_01"])) == ["TS_01", "rec_TS_01"]


def test_a_tomogram_that_is_not_known_is_named_beside_those_that_are(tmp_path: pathlib.Path) -> None:
    geometries = Geometries(
        by_run={n: TomogramGeometry(voxel_spacing_xyz_angstrom=(7, 7, 7)) for n in ("TS_1", "TS_2")}
    )
    with pytest.raises(InputError, match=r"TS_1, TS_2.*Position_9 is not among them"):
        write_picks({"Position_9": a_pick("Position_9")}, tmp_path / "a.tbl", format_of("dynamo"), geometries)


def a_pick(run: str, xyz: Sequence[float] = (1, 2, 3), n: int = 1) -> Picks:
    return Picks(
        run=run, types=TYPES, xyz_angstrom=np.tile(np.array(xyz, float), (n, 1)), type_index=np.zeros(n, np.int64)
    )


def test_picks_in_one_corner_or_outside_are_said(tmp_path: pathlib.Path) -> None:
    write_ome_zarr(tmp_path / "data/T.zarr", np.zeros((20, 40, 60), np.float32), (10.0,) * 3, levels=1)
    given = known_geometries(TomogramGeometry(), runs=find_runs(tmp_path / "data"))
    for xyz, n, word in (
        ((100, 100, 100), 20, "corner"),
        ((900, 100, 100), 20, "outside"),
        ((500, 300, 100), 20, ""),
        ((100, 100, 100), 3, ""),
    ):
        write_picks({"T": a_pick("T", xyz, n)}, tmp_path / "a.csv", format_of("csv"), force=True)
        notes: list[str] = []
        read_picks(tmp_path / "a.csv", TYPES, given, note=notes.append)
        assert any(word in n for n in notes) if word else not notes


@pytest.mark.parametrize("suffix", [".em", ".cbox", ".cmm", ".xml"])
def test_formats_that_are_not_read_are_named_with_the_way_out(tmp_path: pathlib.Path, suffix: str) -> None:
    (tmp_path / f"ribosome{suffix}").write_bytes(b"\x06\x00\x00\x05")
    with pytest.raises(InputError, match="it looks like"):
        detect(tmp_path / f"ribosome{suffix}")


def test_tomograms_star_of_the_same_run_under_another_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tomograms.star").write_text(TOMOGRAMS.replace("TS_1 ", "rec_TS_1 "))
    write_ome_zarr(tmp_path / "data/TS_1.zarr", np.zeros((4, 6, 8), np.float32), (10.0,) * 3, levels=1)
    notes: list[str] = []
    runs = find_runs(tmp_path / "data")
    given = known_geometries(TomogramGeometry(), tomograms=tmp_path / "tomograms.star", runs=runs, note=notes.append)
    assert given.of("TS_1").pixel_size_angstrom == 2.25 and given.of("TS_1").voxel_spacing_xyz_angstrom == (10, 10, 10)
    assert any("rec_TS_1" in n for n in notes)
    assert read_tomograms(tmp_path / "tomograms.star", TomogramGeometry()).of("TS_1").pixel_size_angstrom == 2.25


def test_pytom_counts_voxels_of_its_tomogram(tmp_path: pathlib.Path) -> None:
    """rlnDetectorPixelSize without a magnification is the tomogram's voxel size; its own columns begin with ptm."""
    angles = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    columns = ("rlnMicrographName", *NAMES[1:], *angles, "ptmLCCmax", "rlnDetectorPixelSize")
    file = star(tmp_path / "ribosome.star", columns, ["TS_1 945 1126 202 0 90 180 0.43 6.65"])
    picks = read_picks(file, TYPES)["TS_1"]
    np.testing.assert_allclose(picks.xyz_angstrom, [[945 * 6.65, 1126 * 6.65, 202 * 6.65]])
    assert picks.score is not None and picks.score.tolist() == [0.43] and picks.orientation is not None
    text = file.read_text()
    file.write_text(text.replace("_rln", "_ptm"))
    assert detect(file).name == "relion4"
    np.testing.assert_allclose(read_picks(file, TYPES)["TS_1"].xyz_angstrom, picks.xyz_angstrom)


def test_pytoms_voxel_size_is_not_what_relion_5_counts_the_center_in(tmp_path: pathlib.Path) -> None:
    file = star(tmp_path / "ribosome.star", (*CENTERED, "rlnTomoTiltSeriesPixelSize"), ["TS_1 1 2 3 9.0"])
    with pytest.raises(InputError, match="the pixel size of the unbinned tilt series is not known"):
        read_picks(file, TYPES, Geometries(default=TomogramGeometry(unbinned_size_xyz=(4000, 4000, 1000))))
    (tmp_path / "tomograms.star").write_text(TOMOGRAMS)
    notes: list[str] = []
    given = known_geometries(TomogramGeometry(), tomograms=tmp_path / "tomograms.star")
    assert read_picks(file, TYPES, given, note=notes.append)["TS_1"].xyz_angstrom.tolist() == [[4501, 4502, 1128]]
    assert not notes


def test_a_table_without_a_name_for_a_block(tmp_path: pathlib.Path) -> None:
    """As the package starfile writes one table: data_ alone (3dem/relion, issue 1287)."""
    file = star(tmp_path / "ribosome.star", (*NAMES, "rlnTomoManifoldIndex"), ["WT_nasal_6w_34 655.838257 1 2 0"])
    file.write_text(file.read_text().replace("data_particles", "data_"))
    picks = read_picks(file, TYPES, Geometries(default=TomogramGeometry(pixel_size_angstrom=2)))
    assert picks["WT_nasal_6w_34"].xyz_angstrom.tolist() == [[1311.676514, 2, 4]]


def test_a_row_without_the_name_of_its_tomogram(tmp_path: pathlib.Path) -> None:
    """An empty last column (EuanPyle/relion4_tomo_robot, issue 3): said, not taken for a tomogram called 1."""
    file = star(
        tmp_path / "ribosome.star", (*NAMES[1:], "rlnTomoName", "rlnObjectNumber"), ["568.0\t2460.4\t1596.3\t\t1"]
    )
    with pytest.raises(InputError, match="more or fewer cells than there are columns"):
        read_picks(file, TYPES, Geometries(default=TomogramGeometry(pixel_size_angstrom=2)))


def test_picks_of_a_binned_tomogram_taken_for_unbinned_pixels_are_said(tmp_path: pathlib.Path) -> None:
    """3dem/relion, issues 1059 and 1334: coordinates of a tomogram binned by 7 fill a seventh of it."""
    (tmp_path / "tomograms.star").write_text(TOMOGRAMS)
    rng = np.random.default_rng(0)
    rows = [f"TS_1 {x:.1f} {y:.1f} {z:.1f}" for x, y, z in rng.uniform(0, [570, 570, 140], (30, 3))]
    file = star(tmp_path / "ribosome.star", NAMES, rows)
    notes: list[str] = []
    given = known_geometries(TomogramGeometry(), tomograms=tmp_path / "tomograms.star")
    read_picks(file, TYPES, given, note=notes.append)
    assert any("corner" in n for n in notes)


def test_copicks_own_table(tmp_path: pathlib.Path) -> None:
    """run_name,x,y,z and the sixteen numbers of the transformation, whose translation belongs to the position."""
    matrix = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    names = [f"transform_{i}{j}" for i in range(4) for j in range(4)]
    (tmp_path / "a.csv").write_text(
        f"run_name,x,y,z,{','.join(names)},score,instance_id\nTS_1,1,2,3,{','.join(map(str, matrix.ravel()))},0.5,0\n"
    )
    picks = read_picks(tmp_path / "a.csv", TYPES[2:])["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[6, 8, 10]] and picks.orientation is not None
    np.testing.assert_array_equal(picks.orientation[0], matrix[:3, :3])
