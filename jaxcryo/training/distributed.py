"""Several hosts training as one, by JAX's own distributed runtime."""

from __future__ import annotations

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcryo.errors import InputError

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join() -> None:
    """Joins the other processes where the environment names them; must come before anything else of JAX.

    `srun` with several tasks is enough; elsewhere JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say who is there.

    Raises:
        InputError: the environment is incomplete.
    """
    if _ADDRESS in os.environ:
        try:
            count, index = int(os.environ[_COUNT]), int(os.environ[_INDEX])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{_ADDRESS} is set to {os.environ[_ADDRESS]}, but {_COUNT} and {_INDEX} are not both whole numbers "
                f"({error}); set all three, or none for one process"
            ) from error
        jax.distributed.initialize(os.environ[_ADDRESS], num_processes=count, process_id=index)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ:
        jax.distributed.initialize()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def meet(where: str) -> None:
    """Waits until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def agree(*values: int) -> tuple[int, ...]:
    """The largest of all processes' values, for decisions that all have to take alike."""
    if jax.process_count() == 1:
        return values
    every = np.asarray(multihost_utils.process_allgather(np.array(values, np.int32)))
    return tuple(every.reshape(-1, len(values)).max(axis=0).tolist())
