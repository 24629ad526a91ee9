"""Prints how far the ONNX graphs of the paper's sizes are from Flax, in minutes: `python tests/convert/paper_sizes.py`.

The weights are random, and BatchNorm's statistics those of the windows: with others float32 itself is too coarse for
tattaka's network. `test_onnx.py` asks the same of the smaller sizes, `python -m convert check` of trained ones.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import jax
import numpy as np
import onnx
from test_onnx import ARCHS, PRECISIONS, config_of, noise, random_weights, relative_rms, run_onnx

from jaxcryo.convert.onnx_write import write_onnx
from jaxcryo.models.onnx_layers import Upsampling
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.runtime.openvino import openvino_predict

FORMS: tuple[tuple[Upsampling, int], ...] = (("folded", 1), ("folded", 2), ("resize", 1))
MOMENTUM = 0.9


def phantom(patch_zyx: tuple[int, int, int]) -> np.ndarray:
    """Two overlapping windows of a phantom."""
    depth, height, width = patch_zyx
    volume, _ = make_phantom(PhantomConfig(shape_zyx=(depth, height, width + width // 4)), seed=3)
    voxels = volume.load()
    voxels = (voxels - voxels.mean()) / voxels.std()
    return np.stack([voxels[:, :, :width], voxels[:, :, width // 4 :]])


def main() -> None:
    for arch in ARCHS:
        config = config_of(arch, "paper")
        network, params, stats = random_weights(config)
        kinds = {"noise": noise((2, *config.patch_zyx)), "phantom": phantom(config.patch_zyx)}
        both = np.stack([windows[1] for windows in kinds.values()])
        _, moved = jax.jit(network.apply_train)(params, stats, both)
        stats = {name: (moved[name] - MOMENTUM * stats[name]) / (1 - MOMENTUM) for name in stats}
        flax, module = jax.jit(network.apply), network.module(params, stats)
        expected = {kind: np.asarray(flax(params, stats, windows)) for kind, windows in kinds.items()}
        for precision in PRECISIONS:
            for upsampling, batch in FORMS:
                model = write_onnx(module, config, batch=batch, precision=precision, upsampling=upsampling)
                with tempfile.TemporaryDirectory() as folder:
                    path = pathlib.Path(folder) / "model.onnx"
                    onnx.save(model, path)
                    in_openvino = openvino_predict(
                        path, batch=batch, classes=config.classes, patch_zyx=config.patch_zyx
                    )
                    for kind, windows in kinds.items():
                        found = {"OpenVINO": np.asarray(in_openvino(windows[:batch]))}
                        if batch == 1:
                            found["ONNX Runtime"] = run_onnx(model, windows[:batch])
                        errors = (f"{name} {relative_rms(f, expected[kind][:batch]):.1e}" for name, f in found.items())
                        print(f"{arch} {precision} {upsampling} batch {batch} {kind}:", ", ".join(errors), flush=True)


if __name__ == "__main__":
    sys.exit(main())
