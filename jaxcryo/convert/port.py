"""Turns weights of other programs into a model of ours.

A whole model fills everything. An encoder alone fills the encoder, with its first convolution adapted to the image's
channels by timm's rule; the decoder keeps its initialization.
"""

from __future__ import annotations

import dataclasses
import pathlib
import resource
import sys
import time
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from jaxcryo.config import NetworkConfig, TrainConfig
from jaxcryo.convert.port_plan import Plan, Recognized, classes_of, make_plan, recognize, summary, table
from jaxcryo.convert.sources import locate, open_source
from jaxcryo.convert.torch_zip import StoredTensors
from jaxcryo.domain import CZII_SPACING_ANGSTROM, CZII_TYPES, ParticleType
from jaxcryo.errors import InputError
from jaxcryo.models import Weights, build
from jaxcryo.models.naming import to_ours
from jaxcryo.progress import Progress
from jaxcryo.recipes import recipe
from jaxcryo.weights import TrainedModel, save_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortOptions:
    """How to port, whatever the source."""

    arch: str
    size: str = "paper"
    averaged: bool = True
    """Prefer averaged weights (EMA) where a checkpoint has both."""
    types: tuple[ParticleType, ...] | None = None
    """None: those of the CZII challenge."""
    spacing_angstrom: float | None = None
    """None: the challenge's for a network that was trained on it, else not known."""
    seed: int = 0
    """Seed for weights that the source does not fill."""


def port_files(
    sources: Sequence[str], out: pathlib.Path, options: PortOptions, *, dry_run: bool = False, force: bool = False
) -> None:
    """Ports one source to a file, or several to a folder, and prints how each was converted.

    Raises:
        InputError: a source cannot be ported, or a file exists and `force` is not given.
    """
    if options.spacing_angstrom is not None and not 0 < options.spacing_angstrom < float("inf"):
        raise InputError(f"--voxel-spacing is {options.spacing_angstrom}; expected ångströms above 0")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; expected a whole number from 0")
    outputs = _outputs(sources, out)
    present = [str(file) for file in outputs.values() if file.exists()]
    if present and not (force or dry_run):
        raise InputError(f"{', '.join(present)} already exists; choose another --out or pass --force")
    for source, file in outputs.items():
        path = locate(source)
        if dry_run:
            with open_source(path) as tensors:
                print(table(plan_port(tensors, options, file=source)[0]))
            continue
        started = time.monotonic()
        plan, model = port(path, options, name=source)
        save_model(file, model)
        print("".join(f"note: {note}\n" for note in described_choices(plan, model, options)), end="")
        print(
            f"{summary(plan)}\n{file}: written in {time.monotonic() - started:.1f} s, "
            f"peak memory {_peak_memory_bytes() / 1e9:.2f} GB"
        )


def described_choices(plan: Plan, model: TrainedModel, options: PortOptions) -> list[str]:
    """A note on what was assumed, and how to change it."""
    notes = list(plan.recognized.notes)
    if model.spacing_angstrom is not None and options.spacing_angstrom is None:
        intensity = model.config.intensity
        notes.append(
            f"this network of the published training was assumed to be for the CZII challenge: {len(model.types)} "
            f"particle types, voxels of {model.spacing_angstrom:.9g} Å, intensities (v - {intensity.mean:g}) / "
            f"{intensity.std:g}; if not, pass --voxel-spacing and --particles"
        )
    return notes


def port(path: pathlib.Path, options: PortOptions, *, name: str | None = None) -> tuple[Plan, TrainedModel]:
    """The model in a checkpoint; `name` is how messages and the model's description call the source.

    Raises:
        InputError: the checkpoint cannot be read, or does not fit.
    """
    name = str(path) if name is None else name
    with open_source(path) as tensors:
        plan, config, types = plan_port(tensors, options, file=name)
        _, params, stats = build(config.model, seed=options.seed if plan.fresh else None)
        arrays = _read(tensors, plan, file=name)
        _check_fixed(tensors, plan, config.model, file=name)
    params, stats = (
        cast(Weights, {key: arrays.pop(key, array) for key, array in ours.items()}) for ours in (params, stats)
    )
    model = TrainedModel(
        config=config,
        types=types,
        spacing_angstrom=_spacing(options, plan.recognized),
        params=params,
        stats=stats,
        source=f"{plan.recognized.kind.title}, ported from {name}",
    )
    return plan, model


def plan_port(
    tensors: StoredTensors, options: PortOptions, *, file: str
) -> tuple[Plan, TrainConfig, tuple[ParticleType, ...]]:
    """What to do with every tensor, the recipe whose network is filled, and its particle types; reads no tensor."""
    found = recognize(tensors, options.arch, averaged=options.averaged, file=file)
    classes = classes_of(tensors, found, recipe(options.arch, options.size).model)
    types = _types(options.types, classes, file)
    config = recipe(options.arch, options.size, classes=len(types))
    return make_plan(tensors, found, config.model, file=file), config, types


def _spacing(options: PortOptions, recognized: Recognized) -> float | None:
    """A published network without other types was trained on the challenge's tomograms, as its intensities are."""
    if options.spacing_angstrom is None and options.types is None and recognized.kind.of_the_challenge:
        return CZII_SPACING_ANGSTROM
    return options.spacing_angstrom


def _types(given: tuple[ParticleType, ...] | None, classes: int | None, file: str) -> tuple[ParticleType, ...]:
    if given is None and classes is None:
        return CZII_TYPES
    if given is None:
        if classes not in (len(CZII_TYPES), len(CZII_TYPES) - 1):
            raise InputError(
                f"{file}: has {classes} classes, which are not the particle types of the CZII challenge; name them "
                "with --particles FILE (a copick config.json or a .toml file), in the channels' order"
            )
        return CZII_TYPES[:classes]
    if classes is not None and len(given) != classes:
        raise InputError(
            f"{file}: has {classes} classes, --particles lists {len(given)} particle types; expected one for each"
        )
    return given


def _read(tensors: StoredTensors, plan: Plan, *, file: str) -> dict[str, NDArray[np.float32]]:
    arrays: dict[str, NDArray[np.float32]] = {}
    broken = []
    for step in Progress(plan.steps, desc=f"reading {file}", unit="tensor"):
        if step.target is None or step.rule is None:
            continue
        channels = step.target_shape[-2] if step.rule.first_conv and step.target_shape else None
        array = to_ours(tensors[step.source].read(), step.rule, channels)
        if not np.isfinite(array).all():
            broken.append(step.source)
        arrays[step.target] = array
    if broken:
        raise InputError(f"{file}: {', '.join(broken)} hold NaN or infinite values; expected a finished training")
    return arrays


def _check_fixed(tensors: StoredTensors, plan: Plan, config: NetworkConfig, *, file: str) -> None:
    """Checks tensors that never change in training; with other values it would be another network."""
    kind, prefix = plan.recognized.kind, plan.recognized.prefix
    for name in plan.fixed:
        found, expected = np.asarray(tensors[name].read()), kind.fixed[name.removeprefix(prefix)](config)
        if found.shape != expected.shape or not np.array_equal(found, expected):
            raise InputError(
                f"{file}: {name} ({'x'.join(map(str, found.shape))}) does not have the values of {kind.title}, which "
                "training never changes; expected a checkpoint of exactly that network"
            )


def _outputs(sources: Sequence[str], out: pathlib.Path) -> dict[str, pathlib.Path]:
    if len(sources) == 1:
        return {sources[0]: out}
    outputs = {s: out / f"{_stem(s)}.safetensors" for s in dict.fromkeys(sources)}
    if len(set(outputs.values())) < len(outputs):
        raise InputError(
            f"several sources are called {', '.join(sorted({_stem(s) for s in outputs}))}; each is written "
            "under its own name: expected different ones, or port them one by one"
        )
    return outputs


def _stem(source: str) -> str:
    """A file's name without its suffix; a hub name keeps its last part whole."""
    path = pathlib.Path(source)
    return path.stem if path.is_file() else path.name


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
