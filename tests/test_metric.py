"""The official score and its quirks, against an independent brute-force count."""

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, ParticleType, Picks
from jaxcryo.metric import Counts, count_matches, score

ONE = (ParticleType(name="a", radius_angstrom=20, weight=2), ParticleType(name="b", radius_angstrom=20, weight=1))


def picks(run: str, a: list[list[float]], b: list[list[float]] = []) -> Picks:  # noqa: B006
    return Picks(
        run=run,
        types=ONE,
        xyz_angstrom=np.array([*a, *b], np.float64).reshape(-1, 3),
        type_index=np.array([0] * len(a) + [1] * len(b), np.int64),
    )


def test_counts_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    reference, candidates = rng.uniform(0, 100, (60, 3)), rng.uniform(0, 100, (90, 3))
    near = np.linalg.norm(reference[:, None] - candidates[None], axis=-1) <= 12
    hit = int(near.any(axis=1).sum())
    assert 5 < hit < 55
    counts = count_matches(reference, candidates, 12)
    assert counts == Counts(true_positive=hit, false_positive=90 - hit, false_negative=60 - hit)


def test_two_candidates_at_one_reference_make_one_false_positive() -> None:
    counts = count_matches(np.zeros((1, 3)), np.array([[0, 0, 1.0], [0, 0, -1]]), 5)
    assert counts == Counts(true_positive=1, false_positive=1, false_negative=0)


def test_one_candidate_between_two_references_makes_minus_one_false_positive() -> None:
    counts = count_matches(np.array([[0, 0, 1.0], [0, 0, -1]]), np.zeros((1, 3)), 5)
    assert counts == Counts(true_positive=2, false_positive=-1, false_negative=0)


def test_match_radius_is_half_the_particle_s() -> None:
    truth = {"r": picks("r", [[0, 0, 0]])}
    assert score(truth, {"r": picks("r", [[9.99, 0, 0]])}, ONE).counts[0].true_positive == 1
    assert score(truth, {"r": picks("r", [[10.01, 0, 0]])}, ONE).counts[0].true_positive == 0


def test_counts_are_summed_over_runs_before_f_beta() -> None:
    truth = {"r": picks("r", [[0, 0, 0], [50, 0, 0]]), "s": picks("s", [[0, 0, 0]])}
    found = {"r": picks("r", [[0, 0, 0]]), "s": picks("s", [[0, 0, 0], [90, 0, 0]])}
    counts = score(truth, found, ONE).counts[0]
    assert (counts.true_positive, counts.false_positive, counts.false_negative) == (2, 1, 1)
    p = r = 2 / 3
    assert counts.f_beta == pytest.approx(17 * p * r / (16 * p + r))


def test_a_run_without_candidates_counts_as_missed_and_foreign_runs_do_not_count() -> None:
    truth = {"r": picks("r", [[0, 0, 0]])}
    assert score(truth, {"x": picks("x", [[0, 0, 0]])}, ONE).counts[0] == Counts(false_negative=1)


def test_absent_types_count_zero_with_their_weight() -> None:
    truth = {"r": picks("r", [[0, 0, 0]])}
    assert score(truth, truth, ONE).weighted_f4 == pytest.approx(2 / 3)


def test_perfect_answer_scores_one_whatever_beta_amylase_does() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 5)
    truth = Picks(run="r", types=CZII_TYPES, xyz_angstrom=rng.uniform(0, 6000, (30, 3)), type_index=kinds)
    found = truth.select(kinds != 5)
    assert score({"r": truth}, {"r": found}, CZII_TYPES).weighted_f4 == pytest.approx(1)
