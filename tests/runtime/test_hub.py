"""Models by name: what was published comes back as it was, once, and is used without a connection afterwards."""

import dataclasses
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest
import yaml
from hub_double import Hub, hub_double
from huggingface_hub import constants

from jaxcryo.cli.plan import DEMO_MODELS
from jaxcryo.cli.publish import main as publish
from jaxcryo.errors import InputError
from jaxcryo.runtime.hub import HubName, models_folder
from jaxcryo.runtime.manifest import FILE_NAME, Int8Model, file_sha256, read_manifest, write_manifest

NAME = "hf://user/some-models"


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_double() as double:
        monkeypatch.setenv("HF_ENDPOINT", double.url)
        yield double


@pytest.fixture
def models(tmp_path: pathlib.Path) -> pathlib.Path:
    """The bundled network, and files that are nobody's business."""
    shutil.copytree(DEMO_MODELS, tmp_path / "out")
    (tmp_path / "out" / "secret.pkl").touch()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://user/name", "user/name", None),
        ("hf://user/name@v1.0", "user/name", "v1.0"),
        (pathlib.Path("hf://user/name@refs/pr/1"), "user/name", "refs/pr/1"),
    ],
)
def test_names(text, repository, revision) -> None:
    name = HubName.parse(text)
    assert name == HubName(repository=repository, revision=revision)
    assert HubName.parse(str(name)) == name


def test_paths_are_no_names() -> None:
    assert models_folder("out/") == pathlib.Path("out/")
    for wrong in ("hf://user", "hf://user/name/more", "hf://../name", "hf://user/na me", "hf://user/name@"):
        with pytest.raises(InputError, match="hf://user/name"):
            models_folder(wrong)


def test_published_models_come_back(hub: Hub, models: pathlib.Path, monkeypatch) -> None:
    assert publish([str(models), NAME, "--license", "mit"]) == 0
    (files,) = hub.repositories["user/some-models"].values()
    assert set(files) == {
        "README.md",
        FILE_NAME,
        "tattaka-small-structures.onnx",
        "tattaka-small-structures.safetensors",
    }
    folder = models_folder(NAME)
    assert read_manifest(folder) == read_manifest(models)
    hub.asked.clear()
    assert models_folder(NAME) == folder
    assert not any(path.endswith((".onnx", ".safetensors")) for path in hub.asked)
    commit = hub.revision("user/some-models", "main")
    assert models_folder(f"{NAME}@{commit}") == folder
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody there
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
    assert models_folder(NAME) == folder
    with pytest.raises(InputError, match=r"hf://user/other.*reached"):
        models_folder("hf://user/other")


def test_int8_models_go_along(hub: Hub, models: pathlib.Path) -> None:
    (models / "small.onnx").write_bytes(b"x")
    twin = Int8Model(
        onnx_file="small.onnx",
        onnx_sha256=file_sha256(models / "small.onnx"),
        calibrated_on="phantoms",
        f4_change=-0.004,
        agreement=0.9,
        cpu="a CPU",
        speedup=2.0,
    )
    entries = [dataclasses.replace(entry, int8=twin) for entry in read_manifest(models)]
    write_manifest(models, entries)
    assert publish([str(models), NAME, "--license", "mit"]) == 0
    assert "-0.004" in hub.newest("user/some-models")["README.md"].decode()
    assert list(read_manifest(models_folder(NAME))) == entries


def test_publishing_again_replaces_all_models(hub: Hub, models: pathlib.Path) -> None:
    hub.commit("user/some-models", {"old.onnx": b"", "old.safetensors": b"", ".gitattributes": b"x", "LICENSE": b"x"})
    assert publish([str(models), NAME, "--license", "mit"]) == 0
    assert {".gitattributes", "LICENSE", FILE_NAME} < set(hub.newest("user/some-models"))
    assert not {"old.onnx", "old.safetensors"} & set(hub.newest("user/some-models"))


def test_what_changed_on_the_way_is_refused(hub: Hub, models: pathlib.Path) -> None:
    files = {f.name: f.read_bytes() for f in models.iterdir()}
    files["tattaka-small-structures.onnx"] += b"x"
    hub.commit("user/some-models", files)
    with pytest.raises(InputError, match=r"tattaka-small-structures\.onnx: does not match"):
        read_manifest(models_folder(NAME))


def test_a_public_repository_takes_nothing_private(hub: Hub, models: pathlib.Path, capsys) -> None:
    hub.commit("user/some-models", {"README.md": b"public"})
    command = [str(models), "--license", "mit", "--private"]
    assert publish([*command, NAME]) == 2
    assert f"{NAME}: already exists and is public" in capsys.readouterr().err
    assert hub.newest("user/some-models") == {"README.md": b"public"}
    assert publish([*command, "hf://user/new"]) == 0
    assert hub.private == {"user/new"} and FILE_NAME in hub.newest("user/new")
    assert publish([*command, "hf://user/new"]) == 0  # again


def test_models_of_the_earlier_format_come_back(hub: Hub, models: pathlib.Path) -> None:
    entries = read_manifest(models)
    manifest = json.loads((models / FILE_NAME).read_text())
    (models / FILE_NAME).write_text(json.dumps({"format": 1, "engines": manifest["models"]}))
    assert read_manifest(models) == entries
    assert publish([str(models), NAME, "--license", "mit"]) == 0
    assert read_manifest(models_folder(NAME)) == entries


@pytest.mark.parametrize("file", ["model.pkl", "pytorch_model.bin", "../x.onnx", "a/b.onnx", 7])
def test_only_models_are_fetched(hub: Hub, models: pathlib.Path, file) -> None:
    manifest = json.loads((models / FILE_NAME).read_text())
    manifest["models"][0]["weights_file"] = file
    hub.commit("user/some-models", {FILE_NAME: json.dumps(manifest).encode(), "model.pkl": b"x"})
    with pytest.raises(InputError, match=r"lists.*only \.onnx and \.safetensors"):
        models_folder(NAME)
    assert all(path.endswith(FILE_NAME) for path in hub.asked)


def test_what_is_not_there_is_said(hub: Hub, cache: pathlib.Path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"hf://user/some-models: .*no such repository"):
        models_folder(NAME)
    hub.commit("user/some-models", {"README.md": b""})
    with pytest.raises(InputError, match=f"{FILE_NAME}.*jaxcryo publish"):
        models_folder(NAME)
    with pytest.raises(InputError, match="no revision v9"):
        models_folder(f"{NAME}@v9")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        models_folder(NAME)


def test_the_card_says_what_is_known(models: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    score = {"truth": 10, "found": 12, "precision": 0.75, "recall": 0.9, "f4": 0.889}
    (tmp_path / "held-out.json").write_text(
        json.dumps({"weighted_f4": 0.8125, "runs": ["TS_5_4"], "types": {"ribosome": score}})
    )
    (tmp_path / "notes.md").write_text("Trained on *phantoms*.")
    command = [str(models), NAME, "--license", "cc-by-4.0", "--dry-run", str(tmp_path / "dry")]
    more = ["--scores", str(tmp_path / "held-out.json"), "--notes", str(tmp_path / "notes.md")]
    assert publish([*command, *more]) == 0
    assert read_manifest(tmp_path / "dry") == read_manifest(models)
    assert not (tmp_path / "dry" / "secret.pkl").exists()
    text = (tmp_path / "dry" / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "cc-by-4.0"
    (entry,) = read_manifest(models)
    for fact in (NAME, "Trained on *phantoms*.", "0.812", "TS_5_4", "| ribosome | 10 | 12 | 0.750 | 0.900 | 0.889 |"):
        assert fact in body
    for fact in (entry.source, "10.0124", "2502.13484", "16×96×96", *(t.name for t in entry.types)):
        assert fact in body
    assert publish(command) == 2  # it is there
    assert publish([*command, "--force"]) == 0
    assert "None were published" in (tmp_path / "dry" / "README.md").read_text()
    (tmp_path / "dry" / "thesis.txt").touch()
    assert publish([*command, "--force"]) == 2 and "thesis.txt" in capsys.readouterr().err
    (models / "README.md").touch()
    assert publish([*command[:-1], str(models), "--force"]) == 2 and (models / "secret.pkl").exists()
    (tmp_path / "mine").mkdir()
    assert publish([*command[:-1], str(tmp_path / "mine"), "--force"]) == 2
    assert "mine" in capsys.readouterr().err and (tmp_path / "mine").is_dir()


def test_what_cannot_be_published(hub: Hub, models: pathlib.Path, tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "scores.json").write_text("{}")
    (tmp_path / "again").mkdir()
    same = [tmp_path / "fair.json", tmp_path / "again" / "fair.json"]
    for file in same:
        file.write_text(json.dumps({"weighted_f4": 0.5, "types": {}}))
    for wrong, said in (
        ([str(models), "user/name", "--license", "mit"], "hf://user/name"),
        ([str(models), f"{NAME}@v1", "--license", "mit"], "revision"),
        ([str(models), NAME, "--license", "do what you want"], "--license"),
        ([str(tmp_path / "none"), NAME, "--license", "mit"], "none"),
        ([str(models), NAME, "--license", "mit", "--scores", str(tmp_path / "scores.json")], "scores.json"),
        ([str(models), NAME, "--license", "mit", "--scores", *map(str, same)], "another file of scores is called fair"),
    ):
        assert publish(wrong) == 2
        assert said in capsys.readouterr().err
    hub.refuses = True
    assert publish([str(models), NAME, "--license", "mit"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not hub.repositories
