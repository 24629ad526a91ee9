"""One training step of the paper's networks: ours, and PyTorch's float32 eager step on the same cores.

python benchmarks/step.py               (needs pip install -e '.[parity]')
python benchmarks/step.py --arch yu4u --no-reference --profile 12

Both take windows and targets that are ready, compute forward and backward passes in training mode, and move the
parameters by AdamW. They take turns; medians. `--profile` lists the operations that XLA spends most of a step in.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcryo.allocator import keep_freed_memory
from jaxcryo.config import LossConfig, TrainConfig
from jaxcryo.models import Weights, architectures, build
from jaxcryo.recipes import recipe
from jaxcryo.training.loss import loss
from jaxcryo.training.state import optimizer

sys.path += [str(pathlib.Path(__file__).parents[1] / "tests" / p) for p in ("parity", ".")]


def main() -> None:
    """Prints the medians and their ratio for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(architectures()), nargs="+", default=tuple(architectures()))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of ours")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each")
    parser.add_argument("--no-reference", action="store_true", help="without PyTorch")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="of ours, the N longest operations")
    args = parser.parse_args()
    keep_freed_memory()  # for both
    for arch in args.arch:
        config = recipe(arch)
        rng = np.random.default_rng(0)
        windows = rng.standard_normal((args.batch, *config.model.patch_zyx)).astype(np.float32)
        targets = (rng.random((args.batch, config.model.classes, *config.model.patch_zyx)) ** 8).astype(np.float32)
        ours, program = _ours(config, windows, targets, args.precision)
        theirs = None if args.no_reference else _theirs(config, windows, targets)
        if theirs is not None:
            theirs()
        ours()  # compiles
        own, other = [], []
        for _ in range(args.steps):
            own.append(_seconds(ours))
            if theirs is not None:
                other.append(_seconds(theirs))
        said = f"{arch}, batch {args.batch}, {args.steps} steps: ours {np.median(own):.2f} s a step in {args.precision}"
        if other:
            said += f", PyTorch {np.median(other):.2f} s in float32, ratio {np.median(other) / np.median(own):.2f}"
        print(said)
        if args.profile:
            _print_longest(ours, program(), args.profile)


def _ours(
    config: TrainConfig, windows: np.ndarray, targets: np.ndarray, precision: str
) -> tuple[Callable[[], None], Callable[[], str]]:
    """A step, and the program that XLA made of it."""
    network, params, stats = build(config.model, dtype=jnp.dtype(precision))
    rule = optimizer(config.optim)

    @jax.jit
    def step(params: Weights, stats: Weights, state: Any, x: jax.Array, y: jax.Array) -> tuple[Weights, Weights, Any]:
        def value(p: Weights) -> tuple[jax.Array, Weights]:
            predicted, moved = network.apply_train(p, stats, x)
            return loss(predicted, y, LossConfig()), moved

        gradient, stats = jax.grad(value, has_aux=True)(params)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, jax.tree.map(lambda u: -1e-3 * u, updates)), stats, state  # type: ignore[return-value]

    tree: tuple[Weights, Weights, Any] = (params, stats, rule.init(params))
    batch = (jnp.asarray(windows), jnp.asarray(targets))

    def run() -> None:
        nonlocal tree
        tree = jax.block_until_ready(step(*tree, *batch))

    return run, lambda: step.lower(*tree, *batch).compile().as_text() or ""


def _print_longest(call: Callable[[], None], program: str, count: int) -> None:
    """The operations that take longest; those that run beside each other count in full."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            call()
        (file,) = pathlib.Path(folder).glob("**/perfetto_trace.json.gz")
        with gzip.open(file) as trace:
            events = json.load(trace)["traceEvents"]
    seconds: collections.Counter[str] = collections.Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op")
        if operation is not None and "dur" in event:
            seconds[operation] += event["dur"] / 1e6
    total = sum(seconds.values())
    shapes = dict(re.findall(r"^ *(?:ROOT )?%?([\w.-]+) = (\(?\w+\[[^]]*\])", program, re.MULTILINE))
    origins = dict(re.findall(r"^ *(?:ROOT )?%?([\w.-]+) = .*op_name=\"([^\"]*)\"", program, re.MULTILINE))
    for name, spent in seconds.most_common(count):
        print(f"  {spent:7.3f} s  {spent / total:5.1%}  {name}  {shapes.get(name, '')}  {origins.get(name, '')}")


def _theirs(config: TrainConfig, windows: np.ndarray, targets: np.ndarray) -> Callable[[], None]:
    import torch

    if config.arch == "yu4u":
        from torch_reference import Yu4u

        network = Yu4u().train()
    else:
        from torch_tattaka import Tattaka

        network = Tattaka(config.model).train()
    rule = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0)
    x, y = torch.from_numpy(windows)[:, None], torch.from_numpy(targets)
    alpha = LossConfig().alpha

    def run() -> None:
        rule.zero_grad()
        ((network(x) - y) ** 2 * (y + alpha)).mean().backward()
        rule.step()

    return run


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
