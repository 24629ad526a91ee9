"""What thresholds without truth lose to the best in hindsight, over families of phantoms.

    python benchmarks/thresholds.py --engines jaxcryo/demo --runs 2

makes phantoms of several families of imaging, picks them with each model, calibrates it on all families but one,
chooses thresholds on that one, and prints weighted F4 and what is lost. With the bundled models on two cores: about a
minute a phantom.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxcryo.calibration import Calibration
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.metric import Score, score
from jaxcryo.phantom.dataset import PhantomConfig, make_phantom
from jaxcryo.phantom.imaging import Imaging, Optics
from jaxcryo.picking.aim import AIMS
from jaxcryo.picking.calibrate import are_right, calibrate
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.candidates import floor_of
from jaxcryo.runtime.backends import choose_backend, open_model
from jaxcryo.runtime.manifest import read_manifest

FAMILIES = {
    "as trained": (Imaging(), 1.0),
    "noisy": (Imaging(noise=0.16), 1.3),
    "narrow tilts": (Imaging(tilt_range_degree=45, wedge_edge_degree=20), 1.0),
    "fine grain": (Imaging(grain_voxel=1.8, noise=0.12), 1.0),
    "other defocus": (Imaging(optics=Optics(defocus_angstrom=20000, resolution_angstrom=20)), 1.0),
}

Pairs = Sequence[tuple[Picks, Picks]]
"""Candidates and truth of the tomograms of a family."""


def main() -> None:
    """Makes, picks, calibrates, compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=pathlib.Path, default=pathlib.Path("jaxcryo/demo"))
    parser.add_argument("--runs", type=int, default=2, help="phantoms of each family")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 320, 320))
    options = parser.parse_args()
    entries = read_manifest(options.engines)
    backend, _ = choose_backend("auto", options.engines, entries)
    rows: dict[str, list[tuple[Score, float]]] = {}
    for entry in entries:
        engine = open_model(options.engines, entry, backend)
        families: dict[str, list[tuple[Picks, Picks]]] = {}
        for number, (family, (imaging, difficulty)) in enumerate(FAMILIES.items()):
            for run in range(options.runs):
                config = PhantomConfig(shape_zyx=tuple(options.shape), imaging=imaging, difficulty=difficulty)
                volume, truth = make_phantom(config, seed=(7, number, run), name=f"{number}_{run}")
                candidates = find_picks(
                    fit_volume(volume, [entry]),
                    [engine],
                    entry.types,
                    config=entry.inference,
                    floor=floor_of(entry.types),
                )
                families.setdefault(family, []).append((candidates, truth))
                print(f"{entry.name}: {family} {run + 1}, {len(candidates)} candidates", flush=True)
        for family, pairs in families.items():
            others = [pair for name, own in families.items() if name != family for pair in own]
            calibration = calibrate([c for c, _ in others], [t for _, t in others], entry.types)
            best = _score(pairs, [best_threshold(pairs, i) for i in range(len(entry.types))])
            for name, result in {
                "best in hindsight": best,
                "the model's own": _score(pairs, [t.threshold for t in entry.types]),
                "best of the other families": _score(
                    pairs, [best_threshold(others, i) for i in range(len(entry.types))]
                ),
                **_aims(pairs, entry.types, calibration),
            }.items():
                rows.setdefault(name, []).append((result, best.weighted_f4 - result.weighted_f4))
            print(f"{entry.name}: {family} left out, expected calibration error {calibration.expected_error:.3f}")
    print(f"{'':28} weighted F4   lost  worst  precision")
    for name, results in rows.items():
        lost = [loss for _, loss in results]
        found = sum(c.found for s, _ in results for c in s.counts)
        right = sum(c.true_positive for s, _ in results for c in s.counts)
        f4 = np.mean([s.weighted_f4 for s, _ in results])
        print(f"{name:28} {f4:11.3f} {np.mean(lost):6.3f} {max(lost):6.3f} {right / max(found, 1):10.3f}")


def _aims(pairs: Pairs, types: Sequence[ParticleType], calibration: Calibration) -> dict[str, Score]:
    results = {}
    for aim in AIMS:
        for alone in (False, True):
            decision = decide([c for c, _ in pairs], types, calibration, aim=aim, one_type_per_place=alone)
            found = {c.run: decision.select(c) for c, _ in pairs}
            results[aim + (", one type a place" if alone else "")] = score(_truth(pairs), found, types)
    return results


def _score(pairs: Pairs, thresholds: Sequence[float]) -> Score:
    limits = np.array(thresholds)
    found = {c.run: c.select(c.score > limits[c.type_index]) for c, _ in pairs if c.score is not None}
    return score(_truth(pairs), found, pairs[0][0].types)


def _truth(pairs: Pairs) -> dict[str, Picks]:
    return {c.run: dataclasses.replace(t, run=c.run) for c, t in pairs}


def best_threshold(pairs: Pairs, index: int) -> float:
    """The threshold of a type's highest F4 over these tomograms."""
    scores = np.concatenate([c.score[c.type_index == index] for c, _ in pairs if c.score is not None])
    right = np.concatenate([are_right(c, t, index) for c, t in pairs])
    particles = sum(int((t.type_index == index).sum()) for _, t in pairs)
    if not len(scores) or not particles:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    f4 = 17 * np.cumsum(right[order]) / (16 * particles + np.arange(1, len(order) + 1))
    return float(np.nextafter(scores[order][int(np.argmax(f4))], 0))


if __name__ == "__main__":
    main()
