"""Several processes that train as one, with JAX's own distributed runtime.

They meet before JAX is told of them: a process that waits says so and gives up after a while, and processes with
different commands are refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcryo.errors import InputError

TIMEOUT_SECONDS = 300.0
_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_STEP_COUNT, _STEP_INDEX, _STEP_NODES = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"
_ANSWER_SECONDS = 10.0
_LONGEST_HELLO = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The processes that train as one, from the view of one of them."""

    host: str
    """Of process 0."""
    port: int
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def join(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] = os.environ,
    timeout_seconds: float = TIMEOUT_SECONDS,
    say: Callable[[str], object] = print,
) -> None:
    """Joins the other processes where the environment names them; must come before anything else of JAX.

    `srun` with several tasks is enough. Elsewhere set JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        InputError: the environment is incomplete, others were started with another `command`, or are missing.
    """
    group = group_of(environment, say=say)
    if group is None or group.count == 1:
        return
    meet_others(group, command, timeout_seconds=timeout_seconds, say=say)
    try:
        jax.distributed.initialize(
            group.address,
            num_processes=group.count,
            process_id=group.index,
            local_device_ids=group.local_device_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=max(round(timeout_seconds), 1),
        )
    except Exception as error:  # JAX raises what its C++ runtime says
        raise InputError(
            f"process {group.index} of {group.count} cannot join the others at {group.address} ({error}); free that "
            "port, or choose another one"
        ) from error


def group_of(environment: Mapping[str, str], *, say: Callable[[str], object] = print) -> Group | None:
    """The group that the environment describes; None for a single process.

    Raises:
        InputError: the description is incomplete, or has invalid values.
    """
    if any(name in environment for name in (_ADDRESS, _COUNT, _INDEX)):
        remedy = f"set {_ADDRESS} (host:port of process 0), {_COUNT} and {_INDEX}, or none of them for one process"
        count, index = _counted(environment, _COUNT, _INDEX, remedy)
        host, _, port = environment.get(_ADDRESS, "").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise InputError(f"{_ADDRESS} is {environment.get(_ADDRESS)!r}; expected host:port; {remedy}")
        return Group(host=host, port=int(port), count=count, index=index)
    allocated = environment.get("SLURM_NTASKS", "1")
    # The allocation's number of tasks does not say how many processes were started: in its shell it is one.
    if environment.get(_STEP_COUNT, "1") == "1":
        if allocated.isdigit() and int(allocated) > 1:
            say(f"SLURM allocated {allocated} tasks, and this is one process: start it with srun to use all of them")
        return None
    remedy = f"start it with srun; for one process, unset {_STEP_COUNT}"
    count, index = _counted(environment, _STEP_COUNT, _STEP_INDEX, remedy)
    host = _first_node(environment.get(_STEP_NODES, ""))
    if not host:
        raise InputError(f"{_STEP_NODES} is {environment.get(_STEP_NODES)!r}; expected names of nodes; {remedy}")
    job = [environment.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    number = sum(int(n) for n in job if n.isdigit())  # each step of a job has a port of its own
    local = environment.get("SLURM_LOCALID", "")
    # A process alone on its node takes all GPUs; several take one each, unless each sees only its own anyway.
    nodes = environment.get("SLURM_STEP_NUM_NODES", "")
    alone = nodes.isdigit() and int(nodes) >= count
    sees_one = len(environment.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) == 1
    ids = (int(local),) if local.isdigit() and not alone and not sees_one else None
    return Group(host=host, port=61440 + number % 4096, count=count, index=index, local_device_ids=ids)


def meet_others(
    group: Group, command: Sequence[str], *, timeout_seconds: float, say: Callable[[str], object] = print
) -> None:
    """Waits until all processes of the group are there, and have the same command.

    Raises:
        InputError: they do not have it, or some are not there in time.
    """
    others = group.count - 1
    say(
        f"process {group.index} of {group.count}: waiting for {others} other process{'es' if others > 1 else ''} at "
        f"{group.address}"
    )
    deadline = time.monotonic() + timeout_seconds
    hello = {"process": group.index, "count": group.count, "command": list(command)}
    problem = _gather(group, hello, deadline) if group.index == 0 else _report(group, hello, deadline)
    if problem:
        raise InputError(problem)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def meet(where: str) -> None:
    """Waits until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def agree(*values: int) -> tuple[int, ...]:
    """The largest of all processes' values, for decisions that all must make alike."""
    if jax.process_count() == 1:
        return values
    every = np.asarray(multihost_utils.process_allgather(np.array(values, np.int32)))
    return tuple(every.reshape(-1, len(values)).max(axis=0).tolist())


def check_same(what: str, plain: Mapping[str, Any]) -> None:
    """Raises InputError in all processes if plain values are not the same in each of them."""
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()
    own = int.from_bytes(digest[:4], "big") >> 1
    largest, smallest = agree(own, -own)
    if largest != -smallest:
        raise InputError(f"the processes of this training differ in their {what}; it must be the same for all")


def _counted(environment: Mapping[str, str], count: str, index: str, remedy: str) -> tuple[int, int]:
    for name in (count, index):
        if not environment.get(name, "").isdigit():
            said = f"is {environment[name]!r}" if name in environment else "is not set"
            raise InputError(f"{name} {said}; expected a whole number; {remedy}")
    n, i = int(environment[count]), int(environment[index])
    if not i < n:
        raise InputError(f"{index} is {i} and {count} is {n}; expected an index from 0 to {n - 1}; {remedy}")
    return n, i


def _first_node(nodes: str) -> str:
    """The number of nodes in SLURM's list, such as `gpu[01-04,07],big2`."""
    match = re.match(r"([^,\[\]]+)(?:\[([^,\-\]]+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


def _gather(group: Group, hello: Mapping[str, Any], deadline: float) -> str:
    """Process 0: waits for all others, and tells them whether they can train together; returns why not."""
    present: dict[int, socket.socket] = {}
    problem = ""
    try:
        with _listening(group) as server:
            while len(present) < group.count - 1 and not problem:
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = [str(i) for i in range(1, group.count) if i not in present]
                    problem = (
                        f"waited at {group.address} for process {', '.join(missing)} of {group.count} in vain; start "
                        "all of them within the same few minutes, on machines that reach this address"
                    )
                    break
                other = _received(connection)
                index = other.get("process")
                if not isinstance(index, int) or not index > 0:  # not one of us
                    connection.close()
                elif index in present:
                    problem = (
                        f"two processes were started as number {index} of {group.count}; each needs its own number"
                    )
                    connection.close()
                else:
                    present[index] = connection
                    problem = _disagreement(hello, other)
    finally:
        for connection in present.values():
            _send(connection, {"problem": problem})
        for connection in present.values():
            _received(connection)  # the others close first, which leaves the port free
            connection.close()
    return problem


def _report(group: Group, hello: Mapping[str, Any], deadline: float) -> str:
    """Any other process: reports to process 0; returns why they cannot train together."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return (
                f"process 0 was not found at {group.address}; start all {group.count} processes within the same few "
                "minutes, on machines that reach this address"
            )
        try:
            connection = socket.create_connection((group.host, group.port), timeout=min(left, 5))
        except OSError:
            time.sleep(min(left, 0.2))
            continue
        with connection:
            _send(connection, hello)
            # Process 0 waits as long as this one does, and then says who is missing.
            answer = _received(connection, seconds=left + _ANSWER_SECONDS)
        if "problem" in answer:
            return str(answer["problem"])
        time.sleep(min(left, 0.2))


def _disagreement(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if first["count"] != other.get("count"):
        return (
            f"process 0 expects {first['count']} processes, process {other['process']} expects {other.get('count')}; "
            "give all the same number"
        )
    mine, theirs = first["command"], [str(part) for part in other.get("command") or []]
    if mine == theirs:
        return ""
    own, others = ([part for part in a if part not in b] or a for a, b in ((mine, theirs), (theirs, mine)))
    return (
        f"process 0 was started with {' '.join(own)}, process {other['process']} with {' '.join(others)}: they cannot "
        "train as one. Start all with the same command, or separate trainings with separate addresses"
    )


def _listening(group: Group) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", group.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", group.port))
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen at {group.address} ({error.strerror}); another training may use this port: "
            f"choose another one with {_ADDRESS}"
        ) from error


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it has gone; whoever waits for it says so
        connection.sendall(json.dumps(message).encode() + b"\n")


def _received(connection: socket.socket, *, seconds: float = 10.0) -> dict[str, Any]:
    """The other end's message; empty if none comes."""
    data = b""
    try:
        connection.settimeout(seconds)
        while not data.endswith(b"\n") and len(data) < _LONGEST_HELLO:
            part = connection.recv(4096)
            if not part:
                break
            data += part
        message = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
