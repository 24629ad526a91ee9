"""Choosing what runs a converted model."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcryo.config import ModelConfig
from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.models import Network, build
from jaxcryo.runtime.cuda import described, jax_gpus
from jaxcryo.runtime.engine import Engine, Predict
from jaxcryo.runtime.engine_files import find_engine
from jaxcryo.runtime.manifest import EngineEntry
from jaxcryo.runtime.tensorrt_target import this_machine
from jaxcryo.weights import load_model

Runner = Literal["tensorrt", "openvino", "flax"]
Backend = Literal["auto", "tensorrt", "openvino", "flax"]
BACKENDS: tuple[Backend, ...] = ("auto", "tensorrt", "openvino", "flax")


def choose_backend(backend: Backend, folder: pathlib.Path, entries: Sequence[EngineEntry]) -> tuple[Runner, str]:
    """What `auto` means on this machine for the models of a folder, and why, for people.

    Where there is an NVIDIA GPU, JAX is not started by it.
    """
    if backend != "auto":
        return backend, "as asked for"
    if gpus := jax_gpus():
        try:
            target = this_machine()
            for entry in entries:
                find_engine(folder, entry, target)
        except InputError as error:
            return "flax", f"{described(gpus)} at hand, but not TensorRT: {error}"
        return "tensorrt", f"{described(gpus)} and TensorRT {target.tensorrt} at hand"
    if jax.default_backend() != "cpu":
        return "flax", f"a {jax.default_backend()} is at hand"
    if importlib.util.find_spec("openvino") is None:
        return "flax", "OpenVINO is not installed"
    return "openvino", "the fastest on a CPU"


def open_engine(folder: pathlib.Path, entry: EngineEntry, backend: Runner) -> Engine:
    """A model of a manifest, ready to run.

    Raises:
        InputError: its files cannot be used by this backend.
    """
    make = {"tensorrt": _tensorrt, "openvino": _openvino, "flax": _flax}[backend]
    return Engine(
        name=entry.name,
        patch_zyx=entry.patch_zyx,
        stride_zyx=entry.stride_zyx,
        batch=entry.batch,
        classes=entry.model.classes,
        predict=make(folder, entry),
        intensity=entry.intensity,
        padding=entry.inference.padding,
    )


def ensemble_types(entries: Sequence[EngineEntry]) -> tuple[ParticleType, ...]:
    """The particle types of models that are averaged: each threshold is the mean of the models'."""
    return tuple(
        dataclasses.replace(kinds[0], threshold=sum(k.threshold for k in kinds) / len(kinds))
        for kinds in zip(*(e.types for e in entries), strict=True)
    )


def _tensorrt(folder: pathlib.Path, entry: EngineEntry) -> Predict:
    path = find_engine(folder, entry, this_machine())
    from jaxcryo.runtime.tensorrt import tensorrt_predict  # where there is a GPU only

    return tensorrt_predict(path, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx)


def _openvino(folder: pathlib.Path, entry: EngineEntry) -> Predict:
    if importlib.util.find_spec("openvino") is None:
        raise InputError("OpenVINO is not installed; run pip install openvino, or choose --backend flax")
    from jaxcryo.runtime.openvino import openvino_predict  # heavy to import, and not on every machine

    return openvino_predict(
        folder / entry.onnx_file,
        batch=entry.batch,
        classes=entry.model.classes,
        patch_zyx=entry.patch_zyx,
        precision="bfloat16" if entry.precision == "bfloat16" else "float32",
    )


def _flax(folder: pathlib.Path, entry: EngineEntry) -> Predict:
    model = load_model(folder / entry.weights_file)
    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float32}[entry.precision]
    apply = _network(entry.model, jnp.dtype(dtype)).apply
    return jax.tree_util.Partial(apply, model.params, model.stats)


@functools.cache
def _network(config: ModelConfig, dtype: DTypeLike) -> Network:
    """One object for all models of a config, so that they share what is compiled."""
    return build(config, seed=None, dtype=dtype)[0]
