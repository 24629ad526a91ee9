"""The weights that a training starts from: given ones, or ported ImageNet weights, made where they are missing."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from jaxcryo.calling import command
from jaxcryo.cli.plan import DEMO_MODELS
from jaxcryo.cli.train import StartOptions
from jaxcryo.config import TrainConfig
from jaxcryo.convert.port import PortOptions, port_files
from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.models import architecture, build
from jaxcryo.runtime.manifest import file_sha256, read_manifest
from jaxcryo.training import distributed
from jaxcryo.training.fit import Start
from jaxcryo.training.starting_model import taken_over
from jaxcryo.weights import TrainedModel, load_model

BUNDLED = "bundled"
"""Stands for the bundled network."""


def starting_model(start: StartOptions, config: TrainConfig) -> tuple[pathlib.Path, TrainedModel] | None:
    """The model that training starts from, and its file; None where all is new.

    Raises:
        InputError: it cannot be read, or made.
    """
    path = start.init
    if path is None:
        if not config.pretrained:
            return None
        path = _imagenet_weights(start.weights, config.arch)
    elif str(path) == BUNDLED:
        path = _bundled(config.arch)
    return path, load_model(path)


def starting_weights(start: StartOptions, config: TrainConfig, types: Sequence[ParticleType]) -> Start | None:
    """The tensors that fit the recipe's network, and new ones for the rest; None where all are new.

    Types are matched by name: those that the weights know keep their tensors, others get new ones.

    Raises:
        InputError: the weights cannot be read or made, or none of them fits.
    """
    found = starting_model(start, config)
    if found is None:
        return None
    path, model = found
    _, fresh, fresh_stats = build(config.model, seed=config.seed)
    params, taken = taken_over(fresh, model.params, config.model, types, model.types)
    stats, taken_stats = taken_over(fresh_stats, model.stats, config.model, types, model.types)
    taken += taken_stats
    count = len(params) + len(stats)
    if taken == 0:
        raise InputError(f"{path}: none of its tensors fits {config.arch} ({config.size}); choose other weights")
    new = sorted(k for k in params if params[k] is fresh[k])
    names = {t.name for t in model.types}
    unknown = [t.name for t in types if t.name not in names]
    about = (
        f"{taken} of {count} tensors start from {path} ({model.source})"
        + (f"; new: {', '.join(new[:4])}{' …' if len(new) > 4 else ''}" if new else "")
        + (f"; new types: {', '.join(unknown)}" if unknown else "")
    )
    return Start(params=params, stats=stats, about=about, sha256=file_sha256(path))


def _bundled(arch: str) -> pathlib.Path:
    entries = read_manifest(DEMO_MODELS)
    fitting = [e for e in entries if e.arch == arch]
    if not fitting:
        there = ", ".join(f"{e.arch} ({e.size})" for e in entries)
        raise InputError(f"no bundled network has the architecture {arch}; there are {there}")
    return DEMO_MODELS / fitting[0].weights_file


def _imagenet_weights(folder: pathlib.Path, arch: str) -> pathlib.Path:
    """The encoder's ported weights; downloaded and ported if they are missing."""
    hub_name = architecture(arch).imagenet
    if hub_name is None:
        raise InputError(f"{arch} has no ImageNet weights to start from; train with --from-scratch or --init WEIGHTS")
    path = folder / f"{hub_name.rsplit('/', 1)[-1].split('.')[0]}.safetensors"
    if not path.exists() and distributed.is_first():
        print(f"the recipe starts from ImageNet weights, and {path} does not exist: downloading and porting them")
        try:
            port_files([hub_name], path, PortOptions(arch=arch))
        except InputError as error:
            port = command(f"convert port {hub_name} --arch {arch} --out {path}")
            raise InputError(
                f"{path} could not be made: {error}\nOn a computer with a network run\n"
                f"  pip install huggingface_hub && {port}\n"
                "or pass a downloaded model.safetensors to the same command; or train with --from-scratch, or from "
                "your own weights with --init WEIGHTS"
            ) from error
    distributed.meet("weights")
    return path
