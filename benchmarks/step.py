"""One training step of yu4u's network at paper size: ours, and PyTorch's float32 eager step on the same cores.

python benchmarks/step.py               (needs pip install -e '.[parity]')

Both take windows and targets that are ready, compute forward and backward passes in training mode, and move the
parameters by AdamW. Interleaved, medians.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import jax
import numpy as np
import optax

from jaxcryo.allocator import keep_freed_memory
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.training.loss import loss
from jaxcryo.training.state import optimizer

sys.path += [str(pathlib.Path(__file__).parents[1] / "tests" / p) for p in ("parity", ".")]


def main() -> None:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each")
    args = parser.parse_args()
    keep_freed_memory()  # for both
    config = recipe("yu4u")
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((args.batch, *config.model.patch_zyx)).astype(np.float32)
    targets = (rng.random((args.batch, config.model.classes, *config.model.patch_zyx)) ** 8).astype(np.float32)
    ours, theirs = _ours(config, windows, targets), _theirs(windows, targets)
    ours(), theirs()
    times = [(_seconds(theirs), _seconds(ours)) for _ in range(args.steps)]
    torch_seconds, jax_seconds = np.median(times, axis=0)
    print(f"batch {args.batch}: PyTorch {torch_seconds:.2f} s, ours {jax_seconds:.2f} s a step, "
          f"ratio {torch_seconds / jax_seconds:.2f}")  # fmt: skip


def _ours(config, windows, targets):  # type: ignore[no-untyped-def]
    network, params, stats = build(config.model)
    rule = optimizer(config.optim)

    @jax.jit
    def step(params, stats, state):  # type: ignore[no-untyped-def]
        def value(p):  # type: ignore[no-untyped-def]
            predicted, moved = network.apply_train(p, stats, windows)
            return loss(predicted, targets, config.loss), moved

        gradient, stats = jax.grad(value, has_aux=True)(params)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, jax.tree.map(lambda u: -1e-3 * u, updates)), stats, state

    tree = (params, stats, rule.init(params))

    def run() -> None:
        nonlocal tree
        tree = jax.block_until_ready(step(*tree))

    return run


def _theirs(windows, targets):  # type: ignore[no-untyped-def]
    import torch
    from torch_reference import Yu4u

    network = Yu4u().train()
    rule = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0)
    x, y = torch.from_numpy(windows)[:, None], torch.from_numpy(targets)

    def run() -> None:
        rule.zero_grad()
        ((network(x) - y) ** 2 * (y + 0.1)).mean().backward()
        rule.step()

    return run


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
