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
from jaxcryo.runtime.manifest import Int8Model, ModelEntry
from jaxcryo.runtime.precision import LEAST_SPEEDUP, MAX_F4_CHANGE, MAX_INT8_LOSS, PRECISIONS

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
    for choice in ("float32", "bfloat16"):
        with pytest.raises(InputError, match="TensorRT"):
            choose(choice, "tensorrt", 0.0)


@pytest.mark.parametrize("backend", ["tensorrt", "flax"])
def test_int8_is_openvino_s(backend: str) -> None:
    assert PRECISIONS == ("auto", "float32", "bfloat16", "int8")
    with pytest.raises(InputError, match="--backend openvino"):
        choose_precision("int8", backend, [quantized("a")])


CPU = "A CPU (INT8, VNNI, 2 cores)"


def quantized(name: str, f4_change: float | None = -0.001, cpu: str = CPU, speedup: float = 1.6) -> ModelEntry:
    int8 = Int8Model(
        onnx_file=f"{name}-int8.onnx", onnx_sha256="8", calibrated_on="a test", f4_change=f4_change, agreement=0.97,
        cpu=cpu, speedup=speedup,
    )  # fmt: skip
    return dataclasses.replace(entry_of(name, 0.0), int8=int8)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (quantized("a", f4_change=-0.003), "-0.0030"),
        (quantized("a", f4_change=None), "too little"),
        (quantized("a", cpu="Another CPU"), "Another CPU"),
        (quantized("a", speedup=1.05), "1.05"),
        (entry_of("a", 0.0), "convert quantize"),
    ],
)
def test_auto_takes_int8_only_where_it_is_good_and_faster_here(
    entry: ModelEntry, why: str, capable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (MAX_INT8_LOSS, LEAST_SPEEDUP) == (0.003, 1.1)
    monkeypatch.setattr(runtime, "cpu_described", lambda: CPU)
    good = [quantized("b"), quantized("c", f4_change=0.002, speedup=1.4)]
    chosen, told = choose_precision("auto", "openvino", good)
    assert [(e.precision, e.running_sha256) for e in chosen] == [("int8", "8")] * 2
    assert told.startswith("int8 (") and "-0.0010" in told and "1.4" in told
    chosen, told = choose_precision("auto", "openvino", [good[0], entry])
    assert [e.precision for e in chosen] == ["int8", "bfloat16"]
    assert "int8: b" in told and why in told and "bfloat16" in told
    chosen, told = choose_precision("auto", "openvino", [entry])
    assert [e.precision for e in chosen] == ["bfloat16"] and chosen[0].running_sha256 == "0"
    assert told.startswith("bfloat16") and (entry.int8 is None or why in told)


def test_int8_that_is_asked_for_is_opened_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    opened: list[tuple[str, str]] = []
    monkeypatch.setattr(
        runtime, "openvino_predict", lambda path, *, precision, **_: opened.append((path.name, precision))
    )
    (entry,), told = choose_precision("int8", "openvino", [quantized("a", f4_change=None, cpu="Another CPU")])
    assert told == "int8 (as asked for)"
    open_model(tmp_path, entry, "openvino")
    assert opened == [("a-int8.onnx", "int8")]
    with pytest.raises(InputError, match=r"int8 model of b.*convert quantize"):
        choose_precision("int8", "openvino", [quantized("a"), entry_of("b", 0.0)])


def test_the_engine_is_opened_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr(runtime, "openvino_predict", lambda *_, precision, **__: opened.append(precision))
    for choice, precision in (("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float16")):
        monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: True)
        (entry,), _ = choose_precision(choice, "openvino", [entry_of("m", None, precision)])
        open_model(tmp_path, entry, "openvino")
    assert opened == ["float32", "float32", "bfloat16"]
