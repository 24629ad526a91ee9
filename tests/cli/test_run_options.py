"""Parts of the runs, fewer or more windows, and heatmaps kept."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import zarr

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.plan import Shard
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import read_copick_folder


def run(dataset: pathlib.Path, one_model: pathlib.Path, out: pathlib.Path, *options: str) -> int:
    return infer(["--engines", str(one_model), "--data", str(dataset), "--out", str(out), *options])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_together_are_all_and_none_twice(count: int) -> None:
    runs = list(range(7))
    parts = [Shard(index=i, count=count).of(runs) for i in range(1, count + 1)]
    assert sorted(r for part in parts for r in part) == runs
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(InputError, match="expected I/N"):
        Shard.parse(text)


@pytest.mark.slow
def test_shards_then_the_same_command_without_are_one_inference(dataset, one_model, tmp_path, capsys) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert run(dataset, one_model, whole) == 0
    for shard in ("2/2", "1/2"):
        assert run(dataset, one_model, shared, "--shard", shard) == 0
        assert not (shared / "submission.csv").exists()
    capsys.readouterr()
    assert run(dataset, one_model, shared) == 0
    assert capsys.readouterr().out.count("already done") == 3
    assert (shared / "submission.csv").read_text() == (whole / "submission.csv").read_text()


@pytest.mark.slow
def test_shards_of_other_settings_are_not_mixed(dataset, one_model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run(dataset, one_model, out, "--shard", "1/3") == 0
    assert run(dataset, one_model, out, "--shard", "2/3", "--effort", "fast") == 2
    assert "different models or settings" in capsys.readouterr().err


def test_a_shard_beyond_the_runs_is_no_error(dataset, one_model, tmp_path, capsys) -> None:
    assert run(dataset, one_model, tmp_path / "out", "--shard", "9/9") == 0
    assert "nothing is left for shard 9/9" in capsys.readouterr().out


@pytest.mark.slow
def test_heatmaps_are_kept_and_picks_stand_on_them(dataset, one_model, tmp_path) -> None:
    out = tmp_path / "out"
    assert run(dataset, one_model, out, "--runs", "PT_000", "--save-heatmaps") == 0
    array = zarr.open_group(out / "heatmaps" / "PT_000.zarr", mode="r")["0"]
    assert isinstance(array, zarr.Array)
    heatmap = array[:].astype(np.float64)  # type: ignore[union-attr]
    picks = read_copick_folder(out, CZII_TYPES)["PT_000"]
    assert picks.score is not None and len(picks) > 0
    for kind, score in zip(picks.type_index, picks.score, strict=True):
        assert np.isclose(heatmap[kind], score, rtol=2e-3).any()


@pytest.mark.slow
def test_less_effort_and_flips_are_other_settings(dataset, one_model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run(dataset, one_model, out, "--runs", "PT_000", "--effort", "fast") == 0
    for change in (["--effort", "full"], ["--tta"], ["--no-refine"], ["--merge-radius", "0"]):
        assert run(dataset, one_model, out, "--runs", "PT_000", "--effort", "fast", *change) == 2
        assert "different models or settings" in capsys.readouterr().err
