"""The weights that a training starts from: given ones, or ported ImageNet weights, made where they are missing."""

from __future__ import annotations

import pathlib

from jaxcryo.calling import command
from jaxcryo.cli.train import StartOptions
from jaxcryo.config import TrainConfig
from jaxcryo.convert.port import PortOptions, port_files
from jaxcryo.errors import InputError
from jaxcryo.models import architecture, build
from jaxcryo.runtime.manifest import file_sha256
from jaxcryo.training import distributed
from jaxcryo.training.fit import Start
from jaxcryo.weights import load_model


def starting_weights(start: StartOptions, config: TrainConfig) -> Start | None:
    """The tensors that fit the recipe's network, and new ones for the rest; None where all are new.

    Raises:
        InputError: the weights cannot be read or made, or none of them fits.
    """
    path = start.init
    if path is None:
        if not config.pretrained:
            return None
        path = _imagenet_weights(start.weights, config.arch)
    model = load_model(path)
    _, params, stats = build(config.model, seed=config.seed)
    taken = 0
    for own, given in ((params, model.params), (stats, model.stats)):
        for key, value in given.items():
            if key in own and own[key].shape == value.shape:
                own[key] = value
                taken += 1
    count = len(params) + len(stats)
    if taken == 0:
        raise InputError(f"{path}: none of its tensors fits {config.arch} ({config.size}); choose other weights")
    new = sorted(k for k in params if k not in model.params or model.params[k].shape != params[k].shape)
    about = f"{taken} of {count} tensors start from {path} ({model.source})" + (
        f"; new: {', '.join(new[:4])}{' …' if len(new) > 4 else ''}" if new else ""
    )
    return Start(params=params, stats=stats, about=about, sha256=file_sha256(path))


def _imagenet_weights(folder: pathlib.Path, arch: str) -> pathlib.Path:
    """The encoder's ported weights; downloaded and ported where they are not there yet."""
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
                f"  pip install 'jaxcryo[hub]' && {port}\n"
                "or pass a downloaded model.safetensors to the same command; or train with --from-scratch, or from "
                "your own weights with --init WEIGHTS"
            ) from error
    distributed.meet("weights")
    return path
