"""Porting fills every place or says everything that stands against it."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import numpy as np
import pytest
from checkpoints import lightning, tiny_model, unread
from golden.cases import feature_names, listed
from safetensors.numpy import save_file
from torch_zip_writer import Call, Global, write_torch_zip

from jaxcryo.cli.convert import main
from jaxcryo.convert.export import export
from jaxcryo.convert.port import PortOptions, plan_port, port
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.models import architectures, build
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.weights import TrainedModel, load_model

YU4U, TATTAKA = (PortOptions(arch=arch) for arch in tuple(architectures()))
TINY_YU4U, TINY_TATTAKA = (PortOptions(arch=arch, size="tiny") for arch in tuple(architectures()))


def same(a: TrainedModel, b: TrainedModel, prefix: str = "") -> bool:
    """Whether the arrays below a prefix are bit-identical."""
    left, right = ({k: v for k, v in (m.params | m.stats).items() if k.startswith(prefix)} for m in (a, b))
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("prefix", ["", "model.", "state_dict.model.", "state_dict.model_ema.module.", "state_dict."])
def test_the_published_network_fills_ours(prefix: str) -> None:
    plan, config, types = plan_port(unread(listed("yu4u"), prefix), YU4U, file="x")
    assert not plan.fresh and len(plan.steps) == 229 and config.size == "paper" and types == CZII_TYPES
    ignored = {s.source.removeprefix(prefix) for s in plan.steps if s.target is None}
    assert ignored == {"stem.conv.weight", *(k for k in listed("yu4u") if k.endswith("num_batches_tracked"))}
    assert all(s.reason for s in plan.steps if s.target is None)


@pytest.mark.parametrize("prefix", ["", "state_dict.", "state_dict_ema."])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (YU4U, listed("convnext_nano-timm")),
        (YU4U, feature_names("convnext_nano", 3)),
        (YU4U, feature_names("convnext_nano", 5)),
        (TATTAKA, listed("resnetrs50-timm")),
        (TATTAKA, feature_names("resnetrs50", 1)),
    ],
)
def test_timms_encoders_fill_ours(options: PortOptions, names: dict[str, tuple[int, ...]], prefix: str) -> None:
    plan, _, _ = plan_port(unread(names, prefix), options, file="x")
    assert plan.fresh and not any(name.startswith("encoder.") for name in plan.fresh)
    assert len(plan.steps) == len(names)


def test_all_faults_are_reported_at_once() -> None:
    names = dict(listed("yu4u"))
    del names["decoder.blocks.1.conv1.block.1.running_var"]
    names["decoder.blocks.3.conv1.block.0.weight"] = (1, 2, 3, 3, 3)
    names["segmentation_head.bias"] = (383,)
    with pytest.raises(InputError) as error:
        plan_port(unread(names, "model."), YU4U, file="x.ckpt")
    message = str(error.value)
    assert "x.ckpt" in message and "3 " in message
    for facts in (
        r"missing.*model\.decoder\.blocks\.1\.conv1\.block\.1\.running_var.*768.*decoder\.1\.norm\.var",
        r"unknown.*model\.decoder\.blocks\.3\.conv1\.block\.0\.weight.*1x2x3x3x3",
        r"shape.*model\.segmentation_head\.bias.*383.*384.*head\.bias",
    ):
        assert re.search(facts, message), facts


@pytest.mark.parametrize(
    ("prefix", "extra"),
    [
        ("", "aux.weight"),
        ("model.", "aux.weight"),
        ("model.", "model.aux.weight"),
        ("state_dict.model.", "state_dict.aux.weight"),
        ("state_dict.model_ema.module.", "state_dict.model_ema.module.aux.weight"),
    ],
)
def test_an_extra_tensor_is_a_fault(prefix: str, extra: str) -> None:
    with pytest.raises(InputError, match=rf"unknown.*{extra}.*1x2"):
        plan_port(unread(listed("yu4u"), prefix) | unread({extra: (1, 2)}), YU4U, file="x")


@pytest.mark.parametrize(
    ("prefix", "extra", "averaged", "reason"),
    [
        ("model_ema.module.", "model.stem.conv.weight", True, "averaged"),
        ("model.", "model_ema.module.stem.conv.weight", False, "plain"),
    ],
)
def test_the_other_weights_are_ignored(prefix: str, extra: str, averaged: bool, reason: str) -> None:
    source = unread(listed("yu4u"), prefix) | unread({extra: (5, 1, 5, 1, 1)})
    plan, _, _ = plan_port(source, PortOptions(arch="yu4u", averaged=averaged), file="x")
    assert reason in next(s.reason for s in plan.steps if s.source == extra)


def test_a_trainings_state_is_ignored() -> None:
    source = unread(listed("yu4u"), "state_dict.model.") | unread({"optimizer_states.0.state.1.exp_avg": (3,)})
    plan, _, _ = plan_port(source, YU4U, file="x")
    assert [s.reason for s in plan.steps if s.source.startswith("optimizer")] == ["the training's state"]


def test_whole_numbers_where_weights_belong_and_colliding_names_are_faults() -> None:
    source = unread(listed("convnext_nano-timm"))
    source["stem.0.bias"] = unread({"x.num_batches_tracked": (80,)})["x.num_batches_tracked"]
    with pytest.raises(InputError, match=r"stem\.0\.bias.*int64"):
        plan_port(source, YU4U, file="x")


def test_the_other_network_is_recognized() -> None:
    with pytest.raises(InputError, match=r"ResNet-RS.*--arch tattaka"):
        plan_port(unread(listed("resnetrs50-timm")), YU4U, file="x")
    with pytest.raises(InputError, match=r"--arch yu4u.*a, b"):
        plan_port(unread({"a": (1,), "b": (2,)}), YU4U, file="x")


def test_averaged_weights_are_preferred_and_plain_ones_given_on_request(tmp_path: pathlib.Path) -> None:
    plain, averaged = tiny_model("yu4u", seed=1), tiny_model("yu4u", seed=2)
    path = write_torch_zip(tmp_path / "a.ckpt", lightning(plain, averaged))
    plan, model = port(path, TINY_YU4U)
    assert same(model, averaged)
    assert any("EMA" in s.reason for s in plan.steps)
    _, model = port(path, PortOptions(arch="yu4u", size="tiny", averaged=False))
    assert same(model, plain)
    _, model = port(write_torch_zip(tmp_path / "b.ckpt", lightning(plain)), TINY_YU4U)
    assert same(model, plain)


def test_an_incomplete_average_is_not_replaced_by_the_plain_weights(tmp_path: pathlib.Path) -> None:
    content = lightning(tiny_model("yu4u"), tiny_model("yu4u"))
    del content["state_dict"]["model_ema.module.segmentation_head.bias"]
    with pytest.raises(InputError, match=r"missing.*state_dict\.model_ema\.module\.segmentation_head\.bias"):
        port(write_torch_zip(tmp_path / "a.ckpt", content), TINY_YU4U)


def test_an_encoder_leaves_the_decoder_to_the_seed(tmp_path: pathlib.Path) -> None:
    theirs = tiny_model("tattaka")
    save_file(export(theirs, "timm"), tmp_path / "a.safetensors")
    models = [
        port(tmp_path / "a.safetensors", PortOptions(arch="tattaka", size="tiny", seed=seed))[1] for seed in (3, 3, 4)
    ]
    assert same(models[0], models[1]) and not same(models[0], models[2])
    assert all(same(m, theirs, "encoder.") for m in models)
    _, fresh, _ = build(theirs.config.model, seed=3)
    np.testing.assert_array_equal(models[0].params["head.kernel"], fresh["head.kernel"])


def test_an_rgb_kernel_becomes_five_channels(tmp_path: pathlib.Path) -> None:
    arrays = export(tiny_model("yu4u"), "timm")
    arrays["stem.0.weight"] = np.ascontiguousarray(arrays["stem.0.weight"][:, :3])
    save_file(arrays, tmp_path / "a.safetensors")
    _, model = port(tmp_path / "a.safetensors", TINY_YU4U)
    found = np.asarray(model.params["encoder.stages.0.conv.kernel"])
    rgb = arrays["stem.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(found, rgb[:, :, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)


def test_half_precision_sources_become_float32(tmp_path: pathlib.Path) -> None:
    arrays = {
        k: v if k.endswith("tracked") else v.astype(np.float16) for k, v in export(tiny_model("yu4u"), "timm").items()
    }
    save_file(arrays, tmp_path / "a.safetensors")
    _, model = port(tmp_path / "a.safetensors", TINY_YU4U)
    assert {np.asarray(v).dtype for v in model.params.values()} == {np.dtype(np.float32)}


def test_another_slicing_kernel_or_values_that_are_not_finite_are_refused(tmp_path: pathlib.Path) -> None:
    content = lightning(tiny_model("yu4u"))
    kernel = content["state_dict"]["model.stem.conv.weight"]
    content["state_dict"]["model.stem.conv.weight"] = kernel[::-1].copy()
    with pytest.raises(InputError, match=r"stem\.conv\.weight"):
        port(write_torch_zip(tmp_path / "a.ckpt", content), TINY_YU4U)
    content["state_dict"]["model.stem.conv.weight"] = kernel
    content["state_dict"]["model.segmentation_head.bias"][3] = np.nan
    with pytest.raises(InputError, match=r"model\.segmentation_head\.bias.*NaN"):
        port(write_torch_zip(tmp_path / "a.ckpt", content), TINY_YU4U)


def test_types_follow_the_number_of_classes(tmp_path: pathlib.Path) -> None:
    five = write_torch_zip(tmp_path / "five.ckpt", lightning(tiny_model("yu4u", classes=5)))
    assert port(five, TINY_YU4U)[1].types == CZII_TYPES[:5]
    three = write_torch_zip(tmp_path / "three.ckpt", lightning(tiny_model("yu4u", classes=3)))
    with pytest.raises(InputError, match=r"\b3\b.*--particles"):
        port(three, TINY_YU4U)
    assert port(three, PortOptions(arch="yu4u", size="tiny", types=CZII_TYPES[3:]))[1].types == CZII_TYPES[3:]
    with pytest.raises(InputError, match=r"\b3\b.*--particles.*\b2\b"):
        port(three, PortOptions(arch="yu4u", size="tiny", types=CZII_TYPES[:2]))


def test_command_writes_a_model(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tiny_model("yu4u")
    source = write_torch_zip(tmp_path / "a.ckpt", lightning(theirs))
    out = tmp_path / "sub" / "w.safetensors"
    arguments = ["port", str(source), "--arch", "yu4u", "--size", "tiny", "--out", str(out)]
    assert main([*arguments, "--dry-run"]) == 0
    table = capsys.readouterr().out
    assert "state_dict.model.segmentation_head.weight" in table and "ignored: the identity" in table
    assert not out.exists()
    assert main([*arguments, "--voxel-spacing", "10.5"]) == 0
    assert "peak memory" in capsys.readouterr().out
    model = load_model(out)
    assert same(model, theirs) and model.spacing_angstrom == 10.5 and "a.ckpt" in model.source


def test_command_ports_several_sources_to_a_folder(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [tiny_model("yu4u", seed=n) for n in range(2)]
    sources = [write_torch_zip(tmp_path / f"fold{n}.ckpt", lightning(m)) for n, m in enumerate(models)]
    out = tmp_path / "out"
    command = ["port", *map(str, sources), "--arch", "yu4u", "--size", "tiny", "--out", str(out)]
    assert main(command) == 0
    assert all(same(load_model(out / f"fold{n}.safetensors"), m) for n, m in enumerate(models))
    (tmp_path / "other").mkdir()
    twin = write_torch_zip(tmp_path / "other" / "fold0.ckpt", lightning(models[0]))
    assert main(["port", str(sources[0]), str(twin), *command[3:]]) == 2
    assert "fold0" in capsys.readouterr().err


def test_command_takes_types_from_a_copick_config(tmp_path: pathlib.Path) -> None:
    source = write_torch_zip(tmp_path / "a.ckpt", lightning(tiny_model("yu4u", classes=2)))
    config = tmp_path / "config.json"
    objects = [{"name": n, "is_particle": True, "radius": 100} for n in ("proteasome", "nucleosome")]
    config.write_text(json.dumps({"pickable_objects": objects}))
    out = tmp_path / "w.safetensors"
    options = ["--arch", "yu4u", "--size", "tiny", "--particles", str(config), "--out", str(out)]
    assert main(["port", str(source), *options]) == 0
    assert [t.name for t in load_model(out).types] == ["proteasome", "nucleosome"]


def test_command_reports_bad_input_without_a_traceback(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = write_torch_zip(tmp_path / "evil.ckpt", {"state_dict": Call(Global("os", "system"), ("true",))})
    ours = tmp_path / "ours.safetensors"
    good = write_torch_zip(tmp_path / "good.ckpt", lightning(tiny_model("yu4u")))
    assert main(["port", str(good), "--arch", "yu4u", "--size", "tiny", "--out", str(ours)]) == 0
    cases = {
        (str(evil),): "asks for os.system",
        (str(tmp_path / "none.ckpt"),): "no such file",
        (str(tmp_path),): "is a folder",
        (str(ours),): "already ported",
        (str(good), "--voxel-spacing", "-1"): "--voxel-spacing is -1.0",
        (str(good), "--seed", "-1"): "--seed is -1",
    }
    capsys.readouterr()
    for arguments, message in cases.items():
        out = ["--arch", "yu4u", "--size", "tiny", "--out", str(tmp_path / "w.safetensors")]
        assert main(["port", *arguments, *out]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and message in printed and "Traceback" not in printed
    assert not (tmp_path / "w.safetensors").exists()


def test_hub_names_say_what_to_do_without_the_hub(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["port", "timm/resnetrs50.tf_in1k", "--arch", "tattaka", "--out", str(tmp_path / "w.safetensors")]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert "https://huggingface.co/timm/resnetrs50.tf_in1k/resolve/main/model.safetensors" in printed
    assert "pip install huggingface_hub" in printed

    class Offline:
        @staticmethod
        def hf_hub_download(name: str, file: str) -> str:
            raise ConnectionError("no route to host\nmore")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Offline)
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert "cannot be downloaded" in printed and "(no route to host)" in printed and "in a browser" in printed


def test_a_file_that_is_there_stays_without_force(tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "w.safetensors").write_text("mine")
    (tmp_path / "a.pt").write_text("x")
    assert main(["port", str(tmp_path / "a.pt"), "--arch", "yu4u", "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "w.safetensors").read_text() == "mine"


CHAINS = ["module.", "_orig_mod.", "model._orig_mod.module.", "model_state_dict.", "state_dict.model.module.", "model."]


@pytest.mark.parametrize("prefix", CHAINS)
def test_any_chain_of_containers_is_stripped(prefix: str) -> None:
    plan, _, _ = plan_port(unread(listed("yu4u"), prefix), YU4U, file="x")
    assert plan.recognized.prefix == prefix and not plan.fresh and not plan.recognized.is_averaged


@pytest.mark.parametrize(
    ("averaged", "plain"),
    [
        ("state_dict_ema.module.", "state_dict."),
        ("state_dict.model_ema.module._orig_mod.", "state_dict.model._orig_mod."),
        ("model_ema.module._orig_mod.", "model."),
        ("ema_state_dict.", "model_state_dict."),
    ],
)
def test_averaged_weights_are_found_in_any_container(averaged: str, plain: str) -> None:
    source = unread(listed("yu4u"), averaged) | unread(listed("yu4u"), plain) | unread({averaged + "n_averaged": ()})
    plan, _, _ = plan_port(source, YU4U, file="x")
    assert plan.recognized.prefix == averaged
    assert {s.reason.split(";")[0] for s in plan.steps if s.source.startswith(plain)} == {"plain weights"}
    plan, _, _ = plan_port(source, PortOptions(arch="yu4u", averaged=False), file="x")
    assert plan.recognized.prefix == plain and not plan.recognized.notes


def test_averaged_weights_that_cannot_be_used_are_told(tmp_path: pathlib.Path, capsys) -> None:
    content = lightning(tiny_model("yu4u"))
    weights = content["state_dict"]
    weights |= {f"model_ema.module.net.{k.removeprefix('model.')}": v for k, v in dict(weights).items()}
    path = write_torch_zip(tmp_path / "a.ckpt", content)
    assert main(["port", str(path), "--arch", "yu4u", "--size", "tiny", "--out", str(tmp_path / "w.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "'state_dict.model_ema.module.'" in said and "EMA" in said and "plain weights are used" in said


@pytest.mark.parametrize(
    ("names", "options", "facts"),
    [
        (unread(listed("yu4u"), "learner.net."), YU4U, "begin with 'learner.net.'"),
        (unread({f"student.layer.{n}": (1,) for n in range(3)}), YU4U, "all begin with 'student.layer.'"),
        (unread(listed("yu4u"), "model_ema.module."), PortOptions(arch="yu4u", averaged=False), "leave out --plain"),
    ],
)  # fmt: skip
def test_where_nothing_fits_the_common_prefix_is_named(names, options: PortOptions, facts: str) -> None:
    with pytest.raises(InputError, match=facts):
        plan_port(names, options, file="x")


def test_a_published_network_becomes_a_model_in_two_commands(tmp_path: pathlib.Path, capsys) -> None:
    """README.md's path: port, then onnx, without being asked which tomograms it was trained on."""
    checkpoint = write_torch_zip(tmp_path / "checkpoint.ckpt", lightning(tiny_model("yu4u")))
    weights, out = tmp_path / "yu4u.safetensors", tmp_path / "out"
    assert main(["port", str(checkpoint), "--arch", "yu4u", "--size", "tiny", "--out", str(weights)]) == 0
    said = capsys.readouterr().out
    assert all(fact in said for fact in ("6 particle types", "10.012444 Å", "5.25778e-08", "--voxel-spacing"))
    assert main(["onnx", str(weights), "--out", str(out)]) == 0
    (entry,) = read_manifest(out)
    assert entry.spacing_angstrom == 10.012444 and entry.types == CZII_TYPES
    assert (entry.intensity.rule, entry.intensity.std) == ("fixed", 7.199929e-06)


def test_other_particles_are_not_taken_for_the_challenges(tmp_path: pathlib.Path) -> None:
    three = write_torch_zip(tmp_path / "three.ckpt", lightning(tiny_model("yu4u", classes=3)))
    options = PortOptions(arch="yu4u", size="tiny", types=CZII_TYPES[3:])
    assert port(three, options)[1].spacing_angstrom is None
    six = write_torch_zip(tmp_path / "six.ckpt", lightning(tiny_model("yu4u")))
    options = PortOptions(arch="yu4u", size="tiny", spacing_angstrom=7.84)
    assert port(six, options)[1].spacing_angstrom == 7.84
    save_file(export(tiny_model("yu4u"), "timm"), tmp_path / "encoder.safetensors")
    assert port(tmp_path / "encoder.safetensors", TINY_YU4U)[1].spacing_angstrom is None


def test_a_checkpoint_in_several_parts(tmp_path: pathlib.Path) -> None:
    model = tiny_model("tattaka")
    arrays = list(export(model, "timm").items())
    parts = {f"model-0000{n + 1}-of-00002.safetensors": dict(arrays[n::2]) for n in range(2)}
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {k: f for f, part in parts.items() for k in part}}))
    assert same(port(index, TINY_TATTAKA)[1], model, "encoder.")
    first, second = (tmp_path / name for name in parts)
    with pytest.raises(InputError, match=r"one of 2 parts of a checkpoint; .*model\.safetensors\.index\.json"):
        port(first, TINY_TATTAKA)
    second.unlink()
    with pytest.raises(InputError, match=r"lists 2 parts, 1 of them missing \(model-00002"):
        port(index, TINY_TATTAKA)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(InputError, match="not all beside it"):
        port(index, TINY_TATTAKA)
