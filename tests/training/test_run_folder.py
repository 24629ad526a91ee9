"""A run folder is continued with what it began with, or says by name what has changed."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxcryo.config import OptimConfig
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.recipes import recipe
from jaxcryo.training.checkpoint import Checkpoints
from jaxcryo.training.run_folder import Fingerprint, RunDescription, RunFolder, describe, read_description
from jaxcryo.training.state import TrainState, initial_state


def volume(seed: int = 0, gain: float = 1) -> Volume:
    voxels = gain * np.random.default_rng(seed).normal(size=(20, 8, 8)).astype(np.float32)
    return Volume(name="a", voxels=voxels, grid=VoxelGrid(shape_zyx=(20, 8, 8), spacing_zyx_angstrom=(10.0,) * 3))


def picks(*xyz: float, order: int = 1) -> Picks:
    positions = np.array([(x, x, x) for x in xyz], np.float64)[::order]
    return Picks(run="a", types=CZII_TYPES, xyz_angstrom=positions, type_index=np.zeros(len(positions), np.int64))


def description(start: str | None = "f" * 64, **runs: Fingerprint) -> RunDescription:
    return RunDescription(
        config=recipe("yu4u", "tiny"), types=CZII_TYPES, fold=0, train_runs=tuple(runs), held_out="z",
        spacing_angstrom=10, steps=3, fingerprints=runs, start=start,
    )  # fmt: skip


def test_a_fingerprint_tells_other_voxels_and_other_picks() -> None:
    first = Fingerprint.of(volume(), picks(10, 20))
    assert first == Fingerprint.of(volume(), picks(10, 20, order=-1))
    inverted, moved = Fingerprint.of(volume(gain=-1), picks(10, 20)), Fingerprint.of(volume(), picks(10, 20.1))
    assert inverted.tomogram != first.tomogram and inverted.picks == first.picks
    assert moved.tomogram == first.tomogram and moved.picks != first.picks
    assert Fingerprint.of(volume(seed=1), picks(10, 20)).tomogram != first.tomogram


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"a": Fingerprint(tomogram="1", picks="3")}, ["picks", "a"]),
        ({"a": Fingerprint(tomogram="9", picks="2")}, ["tomogram", "a", "--invert"]),
        ({"start": "0" * 64}, ["f" * 12, "0" * 12, "--init"]),
        ({"start": None}, ["fresh weights"]),
    ],
)
def test_a_training_on_other_data_is_refused_by_name(tmp_path: pathlib.Path, change, named) -> None:
    folder, began = RunFolder(tmp_path), description(a=Fingerprint(tomogram="1", picks="2"))
    assert not describe(folder, began)
    assert describe(folder, began)
    assert read_description(folder) == began
    with pytest.raises(InputError) as refusal:
        describe(folder, description(**{"a": Fingerprint(tomogram="1", picks="2"), **change}))
    assert all(text in str(refusal.value) for text in (*named, "--out"))


def test_a_run_of_before_fingerprints_is_continued(tmp_path: pathlib.Path) -> None:
    folder, began = RunFolder(tmp_path), description(a=Fingerprint(tomogram="1", picks="2"))
    plain = {k: v for k, v in began.to_json().items() if k not in ("fingerprints", "start")}
    folder.config.write_text(json.dumps(plain))
    assert describe(folder, began)


def test_a_run_of_before_a_choice_existed_is_continued(tmp_path: pathlib.Path) -> None:
    """What its config does not name had what is the default now; another value is another training."""
    folder, plain = RunFolder(tmp_path), dataclasses.replace(description(), config=recipe("tattaka", "tiny"))
    assert not describe(folder, plain)
    written = json.loads(folder.config.read_text())
    del written["config"]["model"]["scse_before"]
    folder.config.write_text(json.dumps(written))
    assert describe(folder, plain)
    model = dataclasses.replace(plain.config.model, scse_before=True)
    with pytest.raises(InputError, match=r"scse_before was False, is True"):
        describe(folder, dataclasses.replace(plain, config=dataclasses.replace(plain.config, model=model)))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: pathlib.Path) -> None:
    before = jax.tree.map(
        np.asarray,
        initial_state({"a": np.arange(999.0)}, {}, total_steps=9, config=OptimConfig(), half_precision=False),
    )
    folder = RunFolder(tmp_path)

    def state(step: int) -> TrainState:
        return dataclasses.replace(before, step=np.int32(step))

    with Checkpoints(folder) as checkpoints:
        for step in (3, 5):
            checkpoints.save(state(step))
            checkpoints.wait()
    damage(folder.checkpoints / "5")
    said: list[str] = []
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(before, said.append)
        assert restored is not None and int(restored.step) == 3
        assert len(said) == 1 and "steps 4 to 5" in said[0] and str(folder.checkpoints / "5") in said[0]
        assert (tmp_path / "damaged-checkpoints" / "5").is_dir()
        checkpoints.save(state(5))  # the same step again
        checkpoints.wait()
        assert checkpoints.latest_step() == 5
    for step in ("3", "5"):
        damage(folder.checkpoints / step)
    with Checkpoints(folder) as checkpoints, pytest.raises(InputError, match="no checkpoint can be read"):
        checkpoints.restore(before, said.append)


def damage(checkpoint: pathlib.Path) -> None:
    """Cuts every file in half."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
