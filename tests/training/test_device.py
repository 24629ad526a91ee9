"""Precision and parts of a batch follow from the device when a training begins, and stay."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.cli.train import ComputeOptions, RecipeOptions, TrainOptions
from jaxcryo.cli.training import _config
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.recipes import recipe
from jaxcryo.training.device import (
    Device,
    StepMemory,
    memory_of_machine,
    nearest_parts,
    parts_that_fit,
    possible_parts,
    step_said,
    with_parts,
    with_precision,
)
from jaxcryo.training.fit import Length, fit
from jaxcryo.training.run_folder import RunFolder, read_description
from jaxcryo.training.source import source_of
from jaxcryo.training.state import initial_state
from jaxcryo.training.step import kept_bytes

T4 = Device(platform="gpu", name="Tesla T4", compute_capability="7.5", memory_bytes=int(11e9))
A100 = Device(platform="gpu", name="NVIDIA A100", compute_capability="8.0", memory_bytes=int(60e9))
CPU = Device(platform="cpu", name="CPU", memory_bytes=int(8e9))


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        (None, "float32"), ("gfx90a", "float32"), ("6.1", "float32"), ("7.0", "float16"), ("7.5", "float16"),
        ("8.0", "bfloat16"), ("8.9", "bfloat16"), ("9.0", "bfloat16"), ("12.0", "bfloat16"),
    ],
)  # fmt: skip
def test_the_precision_of_a_device(capability, precision) -> None:
    assert Device(platform="gpu", name="card", compute_capability=capability).precision == precision


def test_the_device_at_hand_is_known() -> None:
    device = Device.at_hand()
    assert device.platform == "cpu" and device.precision == "float32"
    assert device.memory_bytes is not None and 0 < device.memory_bytes * jax.local_device_count() < 1e14


def test_a_precision_is_as_given_then_as_before_then_as_the_device_wants() -> None:
    plain = recipe("yu4u", "tiny")
    began = dataclasses.replace(plain, precision="float16")
    asked = dataclasses.replace(plain, precision="float32")
    assert with_precision(asked, began, A100)[0].precision == "float32"
    kept, said = with_precision(plain, began, A100)
    assert kept.precision == "float16"
    assert all(fact in said for fact in ("float16", "bfloat16", "A100"))
    fresh, said = with_precision(plain, None, T4)
    assert fresh.precision == "float16"
    assert all(fact in said for fact in ("float16", "loss scaling", "T4", "7.5"))
    assert with_precision(plain, None, CPU)[0].precision == "float32"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"": "max"}, None),
        ("0::/\n", {"": "3000"}, 3000),
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7": "2000", "slurm/job_7/step_0": "max", "": "3000"}, 2000),
        ("0::/../outside\n", {"": "3000"}, 3000),
        ("4:memory:/job\n3:cpuset:/job\n0::/\n", {"memory/job": "1000", "memory": "9223372036854771712"}, 1000),
    ],
)
def test_memory_is_that_of_the_control_group(tmp_path, groups: str, files: dict[str, str], expected) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, limit in files.items():
        folder = tmp_path / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("memory.limit_in_bytes" if name.startswith("memory") else "memory.max")).write_text(f"{limit}\n")
    machine = memory_of_machine(tmp_path / "empty")
    assert machine is not None and machine > 3000
    assert memory_of_machine(tmp_path) == (expected or machine)


def test_options_go_before_the_device() -> None:
    def config(**options):
        return _config(TrainOptions(arch="yu4u", size="tiny", **options), 6)

    assert config().precision is None and config().optim.accumulate is None and config().optim.parts == 1
    given = config(compute=ComputeOptions(precision="float16"), recipe=RecipeOptions(accumulate=2))
    assert given.precision == "float16" and given.optim.parts == 2
    by_name = config(recipe=RecipeOptions(set=("precision=bfloat16", "optim.accumulate=4")))
    assert by_name.precision == "bfloat16" and by_name.optim.parts == 4


def test_parts_divide_the_batch_and_leave_pairs_to_mixup() -> None:
    paper = recipe("yu4u")
    assert possible_parts(paper, 1) == (1, 2, 4, 8, 16)
    assert possible_parts(paper, 4) == (1, 2, 4)
    assert possible_parts(paper, 3) == ()
    alone = dataclasses.replace(paper, augment=dataclasses.replace(paper.augment, mixup_probability=0.0))
    assert possible_parts(alone, 1) == (1, 2, 4, 8, 16, 32)
    began = with_parts(paper, 8)
    assert [nearest_parts(began, devices) for devices in (1, 2, 4, 16)] == [8, 8, 4, 1]
    assert nearest_parts(began, 3) == 8  # no number of parts will do, which the step says


@pytest.mark.parametrize(
    ("room", "kept", "parts", "tried"),
    [
        (70, 30, 1, [1]),
        (40, 30, 2, [1, 2]),  # what the backward pass keeps says too little
        (40, 90, 2, [2]),  # it says enough, and one compilation is spared
        (17, 0, 8, [1, 8]),  # by what was measured last
        (15.5, 60, 16, [4, 8, 16]),
        (5, 0, 16, [16]),  # nothing fits
    ],
)
def test_as_few_parts_as_fit_are_found_with_few_compilations(room, kept, parts, tried) -> None:
    measured = []

    def measure(parts: int) -> StepMemory:
        measured.append(parts)
        return StepMemory(lasting_bytes=8, passing_bytes=1 + 56 // parts if parts > 1 else 56)

    found, memory = parts_that_fit((1, 2, 4, 8, 16), measure, kept_bytes=kept, lasting_bytes=8, room_bytes=room)
    assert (found, measured) == (parts, tried)
    assert (memory.total_bytes <= room) == (room > 5)


def test_too_much_is_warned_of() -> None:
    config = with_parts(recipe("yu4u"), 4)
    fits, too_much = (StepMemory(lasting_bytes=int(2e9), passing_bytes=int(n)) for n in (5e9, 9e9))
    said = step_said("in float16", fits, config, T4, 2, is_new=True, given=True)
    assert all(fact in said for fact in ("float16", "4 samples", "each device", "4 parts", "7.0 GB", "11.0 GB"))
    assert "warning" not in said
    warned = step_said("in float16", too_much, config, T4, 1, is_new=True, given=True)
    assert warned.startswith("warning") and all(f in warned for f in ("--accumulate", "--rematerialize", "--batch"))
    chosen, continued = (
        step_said("in float16", too_much, config, T4, 1, is_new=is_new, given=False) for is_new in (True, False)
    )
    assert "--accumulate" not in chosen and "--accumulate" not in continued and "--out" in continued


def test_memory_is_what_the_program_takes() -> None:
    x = jnp.ones((256, 256))
    program = jax.jit(lambda a: jnp.sort(jnp.sin(a) @ a, axis=0))
    memory = StepMemory.of(program, x)
    assert memory.lasting_bytes == x.nbytes
    assert 2 * x.nbytes <= memory.passing_bytes <= 8 * x.nbytes  # the product and the result at least


@pytest.mark.slow
def test_what_is_kept_grows_with_the_batch(config) -> None:
    network, params, stats = build(config.model, seed=None)
    one = jax.eval_shape(
        lambda p, s: initial_state(p, s, total_steps=1, config=config.optim, half_precision=False), params, stats
    )
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct((jax.local_device_count(), *a.shape), a.dtype), one)

    def kept(samples: int) -> int:
        optim = dataclasses.replace(config.optim, batch=samples * jax.device_count())
        return kept_bytes(network, dataclasses.replace(config, optim=optim), state)

    heatmaps = 4 * config.model.classes * np.prod(config.model.patch_zyx)
    assert kept(3) - kept(1) > 2 * heatmaps


@pytest.mark.slow
def test_a_training_keeps_what_it_began_with_on_another_device(tmp_path, description, examples) -> None:
    alone = dataclasses.replace(
        description.config, augment=dataclasses.replace(description.config.augment, mixup_probability=0.0)
    )
    plain = dataclasses.replace(description, config=alone)

    def train(config, device: Device) -> str:
        said: list[str] = []
        source = source_of(examples[1:], config.config)
        fit(source, examples[0], config, tmp_path, length=Length(steps=4), device=device, say=said.append)
        return "\n".join(said)

    small = dataclasses.replace(T4, memory_bytes=int(1e6))
    said = train(plain, small)
    most = possible_parts(alone, jax.device_count())[-1]
    assert most > 1 and all(fact in said for fact in ("warning", "float16", f"{most} parts", "T4"))
    began = read_description(RunFolder(tmp_path)).config
    assert (began.precision, began.optim.accumulate) == ("float16", most)

    (tmp_path / "best.safetensors").unlink()
    shutil.rmtree(tmp_path / "checkpoints")  # as if it had been stopped before the first one
    said = train(plain, A100)
    assert all(fact in said for fact in ("float16", f"{most} parts", "A100", "bfloat16"))
    assert read_description(RunFolder(tmp_path)).config == began

    (tmp_path / "best.safetensors").unlink()
    shutil.rmtree(tmp_path / "checkpoints")
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["optim"]["accumulate"] = 4 * most  # as on fewer devices
    (tmp_path / "config.json").write_text(json.dumps(record))
    said = train(plain, A100)
    assert f"{4 * most} parts" in said and f"{most} parts" in said
    record["config"]["optim"]["accumulate"] = most
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"optim\.accumulate.*{most}.*1"):
        train(dataclasses.replace(plain, config=with_parts(alone, 1)), A100)
