"""`benchmarks/gpu.py` measures what there is, whatever fails on the way."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
from collections.abc import Iterator

import pytest

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    """The benchmark as a module; what it changes in this process goes again."""
    before = list(sys.path)
    environment = pytest.MonkeyPatch()
    environment.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    spec = importlib.util.spec_from_file_location("benchmark_gpu", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = before
    environment.undo()


def test_a_part_that_fails_ends_no_other(gpu, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    def good(plan: object) -> Iterator[dict[str, object]]:
        yield {"what": "speed", "value": 2.5, "unit": "windows/s"}

    def broken(plan: object) -> Iterator[dict[str, object]]:
        yield {"what": "before", "value": 1}
        raise RuntimeError("out of memory")

    def nothing(plan: object) -> Iterator[dict[str, object]]:
        raise gpu.NothingToRunError("no card")
        yield

    out = tmp_path / "gpu.json"
    parts = {"broken": broken, "nothing": nothing, "good": good}
    assert gpu.run(parts, gpu.TINY, minutes=1, out=out) == 1
    result = json.loads(out.read_text())
    assert [(row["part"], row["what"]) for row in result["rows"]] == [("broken", "before"), ("good", "speed")]
    assert result["failed"] == {"broken": "RuntimeError: out of memory"}
    assert result["left_out"] == {"nothing": "no card"}
    said = capsys.readouterr().out
    assert "2.5" in said and "out of memory" in said and "no card" in said
    assert gpu.run({"good": good}, gpu.TINY, minutes=0, out=out) == 0
    assert json.loads(out.read_text())["left_out"].keys() == {"good"}


@pytest.mark.slow
def test_it_runs_on_any_machine(gpu, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--tiny", "--arch", "yu4u", "--out", str(out), "--minutes", "60"]) == 0
    result = json.loads(out.read_text())
    assert result["failed"] == {}
    values = {(row["part"], row["what"]): row["value"] for row in result["rows"]}
    assert values["parity", "yu4u float16"] < 0.01
    for part in ("inference", "training step"):
        assert values[part, "yu4u float16"] > 0
    assert values["matrix product", "float16"] > 0
    assert {"inference, PyTorch", "golden parity"} <= result["left_out"].keys()
