"""Makes the golden cases again: `python tests/golden/make_golden.py [FOLDER]`, with PyTorch and timm installed.

Made with PyTorch 2.13 and timm 1.0.31, float32, evaluation mode. Without a folder nothing is written, and the largest
differences from the committed files are printed.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "parity")]


def features(model: str, channels: int) -> dict[str, np.ndarray]:
    """What is kept of each stage of timm's encoder: its channels' means and deviations, and a corner."""
    import torch
    from golden.cases import TIMM_NAMES
    from golden.fill import volume
    from torch_reference import encoder, fill_module

    x = torch.from_numpy(volume(f"{TIMM_NAMES[model]}-{channels}", (2, channels, 128, 128)))
    with torch.no_grad():
        maps = [m.numpy() for m in fill_module(encoder(model, channels))(x)]
    arrays = {}
    for n, m in enumerate(maps):
        arrays |= {
            f"stage{n}_mean": m.mean((2, 3)),
            f"stage{n}_std": m.std((2, 3)),
            f"stage{n}_corner": m[:, :64, :4, :4],
        }
    return arrays


def yu4u() -> dict[str, np.ndarray]:
    """What is kept of the heatmaps of yu4u's network."""
    import torch
    from golden.cases import yu4u_arrays
    from golden.fill import volume
    from torch_reference import Yu4u, fill_module

    with torch.no_grad():
        heatmaps = fill_module(Yu4u())(torch.from_numpy(volume("yu4u-input", (2, 1, 16, 128, 128)))).numpy()
    return yu4u_arrays(heatmaps)


def main(arguments: list[str]) -> None:
    """Writes the files, or compares with those that are there."""
    from golden.cases import FEATURE_CASES, FOLDER

    cases = {f"{model}-{channels}ch-features.npz": features(model, channels) for model, channels in FEATURE_CASES}
    cases["yu4u-output.npz"] = yu4u()
    for name, arrays in cases.items():
        if arguments:
            np.savez_compressed(pathlib.Path(arguments[0]) / name, **arrays)
            continue
        committed = np.load(FOLDER / name)
        assert set(committed) == set(arrays), name
        print(f"{name}: {max(float(np.abs(committed[k] - v).max()) for k, v in arrays.items()):.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
