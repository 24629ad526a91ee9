"""What `--backend auto` takes where there is no TensorRT; `tests/convert/test_engines.py` has the rest."""

from __future__ import annotations

import importlib.util
import pathlib

import jax
import pytest

from jaxcryo.errors import InputError
from jaxcryo.runtime.backends import backend, backends, choose_backend


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name))


def test_openvino_on_a_cpu() -> None:
    assert choose_backend("auto", pathlib.Path(), []) == ("openvino", "the fastest on a CPU")


def test_flax_on_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose_backend("auto", pathlib.Path(), []) == ("flax", "a tpu is at hand")


def test_flax_where_openvino_is_not_installed(without_openvino: None) -> None:
    assert choose_backend("auto", pathlib.Path(), []) == ("flax", "OpenVINO is not installed")
    with pytest.raises(InputError, match=r"pip install openvino.*--backend flax"):
        backend("openvino").open(pathlib.Path(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", backends())
def test_what_is_asked_for_is_taken(name: str) -> None:
    assert choose_backend(name, pathlib.Path(), []) == (name, "as asked for")
