"""The built wheel, away from the checkout: what is in it, and that its command works."""

from __future__ import annotations

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("jaxcryo",)

# What the installed command does, on a demo of a few windows.
SMALL_DEMO = """
import sys
import jaxcryo.cli.plan
from jaxcryo.cli.console import main

if __name__ == "__main__":
    jaxcryo.cli.plan.DEMO_SHAPE_ZYX = (24, 104, 104)
    print(jaxcryo.__file__)
    sys.exit(main(["infer", "--demo"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a copy, since setuptools leaves things in the folder that it builds from."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def run(unpacked: pathlib.Path, cwd: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_holds_all_that_the_packages_hold(unpacked: pathlib.Path) -> None:
    for package in PACKAGES:
        ours = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        theirs = {p.relative_to(unpacked) for p in (unpacked / package).rglob("*") if p.is_file()}
        assert theirs == ours
    assert (unpacked / "jaxcryo" / "py.typed").exists()
    for file in (ROOT / "jaxcryo" / "demo").iterdir():
        assert (unpacked / "jaxcryo" / "demo" / file.name).read_bytes() == file.read_bytes()
    assert {p.name for p in unpacked.iterdir() if p.suffix != ".dist-info"} == set(PACKAGES)


def test_brings_the_command(unpacked: pathlib.Path) -> None:
    (file,) = unpacked.glob("*.dist-info/entry_points.txt")
    entries = configparser.ConfigParser()
    entries.read(file)
    assert dict(entries["console_scripts"]) == {"jaxcryo": "jaxcryo.cli.console:main"}


@pytest.mark.slow
def test_demo_writes_to_its_folder_alone(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    script, cwd = tmp_path / "demo.py", tmp_path / "empty"
    script.write_text(SMALL_DEMO)
    cwd.mkdir()
    result = run(unpacked, cwd, str(script))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(str(unpacked)), "the checkout's package was run"
    assert "weighted F4" in result.stdout
    assert {p.name for p in cwd.iterdir()} == {"demo"}
    assert {"submission.csv", "settings.json", "ExperimentRuns"} <= {p.name for p in (cwd / "demo").iterdir()}


def test_help_is_there_at_once(unpacked: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The commands are imported when they are called: help starts neither JAX nor NumPy."""
    heavy = "{'jax', 'numpy'} & set(sys.modules)"
    for words in ([], ["infer", "--help"], ["convert", "onnx", "--help"], ["picks", "threshold", "--help"]):
        code = f"import sys; from jaxcryo.cli.console import main\ntry: main({words})\nexcept SystemExit: pass"
        result = run(unpacked, tmp_path, "-c", f"{code}\nsys.exit(bool({heavy}))")
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"usage: jaxcryo {' '.join(words[:-1])}" in result.stdout
