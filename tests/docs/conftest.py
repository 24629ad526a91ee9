"""What the pages presume, small: a dataset, a folder of tomograms, engines, picks, runs that were trained elsewhere."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import sys

import mrcfile
import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parent))

from jaxcryo.domain import CZII_TYPES
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.project.dataset import find_runs, read_run_picks
from jaxcryo.tomogram.volumes import open_volume

TRAINED = ("yu4u-paper-fold0", "tattaka-paper-fold0", "yu4u-small-fold0", "tattaka-small-fold0")
SECOND = {"ribosome": "ribosome", "apo-ferritin": "proteasome"}
"""The two kinds of particles of own-particles.md, and what they are in the phantoms."""


@pytest.fixture(scope="session")
def stock(dataset: pathlib.Path, engines: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("stock")
    shutil.copytree(dataset, folder / "data")
    for name in ("engines", "out"):
        shutil.copytree(engines, folder / name)
    for name in TRAINED:
        (folder / "runs" / name).mkdir(parents=True)
        shutil.copy(
            engines.parent / f"{name.partition('-')[0]}.safetensors", folder / "runs" / name / "best.safetensors"
        )
    (folder / "engines-t4").mkdir()
    layers = [{"Name": "stem", "LayerType": "CaskConvolution", "TacticName": "sm75_xmma_fprop_h1688"}, {"Name": "sum"}]
    (folder / "engines-t4" / "x.layers.json").write_text(json.dumps({"Layers": layers}))
    (folder / "tomograms").mkdir()
    (folder / "masks").mkdir()
    table = ["run,particle,x,y,z"]
    for run in find_runs(dataset, split="train"):
        volume, picks = open_volume(run.volume_path, name=run.name), read_run_picks(run, CZII_TYPES)
        _write_mrc(folder / "tomograms" / f"{run.name}.mrc", volume.load(), volume.grid.spacing_angstrom)
        _write_mrc(folder / "masks" / f"{run.name}.mrc", np.ones(volume.grid.shape_zyx), volume.grid.spacing_angstrom)
        scored = dataclasses.replace(picks, score=np.linspace(0.5, 0.99, len(picks)))
        write_copick_picks(scored, folder / "picks")
        for (x, y, z), kind in zip(picks.xyz_angstrom, picks.type_index, strict=True):
            name = SECOND.get(CZII_TYPES[kind].name)
            table += [f"{run.name},{name},{x},{y},{z}"] if name else []
    sizes = [f"{run.name} 1.54 4096 4096 1200 6.5" for run in find_runs(dataset)]
    (folder / "picks" / "settings.json").write_text(json.dumps({"thresholds": {t.name: 0.4 for t in CZII_TYPES}}))
    (folder / "particles.csv").write_text("\n".join(table) + "\n")
    columns = ["TomoName", "TomoTiltSeriesPixelSize", "TomoSizeX", "TomoSizeY", "TomoSizeZ", "TomoTomogramBinning"]
    head = "".join(f"_rln{name} #{i}\n" for i, name in enumerate(columns, 1))
    (folder / "tomograms.star").write_text(f"data_global\n\nloop_\n{head}" + "\n".join(sizes) + "\n")
    return folder


def _write_mrc(path: pathlib.Path, voxels: np.ndarray, spacing_angstrom: float) -> None:
    with mrcfile.new(path) as file:
        file.set_data(voxels.astype(np.float32))
        file.voxel_size = spacing_angstrom
