"""Labels that are not complete: what is unknown teaches nothing, and what is held out is never learned."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.cli.labels import with_far_below
from jaxcryo.config import AugmentConfig, IntensityConfig, LossConfig, PartialConfig, TrainConfig
from jaxcryo.data.augment import augment, augment_known
from jaxcryo.data.collection import collect, epoch_grid, rows_of_step
from jaxcryo.data.marks import Marks, known_voxels
from jaxcryo.data.samples import Batch
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.picking.stitch import Slab
from jaxcryo.picks.corrections import Region
from jaxcryo.recipes import recipe
from jaxcryo.training.held_out_part import held_out_part
from jaxcryo.training.loss import loss_parts
from jaxcryo.training.source import Example
from jaxcryo.training.starting_model import far_below, taken_over
from jaxcryo.training.state import initial_state
from jaxcryo.training.step import first_copy, over_devices, replicate
from jaxcryo.training.teacher import filled_in
from jaxcryo.weights import TrainedModel

SHAPE = (2, 3, 4, 6, 8)
PARTIAL = PartialConfig()


def picks_of(xyz: list[list[float]], kinds: list[int], types: tuple[ParticleType, ...] = CZII_TYPES[:3]) -> Picks:
    return Picks(
        run="TS_1",
        types=types,
        xyz_angstrom=np.array(xyz, np.float64).reshape(-1, 3),
        type_index=np.array(kinds, np.int64),
    )


NONE = Marks(none=picks_of([], []))


@pytest.mark.parametrize("kind", ["weighted", "balanced"])
def test_unknown_voxels_have_no_gradient(kind: str) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    predicted, target = jax.random.normal(keys[0], SHAPE), jax.random.uniform(keys[1], SHAPE)
    known = jax.random.bernoulli(keys[2], 0.4, SHAPE).astype(jnp.float32)
    config = LossConfig(kind=kind)  # type: ignore[arg-type]

    def gradient(weight, target=target):
        return np.asarray(jax.grad(lambda p: sum(loss_parts(p, target, config, weight=weight)))(predicted))

    moved = gradient(known)
    assert np.all(moved[np.asarray(known) == 0] == 0) and np.all(moved[np.asarray(known) == 1] != 0)
    other = jnp.where(known > 0, target, 1 - target)  # what an unknown voxel's target is does not matter
    np.testing.assert_array_equal(moved, gradient(known, other))
    np.testing.assert_array_equal(gradient(jnp.ones(SHAPE)), gradient(None))


def test_the_teacher_is_believed_late_where_it_is_sure_and_has_learned_the_type() -> None:
    target = np.zeros(SHAPE, np.float32)
    target[0, :, 0, 0, 0] = 1  # a marked particle of each type
    known = np.zeros(SHAPE, np.float32)
    known[0, :, 0] = 1
    answer = np.full(SHAPE, 0.3, np.float32)
    answer[:, :, 3] = 0.001
    answer[:, :, 2] = 0.9
    answer[0, 0, 0, 0, 0], answer[0, 1, 0, 0, 0] = 0.8, 0.05  # the second type is not learned yet

    def fill(progress: float, config: PartialConfig = PARTIAL):
        made = filled_in(target, known, answer, jnp.asarray(progress), config)
        return [np.asarray(v) for v in made]

    filled, weight = fill(0.1)
    np.testing.assert_array_equal(weight, known)
    filled, weight = fill(0.9)
    learned = np.array([True, False, False])  # of the third there is no answer at its particle: 0.3
    sure = ((answer < PARTIAL.surely_none) | (answer > PARTIAL.surely_one)) & (known == 0)
    np.testing.assert_array_equal(weight[:, learned], np.where(known > 0, 1, sure)[:, learned])
    np.testing.assert_array_equal(weight[:, ~learned], known[:, ~learned])
    np.testing.assert_array_equal(filled[known > 0], target[known > 0])
    np.testing.assert_array_equal(filled[:, 0, 2], answer[:, 0, 2])
    assert not filled[:, 0, 3].any()
    # From scratch unknown voxels count a little as background, and no longer once the teacher is heard.
    scratch = dataclasses.replace(PARTIAL, unknown_weight=0.1)
    np.testing.assert_allclose(fill(0.1, scratch)[1], np.where(known > 0, 1, 0.1))
    np.testing.assert_array_equal(fill(0.9, scratch)[1], weight)
    # Where the starting model lacks one type, only its unknown voxels do.
    one = fill(0.1, dataclasses.replace(scratch, new_types=(1,)))[1]
    np.testing.assert_allclose(one, np.where(known > 0, 1, np.array([0, 0.1, 0])[:, None, None, None]))


def test_what_marks_say_of_voxels() -> None:
    grid = VoxelGrid(shape_zyx=(40, 50, 60), spacing_zyx_angstrom=(10.0,) * 3)
    apo, _, ribosome = CZII_TYPES[:3]
    places = grid.to_angstrom(np.array([[20.0, 20.0, 20.0], [20.0, 20.0, 45.0]]))
    picks = picks_of(places[:1].tolist(), [2])
    marks = Marks(
        none=picks_of(places[1:].tolist(), [0]),
        complete=(Region(low_xyz_angstrom=(-10, -10, 250), high_xyz_angstrom=(600, 500, 400)),),
    )
    known = known_voxels(picks, marks, grid, PARTIAL)
    away = [np.linalg.norm((np.indices(grid.shape_zyx).T - c).T * 10, axis=0) for c in ([20, 20, 20], [20, 20, 45])]
    # Voxel centers from a radius within the region's lower edge on; its other sides are the tomogram's.
    z = np.indices(grid.shape_zyx)[0]
    inside = [z >= 25.5 + t.radius_angstrom / 10 for t in CZII_TYPES[:3]]
    expected = [
        (away[0] <= 0.5 * apo.radius_angstrom) | (away[1] <= 0.5 * apo.radius_angstrom) | inside[0],
        (away[0] <= 0.5 * CZII_TYPES[1].radius_angstrom) | inside[1],
        (away[0] <= 1.4 * ribosome.radius_angstrom) | inside[2],
    ]
    assert inside[0].any() and inside[1].any() and not inside[2].any()
    np.testing.assert_array_equal(known, np.array(expected))
    everything = np.ones((3, 8, 50, 60), np.uint8)
    further = known_voxels(picks_of([], []), NONE, grid, PARTIAL, far_below=[(8, everything)])
    assert further[:, 8:16].all() and not further[:, :8].any() and not further[:, 16:].any()


@pytest.mark.slow
def test_what_is_known_moves_with_its_window() -> None:
    config = AugmentConfig(warp_probability=1.0, intensity_probability=0.0, flip_z_probability=0.5)
    mask = np.zeros((8, 32, 32), np.float32)
    mask[2:5, 8:20, 4:30] = 1
    for seed in range(4):
        key = jax.random.key(seed)
        window, _ = augment(jnp.asarray(mask), jnp.zeros((1, 3)), key=key, config=config)
        known = augment_known(jnp.asarray(np.stack([mask, 0 * mask])), key=key, config=config)
        np.testing.assert_array_equal(known[0], np.asarray(window) > 0.999)
        assert known[0].sum() > 0 and not known[1].any()


@pytest.mark.parametrize("arch", ["yu4u", "tattaka"])
def test_heads_go_by_name(arch: str) -> None:
    old = (CZII_TYPES[2], CZII_TYPES[0])
    new = (ParticleType(name="proteasome", radius_angstrom=80), CZII_TYPES[0], CZII_TYPES[2])
    config, before = (recipe(arch, "tiny", classes=len(t)).model for t in (new, old))
    (_, fresh, _), (_, given, _) = build(config, seed=1), build(before, seed=2)
    given = {k: v + 1 for k, v in given.items()}
    merged, taken = taken_over(fresh, given, config, new, old)
    assert taken == len(fresh)
    for key, value in merged.items():
        if value.shape == given[key].shape and "head" not in key:
            np.testing.assert_array_equal(value, given[key])
    for key in [k for k in merged if k.startswith("head.")]:
        own, first, its = (np.asarray(w[key]).reshape(*w[key].shape[:-1], n, -1)
                           for w, n in ((merged, 3), (fresh, 3), (given, 2)))  # fmt: skip
        np.testing.assert_array_equal(own[..., 0, :], first[..., 0, :])
        np.testing.assert_array_equal(own[..., 1, :], its[..., 1, :])
        np.testing.assert_array_equal(own[..., 2, :], its[..., 0, :])


def test_what_is_far_below_is_asked_of_types_that_the_model_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    old = tuple(dataclasses.replace(t, threshold=h) for t, h in ((CZII_TYPES[2], 0.5), (CZII_TYPES[0], 0.2)))
    config = recipe("tattaka", "tiny", classes=2)
    _, params, stats = build(config.model, seed=None)
    model = TrainedModel(
        config=config, types=old, spacing_angstrom=10.0, params=params, stats=stats, source="before"
    )  # fmt: skip
    heatmap = np.random.default_rng(0).uniform(0, 0.1, (2, 4, 5, 6)).astype(np.float32)
    slabs = [Slab(z_start=z, heatmap=heatmap[:, z : z + 2]) for z in (0, 2)]
    monkeypatch.setattr("jaxcryo.training.starting_model.heatmap_slabs", lambda volume, models: slabs)
    new = (CZII_TYPES[0], ParticleType(name="proteasome", radius_angstrom=80), CZII_TYPES[2])
    found = list(far_below(model, numbered((4, 5, 6)).volume, new, 0.1))
    assert [z for z, _ in found] == [0, 2]
    ribosome, apo = heatmap[0] < 0.05, heatmap[1] < 0.02
    np.testing.assert_array_equal(np.concatenate([k for _, k in found], axis=1), [apo, np.zeros_like(apo), ribosome])


def test_the_starting_model_sees_what_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(0).normal(size=(24, 48, 48)).astype(np.float32)
    voxels[8:20, 8:20, 8:20] += 8  # a bright body
    example = numbered(voxels.shape)
    example = dataclasses.replace(example, volume=dataclasses.replace(example.volume, voxels=voxels))
    fixed = IntensityConfig(rule="fixed", mean=1e-6, std=1e-5)
    config = dataclasses.replace(recipe("tattaka", "tiny", classes=3), intensity=fixed, partial=PARTIAL)
    model = TrainedModel(
        config=config, types=CZII_TYPES[:3], spacing_angstrom=10.0, skewness=1.0, params={}, stats={}, source="before"
    )
    seen: list[Volume] = []
    monkeypatch.setattr("jaxcryo.cli.labels.far_below", lambda model, volume, types, share: seen.append(volume))
    notes: list[str] = []
    asked = with_far_below(example, model, config, notes.append)
    assert asked.far_below is not None and not notes
    asked.far_below()
    measured = seen[0].load()
    np.testing.assert_allclose((measured.mean(), measured.std()), (1e-6, 1e-5), rtol=1e-3)
    opposite = with_far_below(example, dataclasses.replace(model, skewness=-1.0), config, notes.append)
    assert opposite.far_below is None and "TS_1" in notes[0] and "opposite" in notes[0]


def numbered(shape: tuple[int, int, int]) -> Example:
    """A tomogram whose voxels are their numbers, and picks all over it."""
    grid = VoxelGrid(shape_zyx=shape, spacing_zyx_angstrom=(10.0, 10.0, 10.0))
    rng = np.random.default_rng(1)
    zyx = rng.integers(0, shape, (60, 3)).astype(np.float64)
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    picks = picks_of(grid.to_angstrom(zyx).tolist(), rng.integers(0, 3, 60).tolist())
    return Example(volume=Volume(name="TS_1", voxels=voxels, grid=grid), picks=picks, marks=Marks(none=picks))


@pytest.mark.parametrize("shape", [(24, 64, 200), (24, 200, 80), (120, 40, 40)])
def test_a_held_out_part_shares_no_voxel_with_the_training(shape: tuple[int, int, int]) -> None:
    whole = numbered(shape)
    parts = held_out_part(whole, (16, 32, 32))
    learned, measured = (p.volume.load() for p in (parts.training, parts.held_out))
    assert not set(learned.ravel().tolist()) & set(measured.ravel().tolist())
    margin = 2 * max(t.radius_angstrom for t in whole.picks.types)
    for example, voxels in ((parts.training, learned), (parts.held_out, measured)):
        grid = example.volume.grid
        assert example.marks is not None
        places = example.marks.none.xyz_angstrom  # all picks that are in the part
        place = np.rint(grid.to_voxel(places)).astype(int)
        old = np.rint(whole.volume.grid.to_voxel(places)).astype(int)
        np.testing.assert_array_equal(voxels[tuple(place.T)], whole.volume.voxels[tuple(old.T)])
        assert len(places) > 0
    assert parts.training.marks is not None and len(parts.held_out.picks)
    inside = parts.training.marks.none.xyz_angstrom
    between = np.abs(inside[:, None] - parts.held_out.picks.xyz_angstrom[None])
    assert (between.max(axis=2) >= margin).all()
    # Of the others only those are learned that reach in, and none of them is held out.
    learned_places, held_places = (
        {tuple(p) for p in e.picks.xyz_angstrom.tolist()} for e in (parts.training, parts.held_out)
    )
    assert {tuple(p) for p in inside.tolist()} <= learned_places and not learned_places & held_places
    assert measured.size >= 0.2 * np.prod(shape) and str(len(parts.held_out.picks)) in parts.about


def test_a_tomogram_too_small_for_two_parts_is_refused() -> None:
    with pytest.raises(InputError, match="TS_1"):
        held_out_part(numbered((16, 32, 40)), (16, 32, 32))


@pytest.mark.slow
def test_a_step_with_nothing_known_learns_nothing(config: TrainConfig, examples: list[Example]) -> None:
    partial = dataclasses.replace(
        config, partial=PARTIAL, optim=dataclasses.replace(config.optim, weight_decay=0.0, clip_norm=None)
    )
    network, params, stats = build(partial.model)
    types = examples[0].picks.types
    devices = jax.local_devices()[:1]
    step = over_devices(network, partial, sigmas_voxel(types, partial.target, 10.0), devices)
    norms = []
    for value in (0, 1):
        known = [np.full((len(types), *e.volume.grid.shape_zyx), value, np.uint8) for e in examples]
        collection = collect(
            [e.volume for e in examples], [e.picks for e in examples], partial.intensity, partial.model.patch_zyx,
            known=known,
        )  # fmt: skip
        grid = epoch_grid([e.volume.grid.shape_zyx for e in examples], partial.model.patch_zyx, partial.crop)
        rows = rows_of_step(grid, seed=0, step=0, batch=partial.optim.batch).reshape(1, -1, 4)
        state = replicate(
            initial_state(params, stats, total_steps=20, config=partial.optim, half_precision=False), devices
        )
        state, metrics = step(state, Batch(collection=replicate(collection, devices), rows=rows))
        norms.append(float(metrics["gradient_norm"][0]))
        still = all(np.array_equal(first_copy(state).params[k], params[k]) for k in params)
        assert still == (value == 0 or float(metrics["learning_rate"][0]) == 0)
    assert norms[0] == 0 < norms[1]
