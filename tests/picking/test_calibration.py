"""Scores become chances that hold, and thresholds follow from them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcryo.calibration import Calibration, TypeCalibration, mean_calibration
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.picking.aim import AIMS
from jaxcryo.picking.calibrate import are_right, calibrate, reliability_bins
from jaxcryo.picking.level import score_level
from jaxcryo.picking.places import close_pairs, one_type_per_place
from jaxcryo.picking.thresholds import decide, expected_f, threshold_for
from jaxcryo.serialize import from_plain, to_plain

_TYPES = (
    ParticleType(name="large", radius_angstrom=150, threshold=0.5),
    ParticleType(name="small", radius_angstrom=60, threshold=0.5),
)


def _tomogram(seed: int, *, scale: float = 1.0, particles: int = 60, noise: int = 800) -> tuple[Picks, Picks]:
    """Candidates with scores of particles around 0.75 and an exponential tail of noise, and the truth."""
    rng = np.random.default_rng(seed)
    xyz, index, score, truth, truth_index = [], [], [], [], []
    for i in range(len(_TYPES)):
        places = np.stack(np.meshgrid(*[np.arange(10) * 400.0] * 3), -1).reshape(-1, 3) + 4000 * i
        places = places[rng.permutation(len(places))][: particles + noise]
        xyz.append(places)
        index.append(np.full(len(places), i))
        score.append(np.concatenate([0.75 + 0.12 * rng.normal(size=particles), 0.05 + rng.exponential(0.08, noise)]))
        truth.append(places[:particles])
        truth_index.append(np.full(particles, i))
    run = f"run{seed}"
    picks = Picks(
        run=run, types=_TYPES, xyz_angstrom=np.concatenate(xyz), type_index=np.concatenate(index),
        score=scale * np.concatenate(score),
    )  # fmt: skip
    known = Picks(run=run, types=_TYPES, xyz_angstrom=np.concatenate(truth), type_index=np.concatenate(truth_index))
    return picks, known


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    candidates, truths = zip(*(_tomogram(seed, scale=1 - 0.1 * seed) for seed in range(4)), strict=True)
    return calibrate(candidates, truths, _TYPES)


def test_chances_are_those_of_the_synthetic_scores(calibration: Calibration) -> None:
    candidates, truth = _tomogram(11)
    decision = decide([candidates], _TYPES, calibration)
    chance = decision.with_probabilities(candidates).probability
    assert chance is not None and candidates.score is not None
    for index in range(len(_TYPES)):
        mine, right = candidates.type_index == index, are_right(candidates, truth, index)
        assert chance[mine].sum() == pytest.approx(right.sum(), rel=0.15)
        bins = reliability_bins(chance[mine], right)
        error = sum(b.candidates * abs(b.chance - b.right) for b in bins) / sum(b.candidates for b in bins)
        assert error < 0.08
    assert calibration.expected_error is not None and calibration.expected_error < 0.05


@given(st.floats(0.3, 3.0))
def test_a_level_is_multiplied_with_the_scores(factor: float) -> None:
    score = _tomogram(3)[0].score
    assert score is not None
    level = score_level(score, 1)
    assert level is not None
    assert score_level(factor * score, 1) == pytest.approx(factor * level, rel=1e-6)


def test_thresholds_follow_a_change_of_scale(calibration: Calibration) -> None:
    plain, _ = _tomogram(5)
    weaker = dataclasses.replace(plain, score=0.8 * plain.score)
    for aim in AIMS:
        first, second = (decide([c], _TYPES, calibration, aim=aim) for c in (plain, weaker))
        assert [0.8 * t.threshold for t in first.types] == pytest.approx([t.threshold for t in second.types])
        assert len(first.select(plain)) == len(second.select(weaker))


def test_order_does_not_matter(calibration: Calibration) -> None:
    batch = [_tomogram(seed)[0] for seed in (7, 8, 9)]
    rng = np.random.default_rng(0)
    mixed = [picks.select(rng.permutation(len(picks))) for picks in (batch[2], batch[0], batch[1])]
    assert decide(batch, _TYPES, calibration) == decide(mixed, _TYPES, calibration)


def test_a_calibration_of_shuffled_candidates_is_the_same(calibration: Calibration) -> None:
    rng = np.random.default_rng(0)
    candidates, truths = zip(*(_tomogram(seed, scale=1 - 0.1 * seed) for seed in range(4)), strict=True)
    again = calibrate([p.select(rng.permutation(len(p))) for p in candidates], truths, _TYPES)
    for first, second in zip(calibration.types, again.types, strict=True):
        assert first is not None and second is not None
        assert dataclasses.astuple(first) == pytest.approx(dataclasses.astuple(second), rel=1e-3)


def test_aims_are_ordered_and_mean_what_they_say(calibration: Calibration) -> None:
    candidates, truth = _tomogram(12)
    picks = {aim: decide([candidates], _TYPES, calibration, aim=aim).select(candidates) for aim in AIMS}
    assert len(picks["recall"]) >= len(picks["balanced"]) >= len(picks["precision"]) > 0
    for index in range(len(_TYPES)):
        for aim, least in (("recall", 0.95), ("precision", 0.5)):
            found = are_right(picks[aim], truth, index)
            assert found.sum() >= least * (truth.type_index == index).sum()
        assert are_right(picks["precision"], truth, index).mean() > 0.9


@given(st.integers(0, 1000), st.sampled_from([1.0, 4.0]))
def test_expected_f_is_close_to_the_mean_of_draws(seed: int, beta: float) -> None:
    rng = np.random.default_rng(seed)
    chance = np.sort(rng.beta(0.5, 1.0, 200))[::-1]
    taken = np.arange(1, 201)
    expected = expected_f(np.cumsum(chance), taken, float(chance.sum()), beta)
    drawn = rng.random((400, 200)) < chance
    hits = drawn.cumsum(axis=1)
    mean = np.mean((1 + beta**2) * hits / (beta**2 * hits[:, -1:] + taken), axis=0)
    np.testing.assert_allclose(expected[20:], mean[20:], atol=0.03)


def test_precision_takes_as_many_as_it_may() -> None:
    score, chance = np.linspace(1, 0.1, 10), np.array([1, 1, 1, 1, 0.9, 0.85, 0.5, 0.2, 0.1, 0])
    threshold = threshold_for("precision", score, chance)
    assert (score > threshold).sum() == 6
    assert threshold_for("precision", score, np.full(10, 0.5)) == score[0]


def test_precision_that_nothing_reaches_is_said(calibration: Calibration) -> None:
    candidates, _ = _tomogram(12)
    doubtful = tuple(dataclasses.replace(c, intercept=c.intercept - 20) for c in calibration.types if c is not None)
    doubting = dataclasses.replace(calibration, types=doubtful)
    decision = decide([candidates], _TYPES, doubting, aim="precision")
    assert len(decision.select(candidates)) == 0
    said = decision.sentence()
    assert "95%" in said and all(
        f"{t.name} {d.best_chance:.0%}" in said for t, d in zip(_TYPES, decision.decided, strict=True)
    )
    given = decide([candidates], _TYPES, doubting, aim="precision", given={_TYPES[0].name: 0.5})
    assert given.decided[0].best_chance is None and given.decided[1].best_chance is not None
    for aim, known in (("balanced", doubting), ("precision", calibration)):
        assert "95%" not in decide([candidates], _TYPES, known, aim=aim).sentence()


def test_few_candidates_keep_the_models_thresholds(calibration: Calibration) -> None:
    few = _tomogram(4)[0].select(np.arange(10))
    decision = decide([few], _TYPES, calibration)
    assert [t.threshold for t in decision.types] == [t.threshold for t in _TYPES]
    assert not any(d.adapted for d in decision.decided)
    chance = decision.select(few).probability
    assert chance is not None and np.all((chance >= 0) & (chance <= 1))


def test_without_a_calibration_nothing_changes() -> None:
    candidates, _ = _tomogram(4)
    decision = decide([candidates], _TYPES, None)
    picks = decision.select(candidates)
    assert decision.types == _TYPES
    assert picks.probability is None
    assert np.array_equal(picks.score, candidates.score[candidates.score > 0.5])


def test_a_type_that_is_absent_does_not_turn_noise_into_hundreds_of_picks(calibration: Calibration) -> None:
    candidates, _ = _tomogram(6, particles=0)
    picks = decide([candidates], _TYPES, calibration).select(candidates)
    assert len(picks) < 0.1 * len(candidates)


def test_a_second_candidate_at_a_particle_is_not_right() -> None:
    truth = Picks(run="r", types=_TYPES, xyz_angstrom=np.array([[100.0, 100, 100]]), type_index=np.array([0]))
    found = Picks(
        run="r", types=_TYPES, xyz_angstrom=np.array([[110.0, 100, 100], [100, 100, 100], [100, 100, 100]]),
        type_index=np.array([0, 0, 1]), score=np.array([0.9, 0.8, 1.0]),
    )  # fmt: skip
    assert are_right(found, truth, 0).tolist() == [True, False]
    assert are_right(found, truth, 1).tolist() == [False]


def test_a_calibration_is_stored_whole(calibration: Calibration) -> None:
    assert from_plain(Calibration, to_plain(calibration), "it") == calibration
    assert mean_calibration([calibration]) == calibration
    assert mean_calibration([calibration, None]) is None
    both = mean_calibration([calibration, calibration])
    assert both is not None and both.types[0] is not None and calibration.types[0] is not None
    assert dataclasses.astuple(both.types[0]) == pytest.approx(dataclasses.astuple(calibration.types[0]))


def test_a_chance_that_falls_with_the_score_is_refused() -> None:
    with pytest.raises(InputError, match="falling"):
        TypeCalibration(level=0.5, level_spread=0.1, intercept=0, slope=-1, bend=0, right=10)


def test_calibrating_needs_truths_of_the_same_tomograms() -> None:
    candidates, truth = _tomogram(0)
    with pytest.raises(InputError, match="run0"):
        calibrate([candidates], [dataclasses.replace(truth, run="other")], _TYPES)


def _pair_of_types(seed: int) -> tuple[Picks, Picks]:
    """Large and small particles; each also has a candidate of the other type with a lower score."""
    rng = np.random.default_rng(seed)
    picks, truth = _tomogram(seed)
    is_particle = np.array([any(np.all(truth.xyz_angstrom == x, axis=1)) for x in picks.xyz_angstrom])
    ghosts = picks.select(np.flatnonzero(is_particle))
    assert picks.score is not None and ghosts.score is not None
    return dataclasses.replace(
        picks,
        xyz_angstrom=np.concatenate([picks.xyz_angstrom, ghosts.xyz_angstrom + 5]),
        type_index=np.concatenate([picks.type_index, 1 - ghosts.type_index]),
        score=np.concatenate([picks.score, 0.75 * ghosts.score + 0.03 * rng.normal(size=len(ghosts))]),
    ), truth


def test_one_place_keeps_particles_and_drops_their_ghosts() -> None:
    candidates, truths = zip(*map(_pair_of_types, range(3)), strict=True)
    calibration = calibrate(candidates, truths, _TYPES)
    assert {(r.type_index, r.rival_index) for r in calibration.rivals} == {(0, 1), (1, 0)}
    fresh, truth = _pair_of_types(20)
    with_ghosts, without = (
        decide([fresh], _TYPES, calibration, aim="balanced", one_type_per_place=on).select(fresh)
        for on in (False, True)
    )
    right = [sum(int(are_right(p, truth, i).sum()) for i in range(2)) for p in (with_ghosts, without)]
    assert right[1] >= right[0] - 1
    assert len(without) - right[1] < 0.8 * (len(with_ghosts) - right[0])


def test_one_place_does_not_depend_on_order() -> None:
    candidates, truths = zip(*map(_pair_of_types, range(3)), strict=True)
    calibration = calibrate(candidates, truths, _TYPES)
    fresh, _ = _pair_of_types(21)
    mixed = fresh.select(np.random.default_rng(1).permutation(len(fresh)))
    first, second = (decide([p], _TYPES, calibration).select(p) for p in (fresh, mixed))
    assert first.score is not None and second.score is not None
    assert sorted(first.score.tolist()) == sorted(second.score.tolist())


def test_types_of_which_nothing_is_known_share_a_place() -> None:
    picks, _ = _pair_of_types(0)
    assert len(one_type_per_place(picks, np.ones(len(picks)), (), least_chance=0.5)) == len(picks)
    assert len(close_pairs(picks)) > 0
