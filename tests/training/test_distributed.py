"""Processes that train as one find each other, or say why not."""

import concurrent.futures
import socket
import time

import pytest

from jaxcryo.errors import InputError
from jaxcryo.training.distributed import Group, group_of, meet_others

STEP = {
    "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2",
    "SLURM_LOCALID": "2", "SLURM_STEP_NODELIST": "gpu[03-04,07]-ib,big",
}  # fmt: skip
JAX = {"JAX_COORDINATOR_ADDRESS": "node:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def test_the_shell_of_an_allocation_is_one_process() -> None:
    said: list[str] = []
    assert group_of({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "17"}, say=said.append) is None
    interactive = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}  # a step of its own in recent versions
    assert group_of(interactive, say=said.append) is None
    assert len(said) == 2 and all("4" in text and "srun" in text for text in said)
    assert group_of({}) is None


def test_the_step_says_who_is_there() -> None:
    group = group_of(STEP)
    assert group is not None and (group.host, group.count, group.index) == ("gpu03-ib", 4, 2)
    assert group.local_device_ids == (2,)
    one_each = group_of({**STEP, "CUDA_VISIBLE_DEVICES": "2"})
    assert one_each is not None and one_each.local_device_ids is None
    whole_nodes = group_of({**STEP, "SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "0"})
    assert whole_nodes is not None and whole_nodes.local_device_ids is None
    other_step = group_of({**STEP, "SLURM_STEP_ID": "1"})
    assert other_step is not None and other_step.port != group.port
    single = group_of({**STEP, "SLURM_STEP_NODELIST": "host2"})
    assert single is not None and single.host == "host2"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({**JAX, "JAX_NUM_PROCESSES": "two"}, ["JAX_NUM_PROCESSES", "two"]),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, ["JAX_COORDINATOR_ADDRESS"]),
        ({"JAX_COORDINATOR_ADDRESS": "node:1"}, ["JAX_NUM_PROCESSES"]),
        ({**JAX, "JAX_PROCESS_ID": "2"}, ["JAX_PROCESS_ID", "0 to 1"]),
        ({**JAX, "JAX_COORDINATOR_ADDRESS": "node"}, ["host:port", "node"]),
        ({k: v for k, v in STEP.items() if k != "SLURM_PROCID"}, ["SLURM_PROCID", "srun"]),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4(x2)"}, ["SLURM_STEP_NUM_TASKS", "4(x2)"]),
        ({k: v for k, v in STEP.items() if k != "SLURM_STEP_NODELIST"}, ["SLURM_STEP_NODELIST"]),
    ],
)
def test_partial_and_odd_variables_are_refused_by_name(environment, named) -> None:
    with pytest.raises(InputError) as refusal:
        group_of(environment)
    assert all(text in str(refusal.value) for text in named)


def groups(count: int) -> list[Group]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [Group(host="127.0.0.1", port=port, count=count, index=i) for i in range(count)]


def meeting(members: list[Group], commands: list[list[str]], seconds: float = 20) -> list[str]:
    """What each of the processes is told; empty where they train as one."""

    def one(group: Group, command: list[str]) -> str:
        try:
            meet_others(group, command, timeout_seconds=seconds, say=lambda _: None)
        except InputError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, members, commands))


def test_processes_with_one_command_meet_and_leave_the_port_free() -> None:
    members = groups(3)
    for _ in range(2):
        assert meeting(members, [["--fold", "0"]] * 3) == ["", "", ""]


def test_two_trainings_are_not_joined_to_one() -> None:
    told = meeting(groups(2), [["fold=0", "size='tiny'"], ["fold=1", "size='tiny'"]])
    assert all("fold=0" in text and "fold=1" in text and "tiny" not in text for text in told)


def test_who_does_not_come_is_named_in_time() -> None:
    members = groups(3)
    began = time.monotonic()
    told = meeting(members[:2], [[]] * 2, seconds=1)
    assert time.monotonic() - began < 10
    assert all("process 2 of 3" in text and members[0].address in text for text in told)
    (alone,) = meeting(members[1:2], [[]], seconds=0.5)
    assert "process 0" in alone and members[0].address in alone


def test_a_stranger_at_the_port_changes_nothing() -> None:
    members = groups(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        told = pool.submit(meeting, members[:1], [[]], 20)
        for message in (b"GET / HTTP/1.1\r\n\r\n\n", b"[1]\n"):
            for _ in range(100):
                try:
                    stranger = socket.create_connection((members[0].host, members[0].port))
                    break
                except OSError:
                    time.sleep(0.05)
            with stranger:
                stranger.sendall(message)
        assert meeting(members[1:], [[]]) == [""]
        assert told.result() == [""]
