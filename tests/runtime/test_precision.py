"""bfloat16 is taken unasked only where it is known to find the same, and what was asked for is done or refused."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

import jaxcryo.runtime.openvino as runtime
from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.recipes import recipe
from jaxcryo.runtime.backends import choose_precision, open_model
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.precision import MAX_F4_CHANGE, PRECISIONS

UNKNOWN = "not compared yet, see 'jaxcryo convert check --bfloat16'"


def entry_of(name: str, change: float | None, precision: str = "float16") -> ModelEntry:
    model = recipe("yu4u", "tiny").model
    return ModelEntry(
        name=name, size="tiny", model=model, onnx_file="a.onnx", onnx_sha256="0", weights_file="a",
        weights_sha256="0", precision=precision, types=CZII_TYPES, intensity=IntensityConfig(), spacing_angstrom=10.0,
        inference=InferenceConfig(stride_zyx=(8, 24, 24), batch=1), source="t", bfloat16_f4_change=change,
    )  # fmt: skip


def choose(choice, backend, *changes: float | None, precision: str = "float16") -> tuple[list[str], str]:
    entries = [entry_of(f"m{i}", change, precision) for i, change in enumerate(changes)]
    chosen, why = choose_precision(choice, backend, entries)
    assert [dataclasses.replace(c, precision=precision) for c in chosen] == entries
    return [c.precision for c in chosen], why


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: True)


@pytest.mark.parametrize(
    ("changes", "precisions", "why"),
    [
        ((0.0, -0.0019), ["bfloat16"] * 2, "bfloat16 (changes the weighted F4 on phantoms by 0.0019 at most)"),
        ((0.002,), ["float16"], "float32 (bfloat16: changes the weighted F4 on phantoms by +0.0020)"),
        ((-0.004,), ["float16"], "float32 (bfloat16: changes the weighted F4 on phantoms by -0.0040)"),
        ((None, None), ["float16"] * 2, f"float32 (bfloat16: {UNKNOWN})"),
        ((0.001, None), ["bfloat16", "float16"], "bfloat16: m0 (changes the weighted F4 on phantoms by 0.0010 at "
         f"most), and in float32: m1 ({UNKNOWN})"),
    ],
)  # fmt: skip
def test_auto_on_a_cpu_that_has_it(capable, changes, precisions, why) -> None:
    assert MAX_F4_CHANGE == 0.002
    assert choose("auto", "openvino", *changes) == (precisions, why)


def test_a_cpu_that_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: False)
    assert choose("auto", "openvino", 0.0, precision="bfloat16") == (["float32"], "float32 (this CPU has no bfloat16)")
    with pytest.raises(InputError, match=r"bfloat16.*CPU"):
        choose("bfloat16", "openvino", 0.0)
    assert choose("float32", "openvino", 0.0) == (["float16"], "float32 (as asked for)")


def test_what_is_asked_for_is_done(capable) -> None:
    for backend in ("openvino", "flax"):
        assert choose("bfloat16", backend, 0.5, None) == (["bfloat16"] * 2, "bfloat16 (as asked for)")
        assert choose("float32", backend, 0.0, precision="bfloat16") == (["float32"], "float32 (as asked for)")
    assert choose("auto", "flax", 0.0) == (["float16"], "float32")
    assert choose("auto", "flax", 0.0, precision="bfloat16") == (["bfloat16"], "bfloat16")


def test_tensorrt_computes_as_the_files_say() -> None:
    assert choose("auto", "tensorrt", 0.0) == (["float16"], "float16")
    for choice in PRECISIONS[1:]:
        with pytest.raises(InputError, match="TensorRT"):
            choose(choice, "tensorrt", 0.0)


def test_the_engine_is_opened_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr(runtime, "openvino_predict", lambda *_, precision, **__: opened.append(precision))
    for choice, precision in (("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float16")):
        monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: True)
        (entry,), _ = choose_precision(choice, "openvino", [entry_of("m", None, precision)])
        open_model(tmp_path, entry, "openvino")
    assert opened == ["float32", "float32", "bfloat16"]
