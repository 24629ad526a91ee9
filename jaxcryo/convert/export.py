"""Weights for PyTorch: our tensors under the names of other programs.

`lightning`: yu4u's whole network under the names of his training's checkpoints, for
`Timm3DDecoder3.load_state_dict({k.removeprefix("model."): v for k, v in safetensors.torch.load_file(OUT).items()})`.
`timm`: the encoder of either network, for `timm.create_model("convnext_nano", in_chans=5, num_classes=0)` or
`timm.create_model("resnetrs50", in_chans=1, num_classes=0)` and `load_state_dict(load_file(OUT), strict=False)`.
"""

from __future__ import annotations

import pathlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.models import architecture
from jaxcryo.models.naming import Source, match_target, to_theirs
from jaxcryo.training.run_folder import RunFolder
from jaxcryo.weights import TrainedModel, load_model

Form = Literal["timm", "lightning"]


def export_file(source: pathlib.Path, out: pathlib.Path, form: Form) -> None:
    """Writes the weights of a run folder or a file under the names of another program.

    Raises:
        InputError: as `export` and `weights_file` do.
    """
    path = weights_file(source)
    arrays = export(load_model(path), form)
    with atomic_path(out) as temporary:
        save_file(arrays, temporary, metadata={"format": "pt"})
    print(f"{out}: {len(arrays)} tensors of {path}")


def export(model: TrainedModel, form: Form) -> dict[str, NDArray[Any]]:
    """The model's arrays under PyTorch's names and in its layouts.

    Raises:
        InputError: no published code has names for the whole of this network.
    """
    arch = model.config.arch
    kind = next((k for k in architecture(arch).sources if k.form == form), None)
    if kind is None:
        raise InputError(
            f"{arch}'s network cannot be exported to {form}, since no published code names its tensors; "
            "expected --to timm, which writes its encoder"
        )
    prefix = "model." if form == "lightning" else ""
    arrays: dict[str, NDArray[Any]] = {prefix + name: make(model.config.model) for name, make in kind.fixed.items()}
    for name, array in (model.params | model.stats).items():
        arrays |= {prefix + key: value for key, value in _theirs(name, np.asarray(array), kind).items()}
    return arrays


def weights_file(path: pathlib.Path) -> pathlib.Path:
    """The weights file of a run folder, the best one if there is one; a file stands for itself.

    Raises:
        InputError: the folder has none.
    """
    if not path.is_dir():
        return path
    run = RunFolder(path)
    found = next((file for file in (run.best, run.last) if file.is_file()), None)
    if found is None:
        raise InputError(
            f"{path}: holds neither {run.best.name} nor {run.last.name}; expected the run folder of a training"
        )
    return found


def _theirs(name: str, array: NDArray[np.float32], kind: Source) -> dict[str, NDArray[Any]]:
    match = match_target(kind.rules, name)
    if match is None:
        return {}
    found: dict[str, NDArray[Any]] = {match.source: to_theirs(array, match.rule)}
    if match.source.endswith(".running_var"):
        # PyTorch's strict loading wants BatchNorm's counter, which nothing reads.
        found[match.source.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return found
