"""A small dataset on disk, and engines of both architectures that nobody has trained."""

import pathlib

import pytest

from convert.__main__ import main as convert
from jaxcryo.domain import CZII_TYPES
from jaxcryo.models import build
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.recipes import recipe
from jaxcryo.weights import TrainedModel, save_model

SHAPE = (32, 72, 80)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two training runs and a test run, just larger than a tiny network's window."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_dataset(folder, PhantomConfig(shape_zyx=SHAPE), runs=2, test_runs=1)
    return folder


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Both tiny networks with their first weights, converted."""
    folder = tmp_path_factory.mktemp("engines")
    files = []
    for arch in ("yu4u", "tattaka"):
        config = recipe(arch, "tiny")
        _, params, stats = build(config.model)
        params["head.kernel"] = 100 * params["head.kernel"]  # heatmaps with peaks
        files.append(str(folder / f"{arch}.safetensors"))
        model = TrainedModel(
            config=config, types=CZII_TYPES, spacing_angstrom=10.012444, params=params, stats=stats, source="untrained"
        )
        save_model(files[-1], model)
    assert convert(["onnx", *files, "--out", str(folder / "out")]) == 0
    return folder / "out"
