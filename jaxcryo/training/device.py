"""What a training is computed on, and what follows from it: the precision, and into how many parts a batch is split."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxcryo.config import Precision, TrainConfig

_ROOM_GPU, _ROOM_CPU = 0.92, 0.8
"""Shares of the memory that a step may take: a GPU's is not in one piece, and a CPU's has other programs in it."""
_KEPT_AT_LEAST = 0.5
"""Of what the backward pass asks to be kept, XLA keeps so much or more: what is cheap it computes again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """One of the devices of a training; they are all alike."""

    platform: str
    """As JAX calls it: cpu, gpu."""
    name: str
    compute_capability: str | None = None
    """Of an NVIDIA card."""
    memory_bytes: int | None = None
    """That JAX may take of it; None where nobody says."""

    @classmethod
    def at_hand(cls) -> Device:
        """The first of those that JAX computes on."""
        device = jax.local_devices()[0]
        if device.platform == "cpu":
            memory = memory_of_machine()
            shared = None if memory is None else memory // jax.local_device_count()
            return cls(platform="cpu", name="CPU", memory_bytes=shared)
        statistics = device.memory_stats() or {}
        return cls(
            platform=device.platform,
            name=device.device_kind,
            compute_capability=getattr(device, "compute_capability", None),
            memory_bytes=statistics.get("bytes_limit"),
        )

    def __str__(self) -> str:
        return self.name + (f", compute capability {self.compute_capability}" if self.compute_capability else "")

    @property
    def precision(self) -> Precision:
        """The one in which it trains fastest without a loss: bfloat16 from NVIDIA's Ampere on, float16 on the tensor
        cores before it, else float32."""
        major, _, minor = (self.compute_capability or "").partition(".")
        if not major.isdigit() or not minor.isdigit() or int(major) < 7:
            return "float32"
        return "bfloat16" if int(major) >= 8 else "float16"

    @property
    def room_bytes(self) -> float | None:
        """What a step may take of its memory."""
        share = _ROOM_CPU if self.platform == "cpu" else _ROOM_GPU
        return None if self.memory_bytes is None else share * self.memory_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a step takes of a device's memory."""

    lasting_bytes: int
    """Weights, averages, the optimizer's state, and tomograms that are kept there."""
    passing_bytes: int
    """What is computed in between; it falls with the number of samples in a part."""

    @property
    def total_bytes(self) -> int:
        """While a step is computed."""
        return self.lasting_bytes + self.passing_bytes

    @classmethod
    def of(cls, step: jax.stages.Wrapped, *arguments: object) -> StepMemory:
        """As XLA counts it for the program that it then runs: nothing is compiled twice."""
        counted: Any = step.lower(*arguments).compile().memory_analysis()
        return cls(
            lasting_bytes=counted.argument_size_in_bytes,
            passing_bytes=counted.temp_size_in_bytes + counted.output_size_in_bytes - counted.alias_size_in_bytes,
        )


def with_precision(config: TrainConfig, began: TrainConfig | None, device: Device) -> tuple[TrainConfig, str]:
    """The recipe in the precision that it names, else in the one it began with, else in the device's; and which."""
    if config.precision is not None:
        return config, f"in {config.precision}, as given"
    if began is None or began.precision is None:
        said = f"in {device.precision}{' with loss scaling' * (device.precision == 'float16')} ({device})"
        return dataclasses.replace(config, precision=device.precision), said
    said = f"in {began.precision}, in which this training began"
    if began.precision != device.precision:
        said += f" (a new one on this device, {device}, would be in {device.precision})"
    return dataclasses.replace(config, precision=began.precision), said


def with_parts(config: TrainConfig, parts: int) -> TrainConfig:
    """The recipe with a batch in so many parts."""
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=parts))


def possible_parts(config: TrainConfig, devices: int) -> tuple[int, ...]:
    """The numbers of parts that a batch can be split into on each device, ascending."""
    batch, paired = config.optim.batch, config.augment.mixup_probability > 0
    fitting = [n for n in range(1, batch // devices + 1) if batch % (devices * n) == 0]
    return tuple(n for n in fitting if not (paired and batch // (devices * n) % 2))


def nearest_parts(config: TrainConfig, devices: int) -> int:
    """The recipe's number of parts, or the next lower one where a batch cannot be split so on these devices."""
    return max((n for n in possible_parts(config, devices) if n <= config.optim.parts), default=config.optim.parts)


def parts_that_fit(
    possible: Sequence[int],
    measure: Callable[[int], StepMemory],
    *,
    kept_bytes: int,
    lasting_bytes: int,
    room_bytes: float,
) -> tuple[int, StepMemory]:
    """The least number of parts with which a step fits into the room, else the largest; and what it takes.

    `measure` compiles the step, which takes long, so parts that cannot be enough are passed over: by what the backward
    pass of a whole batch asks to be kept, then by what was measured last.
    """

    def first_enough(candidates: Sequence[int], passing_of_whole: float) -> int:
        for parts in candidates:
            if lasting_bytes + passing_of_whole / parts <= room_bytes:
                return parts
        return candidates[-1]

    parts = first_enough(possible, _KEPT_AT_LEAST * kept_bytes)
    while True:
        memory = measure(parts)
        more = [n for n in possible if n > parts]
        if memory.total_bytes <= room_bytes or not more:
            return parts, memory
        parts = first_enough(more, parts * memory.passing_bytes)


def step_said(
    in_precision: str,
    memory: StepMemory,
    config: TrainConfig,
    device: Device,
    devices: int,
    *,
    is_new: bool,
    given: bool,
) -> str:
    """How steps are computed and what they take of the memory, for people; a warning where that is too much."""
    parts, room = config.optim.parts, device.room_bytes
    there = "" if device.memory_bytes is None else f" of {_gb(device.memory_bytes)}"
    at_once = config.optim.batch // (parts * devices)
    said = (
        f"steps are computed {in_precision}, {at_once} samples at once{' on each device' * (devices > 1)} (a batch in "
        f"{parts} part{'s' * (parts > 1)}), and take about {_gb(memory.total_bytes)}{there} of memory"
    )
    if room is None or memory.total_bytes <= room:
        return said
    advice = "give --rematerialize or a smaller --batch"
    if not is_new:
        advice = f"start a new training in another folder (--out), and {advice}"
    elif given:
        advice = f"leave out --accumulate, or {advice}"
    return f"warning: {said}. That may be too much: {advice}"


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e9:.2f} GB"


def memory_of_machine(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """In bytes: of the control group that this process is in (a container, a job of SLURM) where that has less than the
    machine; None where nobody says. Files are looked up below `root`.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return machine
    limits: list[int | None] = [machine]
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":  # version 2
            top, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        own = top / path.lstrip("/")  # limits of the groups around it hold too
        limits += [_limit(place / file) for place in (own, *own.parents) if place.is_relative_to(top)]
    return min(limit for limit in limits if limit is not None)


def _limit(path: pathlib.Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None  # no group of its own, or one that lies outside the container
    return int(text) if text.isdigit() else None
