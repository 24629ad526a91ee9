"""Training samples per second: this project's, and the reference's way on the same cores.

python benchmarks/samples.py            (needs pip install -e '.[benchmark]')

The reference cuts image and stored masks with NumPy and warps both with OpenCV, four channels at a time as
albumentations does; ours cuts, warps and draws the targets in one jitted function.
"""

from __future__ import annotations

import argparse
import time

import cv2
import jax
import numpy as np

from jaxcryo.config import Arch
from jaxcryo.data.collection import collect, epoch_grid
from jaxcryo.data.samples import draw_samples
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.recipes import recipe

BATCH = 8


def reference_sample(volume: np.ndarray, masks: np.ndarray, patch: tuple[int, int, int], rng: np.random.Generator):
    """One sample as the published `MyDataset.__getitem__` and `get_train_transforms` make it."""
    depth, height, width = patch
    z, y, x = (int(rng.integers(0, n - w + 1)) for n, w in zip(volume.shape, patch, strict=True))
    box = np.s_[z : z + depth, y : y + height, x : x + width]
    image = np.ascontiguousarray(volume[box].transpose(1, 2, 0))
    target = np.ascontiguousarray(masks[box].transpose(1, 2, 0, 3).reshape(height, width, -1))
    if rng.random() < 0.5:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-180, 180), rng.uniform(0.9, 1.1))
        matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * (width, height)
        image, target = (_warp(a, matrix, (width, height)) for a in (image, target))
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    if rng.random() < 0.3:
        image = image * np.float32(1 + rng.uniform(-0.3, 0.3)) + np.float32(rng.uniform(-0.3, 0.3))
    window = np.ascontiguousarray(image.transpose(2, 0, 1))
    return window, np.ascontiguousarray(target.reshape(height, width, depth, -1).transpose(3, 2, 0, 1))


def _warp(array: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    parts = [
        cv2.warpAffine(np.ascontiguousarray(array[..., i : i + 4]), matrix, size, borderMode=cv2.BORDER_CONSTANT)
        for i in range(0, array.shape[-1], 4)
    ]
    return np.concatenate(parts, axis=-1)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    args = parser.parse_args()
    config = PhantomConfig(shape_zyx=(96, 320, 320))
    volume, picks = make_phantom(config, seed=0)
    print(f"{'':10}  reference/s   ours/s   ratio   (patch; {cv2.getNumThreads()} threads)")
    arches: tuple[Arch, ...] = ("yu4u", "tattaka")
    for arch in arches:
        c = recipe(arch)
        patch = c.model.patch_zyx
        collection = collect([volume], [picks], c.intensity, patch)
        masks = np.zeros((*config.shape_zyx, 6), np.float32)
        rng, image = np.random.default_rng(0), np.asarray(collection.volumes[0])  # type: ignore[index]
        theirs = _rate(lambda _: reference_sample(image, masks, patch, rng), args.seconds)  # noqa: B023
        sigma = sigmas_voxel(config.types, c.target, config.spacing_angstrom)
        grid = epoch_grid([config.shape_zyx], patch, c.crop)
        draw = jax.jit(
            lambda collection, rows, keys: draw_samples(
                collection, rows, keys=keys, patch_zyx=patch, sigma_voxel=sigma, crop=c.crop,  # noqa: B023
                augmentation=c.augment, target=c.target,  # noqa: B023
            )
        )  # fmt: skip
        rows = np.resize(grid, (BATCH, 4))
        ours = BATCH * _rate(
            lambda i: jax.block_until_ready(draw(collection, rows, jax.random.split(jax.random.key(i), BATCH))),  # noqa: B023
            args.seconds,
        )
        print(f"{arch:10}  {theirs:11.1f}  {ours:7.1f}  {ours / theirs:6.1f}   {patch}")


def _rate(call, seconds: float) -> float:  # type: ignore[no-untyped-def]
    call(0)
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        n += 1
        call(n)
    return n / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
