"""Laws of structures: what a file says becomes beads of the same mass, center and size."""

from __future__ import annotations

import pathlib

import gemmi
import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.phantom.beads import BEAD_SIGMA_ANGSTROM, packaged_beads, packaged_names, read_beads, write_beads
from jaxcryo.phantom.fitting import fit_beads
from jaxcryo.phantom.structures import BUILT_IN, COMPANY, STRANGERS, globule_beads, map_to_beads, structure_beads


def blobs(shape: tuple[int, int, int], centers_xyz: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussians at voxel positions."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum(
        np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * sigma**2)) for cx, cy, cz in centers_xyz
    ).astype(np.float32)


def write_map(path: pathlib.Path, density: np.ndarray, spacing: float) -> None:
    with mrcfile.new(path) as file:
        file.set_data(density.astype(np.float32))
        file.voxel_size = spacing


def test_a_fit_keeps_mass_and_center_and_draws_the_density_again() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (1500, 3)) * (1.0, 0.6, 0.3)
    mass = rng.uniform(0.1, 1, 1500)
    model = fit_beads("body", points, mass)
    assert model.total_kilodalton == pytest.approx(mass.sum())
    np.testing.assert_allclose(model.mass_kilodalton @ model.xyz_angstrom, 0, atol=1e-6)
    centered = points - np.average(points, axis=0, weights=mass)

    def drawn(xyz: np.ndarray, weight: np.ndarray) -> np.ndarray:
        grid = np.zeros((40, 40, 40))
        np.add.at(grid, tuple(np.round(xyz / 4 + 20).astype(int).T), weight)
        return gaussian_filter(grid, 3.0)

    likeness = np.corrcoef(drawn(centered, mass).ravel(), drawn(model.xyz_angstrom, model.mass_kilodalton).ravel())[
        0, 1
    ]
    assert likeness > 0.99


def test_a_map_is_read_with_its_spacing_and_either_sign(tmp_path: pathlib.Path) -> None:
    centers = np.array([[10, 14, 12], [18, 14, 12], [14, 20, 15]], float)
    density = blobs((30, 32, 34), centers, 1.5)
    write_map(tmp_path / "bright.mrc", density, 6.0)
    write_map(tmp_path / "dark.mrc", 5 - density, 6.0)
    notes: list[str] = []
    bright = map_to_beads(tmp_path / "bright.mrc", mass_kilodalton=300)
    dark = map_to_beads(tmp_path / "dark.mrc", mass_kilodalton=300, note=notes.append)
    assert any("sign changed" in n for n in notes)
    assert bright.total_kilodalton == pytest.approx(300) and dark.total_kilodalton == pytest.approx(300)
    assert bright.radius_angstrom == pytest.approx(dark.radius_angstrom, rel=0.05)
    off = 6 * (centers - centers.mean(axis=0))
    inside = np.linalg.norm(bright.xyz_angstrom[:, None] - off, axis=-1).min(axis=1)
    assert np.average(inside, weights=bright.mass_kilodalton) < 2 * 1.5 * 6


def test_a_contour_cuts_and_the_mass_follows_the_space_within(tmp_path: pathlib.Path) -> None:
    density = blobs((24, 24, 24), np.array([[12.0, 12, 12]]), 3.0)
    write_map(tmp_path / "ball.mrc", density, 6.0)
    tight, wide = (map_to_beads(tmp_path / "ball.mrc", contour=c) for c in (0.5, 0.05))
    radius = 18 * np.sqrt(2 * np.log(2))
    assert tight.total_kilodalton == pytest.approx(4 / 3 * np.pi * radius**3 * 0.81e-3, rel=0.1)
    assert wide.radius_angstrom > 1.4 * tight.radius_angstrom
    with pytest.raises(InputError, match="above the contour"):
        map_to_beads(tmp_path / "ball.mrc", contour=2.0)


def test_atoms_of_a_file_become_beads_of_their_mass(tmp_path: pathlib.Path) -> None:
    structure = gemmi.Structure()
    structure.add_model(gemmi.Model(1))
    chain = gemmi.Chain("A")
    rng = np.random.default_rng(1)
    positions = rng.uniform(-40, 40, (400, 3)) * (1.5, 1, 0.5) + (100, 50, 20)
    for number, position in enumerate(positions):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(str(number + 1))
        atom = gemmi.Atom()
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*position)
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure[0].add_chain(chain)
    structure.make_mmcif_document().write_file(str(tmp_path / "body.cif"))
    structure.write_pdb(str(tmp_path / "body.pdb"))
    for name in ("body.cif", "body.pdb"):
        model = structure_beads(str(tmp_path / name))
        assert model.total_kilodalton == pytest.approx(400 * 12.011 * 1.07 / 1000, rel=0.01)
        assert 50 < model.radius_angstrom < 80
        spread = np.sqrt(np.average(model.xyz_angstrom**2, axis=0, weights=model.mass_kilodalton))
        expected = (positions - positions.mean(axis=0)).std(axis=0)
        blurred = np.sqrt(spread**2 + BEAD_SIGMA_ANGSTROM**2)
        assert np.all((spread <= expected) & (expected <= blurred))


def test_a_table_is_read_back(tmp_path: pathlib.Path) -> None:
    model = packaged_beads("6pxm")
    write_beads(tmp_path / "again.csv", model)
    again = read_beads(tmp_path / "again.csv")
    np.testing.assert_allclose(again.xyz_angstrom, model.xyz_angstrom, atol=0.1)
    np.testing.assert_allclose(again.mass_kilodalton, model.mass_kilodalton, atol=1e-3)
    assert again.source == model.source and "6pxm" in again.source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2", "first row"),
        ("x_angstrom,y_angstrom,z_angstrom,kilodalton\n1,2,3,x", "not four numbers"),
        ("x_angstrom,y_angstrom,z_angstrom,kilodalton\n1,2,3", "needs x, y, z"),
        ("x_angstrom,y_angstrom,z_angstrom,kilodalton\n1,2,3,-1", "needs x, y, z"),
        ("x_angstrom,y_angstrom,z_angstrom,kilodalton\n1,2,3,0", "no mass"),
        ("x_angstrom,y_angstrom,z_angstrom,kilodalton\n", "has 0 beads"),
    ],
)
def test_other_tables_are_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_beads(tmp_path / "bad.csv")


def test_files_that_are_no_structures_are_refused(tmp_path: pathlib.Path) -> None:
    for name, content in (("a.cif", b"nothing"), ("a.mrc", b"nothing"), ("a.pdb", b"nothing"), ("a.txt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            structure_beads(str(tmp_path / name))
    with pytest.raises(InputError, match="6qzp"):
        structure_beads("6qzz")


def test_packaged_shapes_have_the_sizes_of_the_challenge() -> None:
    assert {b.beads for b in BUILT_IN.values()} | set(COMPANY) | set(STRANGERS) == set(packaged_names())
    assert not set(STRANGERS) & (set(COMPANY) | {b.beads for b in BUILT_IN.values()})
    for type_ in CZII_TYPES:
        built_in = BUILT_IN[type_.name]
        model = packaged_beads(built_in.beads).scaled(float(np.mean(built_in.scales)))
        assert model.radius_angstrom == pytest.approx(type_.radius_angstrom, rel=0.27), type_.name


@pytest.mark.parametrize("name", ["6pxm", "6n4v"])
def test_shells_are_hollow_and_alike_from_all_sides(name: str) -> None:
    model = packaged_beads(name)
    distance = np.linalg.norm(model.xyz_angstrom, axis=1)
    middle = np.average(distance, weights=model.mass_kilodalton)
    assert model.mass_kilodalton[distance < 0.55 * middle].sum() < 0.01 * model.total_kilodalton
    inertia = np.einsum("n,ni,nj->ij", model.mass_kilodalton, model.xyz_angstrom, model.xyz_angstrom)
    axes = np.linalg.eigvalsh(inertia)
    assert axes[0] > 0.97 * axes[2]


def test_beta_galactosidase_keeps_its_three_half_turns() -> None:
    model = packaged_beads("6drv")
    _, axes = np.linalg.eigh(np.einsum("n,ni,nj->ij", model.mass_kilodalton, model.xyz_angstrom, model.xyz_angstrom))

    def drawn(xyz: np.ndarray) -> np.ndarray:
        grid = np.zeros((24, 24, 24))
        np.add.at(grid, tuple(np.clip(np.round(xyz / 10 + 12), 0, 23).astype(int).T), model.mass_kilodalton)
        return gaussian_filter(grid, 1.0)

    own = drawn(model.xyz_angstrom).ravel()
    for axis in axes.T:
        turned = model.xyz_angstrom @ Rotation.from_rotvec(np.pi * axis).as_matrix().T
        assert np.corrcoef(own, drawn(turned).ravel())[0, 1] > 0.9
    tilted = model.xyz_angstrom @ Rotation.from_rotvec(0.5 * np.pi * axes[:, 0]).as_matrix().T
    assert np.corrcoef(own, drawn(tilted).ravel())[0, 1] < 0.9


def test_a_type_without_a_structure_keeps_its_globule() -> None:
    model, again, other = (globule_beads(n, 110.0) for n in ("unknown", "unknown", "other"))
    np.testing.assert_array_equal(model.xyz_angstrom, again.xyz_angstrom)
    assert not np.array_equal(model.xyz_angstrom, other.xyz_angstrom)
    assert model.radius_angstrom == pytest.approx(110, abs=BEAD_SIGMA_ANGSTROM)
    np.testing.assert_allclose(model.mass_kilodalton @ model.xyz_angstrom, 0, atol=1e-9)
