"""Saving and restoring a training: the whole state by Orbax, and the run folder's description."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType, types_from_json, types_to_json
from jaxcryo.errors import InputError
from jaxcryo.io.atomic import write_text
from jaxcryo.serialize import from_plain, to_plain
from jaxcryo.training.state import TrainState

BEST, LAST = "best.safetensors", "last.safetensors"
_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What a run folder trains: written when it starts, compared when it is continued."""

    config: TrainConfig
    types: tuple[ParticleType, ...]
    fold: int
    train_runs: tuple[str, ...]
    held_out: str
    spacing_angstrom: float
    steps: int | None
    """Asked for by number; None where epochs or minutes set the length."""
    skewness: float | None = None
    """Of the training tomograms' intensities, for telling the opposite contrast."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, the run folder's config.json."""
        return {**to_plain(dataclasses.replace(self, types=())), "types": types_to_json(self.types)}


def describe(folder: pathlib.Path, description: RunDescription) -> bool:
    """Writes the description of a new run; True where the folder already holds this very run.

    Raises:
        InputError: the folder holds a run of another description; the message names the fields that differ.
    """
    new = description.to_json()
    path = folder / _CONFIG
    if not path.exists():
        there = [str(folder / name) for name in (BEST, LAST) if (folder / name).exists()]
        if there:
            raise InputError(f"{', '.join(there)}: there already, of no training that is known; choose another --out")
        write_text(path, json.dumps(new, indent=1) + "\n")
        return False
    old = _read(path)
    now = {**json.loads(json.dumps(new)), "skewness": old.get("skewness")}  # measured, and decides nothing
    differing = [f"{k}: {a!r} there, {b!r} now" for k, a, b in _differences(old, now)]
    if differing:
        raise InputError(
            f"{folder} holds a training of another configuration ({'; '.join(differing)}); "
            "continue it with its own options, or give another folder with --out"
        )
    return True


def read_description(folder: pathlib.Path) -> RunDescription:
    """The description in a run folder.

    Raises:
        InputError: it is missing or cannot be used.
    """
    fields = _read(folder / _CONFIG)
    types = types_from_json(fields.pop("types", ()))
    description = from_plain(RunDescription, {**fields, "types": []}, str(folder / _CONFIG))
    return dataclasses.replace(description, types=types)


class Checkpoints:
    """The folder of whole states of a run; saving goes on in the background. Use it as a context."""

    def __init__(self, folder: pathlib.Path) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager((folder / "checkpoints").absolute(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Starts to save a state that is on the host; nothing where this step is saved already."""
        if self._manager.latest_step() != int(state.step):
            self._manager.save(int(state.step), args=ocp.args.StandardSave(state))

    def wait(self) -> None:
        """Until what was started is on the disk."""
        self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest whole state, bit for bit; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shape = jax.tree.map(np.asarray, like)
        restored: TrainState = self._manager.restore(step, args=ocp.args.StandardRestore(shape))
        return restored


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a folder that train.py wrote") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be parsed ({error}); the run's description is damaged") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: expected an object with the run's description")
    return fields


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}".lstrip("."))]
    return [] if old == new else [(name, old, new)]
