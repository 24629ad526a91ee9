"""Training samples per second: this project's, and the reference's way on the same cores.

python benchmarks/samples.py            (needs pip install -e '.[benchmark]')
taskset -c 0 python benchmarks/samples.py

The reference cuts image and stored masks with NumPy and warps both with OpenCV, four channels at a time as
albumentations does (masks without interpolation, as it does by default), without albumentations' own overhead. Ours
cuts, warps and draws the targets in one jitted function. Both write contiguous float32 arrays of the same shapes.
Measured in turns; the medians of the turns. Beside the time that passed stands the processors' time, which other
programs on the machine change less.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import cv2
import jax
import numpy as np

from jaxcryo.allocator import keep_freed_memory
from jaxcryo.data.collection import collect, epoch_grid
from jaxcryo.data.samples import draw_samples
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.recipes import recipe

BATCH = 8


def reference_sample(
    volume: np.ndarray, masks: np.ndarray, patch: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One sample as the published `MyDataset.__getitem__` and `get_train_transforms` make it."""
    depth, height, width = patch
    z, y, x = (int(rng.integers(0, n - w + 1)) for n, w in zip(volume.shape, patch, strict=True))
    box = np.s_[z : z + depth, y : y + height, x : x + width]
    image = volume[box].transpose(1, 2, 0)
    target = masks[box].transpose(1, 2, 0, 3).reshape(height, width, -1)
    if rng.random() < 0.5:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-180, 180), rng.uniform(0.9, 1.1))
        matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * (width, height)
        image = _warp(image, matrix, (width, height), cv2.INTER_LINEAR)
        target = _warp(target, matrix, (width, height), cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    if rng.random() < 0.3:
        image = image * np.float32(1 + rng.uniform(-0.3, 0.3)) + np.float32(rng.uniform(-0.3, 0.3))
    window = np.ascontiguousarray(image.transpose(2, 0, 1))
    return window, np.ascontiguousarray(target.reshape(height, width, depth, -1).transpose(3, 2, 0, 1))


def _warp(array: np.ndarray, matrix: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(array[..., i : i + 4]), matrix, size, flags=how, borderMode=cv2.BORDER_CONSTANT
        )
        for i in range(0, array.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1, help="of each turn")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    keep_freed_memory()
    cores = len(os.sched_getaffinity(0))
    cv2.setNumThreads(cores)
    config = PhantomConfig(shape_zyx=(96, 320, 320))
    volume, picks = make_phantom(config, seed=0)
    print(f"{cores} cores  {'samples/s':>18}         {'processor ms/sample':>20}")
    print(f"{'':10}  reference    ours  ratio  reference    ours  ratio")
    arches: tuple[str, ...] = ("yu4u", "tattaka")
    for arch in arches:
        c = recipe(arch)
        patch = c.model.patch_zyx
        collection = collect([volume], [picks], c.intensity, patch)
        masks = np.zeros((*config.shape_zyx, 6), np.float32)
        rng, image = np.random.default_rng(0), np.asarray(collection.volumes[0])  # type: ignore[index]
        sigma = sigmas_voxel(config.types, c.target, config.spacing_angstrom)
        rows = np.resize(epoch_grid([config.shape_zyx], patch, c.crop), (BATCH, 4))
        draw = jax.jit(
            lambda collection, rows, keys: draw_samples(
                collection, rows, keys=keys, patch_zyx=patch, sigma_voxel=sigma, crop=c.crop,  # noqa: B023
                augmentation=c.augment, target=c.target,  # noqa: B023
            )
        )  # fmt: skip

        def theirs(_: int) -> None:
            for _ in range(BATCH):
                reference_sample(image, masks, patch, rng)  # noqa: B023

        def ours(n: int) -> None:
            jax.block_until_ready(draw(collection, rows, jax.random.split(jax.random.key(n), BATCH)))  # noqa: B023

        theirs(0), ours(0)
        turns = [(_turn(theirs, args.seconds), _turn(ours, args.seconds)) for _ in range(args.turns)]
        (reference, reference_cpu), (own, own_cpu) = np.median(turns, axis=0)
        print(
            f"{arch:10}  {1 / reference:9.1f}  {1 / own:6.1f}  {reference / own:5.1f}"
            f"  {1e3 * reference_cpu:9.2f}  {1e3 * own_cpu:6.2f}  {reference_cpu / own_cpu:5.1f}"
        )


def _turn(call: Callable[[int], None], seconds: float) -> tuple[float, float]:
    """Time that passed and time of the processors, for one sample."""
    began, cpu, n = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        n += 1
        call(n)
    return (time.perf_counter() - began) / (n * BATCH), (time.process_time() - cpu) / (n * BATCH)


if __name__ == "__main__":
    main()
