"""Every command and every Python block of the README and the documentation is run, or at least parsed."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence

import pytest
import yaml
from doc_commands import OURS, Call, Parsed, commands_of, options_of, parsing_only, understand
from doc_equivalents import (
    FOREIGN,
    FOREIGN_OPTIONS,
    FOREIGN_PACKAGES,
    PARSED_ONLY,
    PRESUMED,
    SMALLER,
    WORDS,
)
from doc_pages import LANGUAGES, PAGES, ROOT, Block, blocks, commands, spans

from jaxcryo.cli import console, plan
from jaxcryo.models import registry
from jaxcryo.runtime import backends

NAMES = [page.name for page in PAGES]
EVERY = [
    (block, text) for page in PAGES for block in blocks(page) if block.language == "bash" for text in commands(block)
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_page_does_what_it_says(
    page: pathlib.Path, stock: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's blocks in their order, in one folder, as a reader would go through it."""
    for name in PRESUMED.get(page.name, ()):
        (shutil.copytree if (stock / name).is_dir() else shutil.copy)(stock / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "DEMO_SHAPE_ZYX", (24, 104, 104))
    for register in (registry, backends):  # what a page adds to them goes with the test
        monkeypatch.setattr(register, "_registered", dict(register._registered))
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.file is not None:
            pathlib.Path(block.file).write_text(block.text)
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), names)
        elif block.language == "bash":
            for text in commands(block):
                attempt(block, text, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_understood(page: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick half of the test above: whatever is run there is parsed here."""
    with parsing_only(monkeypatch):
        for block in blocks(page):
            for text in commands(block) if block.language == "bash" else ():
                call = understand(text)
                if call.is_ours and call.program != "jaxcryo":
                    with pytest.raises(Parsed):
                        console.main([call.program, *(WORDS.get(word, word) for word in call.arguments)])


def attempt(block: Block, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = understand(text)
    what = f"{block.where}: {text}"
    if not call.is_ours:
        check_foreign(call, what)
        return
    unknown = [w for w in call.arguments if "$" in w and w not in WORDS]
    assert not unknown, f"{what}: {unknown} mean nothing to the test"
    words = [WORDS.get(word, word) for word in call.arguments]
    if any(rule.applies(block.page, text, call) for rule in PARSED_ONLY):
        with parsing_only(monkeypatch), pytest.raises(Parsed):
            console.main([call.program, *words])
        return
    words = smaller(call.program, words)
    code = run([*([] if call.program == "jaxcryo" else [call.program]), *words])
    assert code == 0, f"{what}: run as {shlex.join(words)}, ends with {code}"


def run(words: Sequence[str]) -> int | str | None:
    try:
        return console.main(words)
    except SystemExit as stopped:
        return stopped.code


def smaller(program: str, words: Sequence[str]) -> list[str]:
    """The same command at a size that a test can afford."""
    kept = list(words)
    for option, values in SMALLER.get(program, {}).items():
        if option in kept:
            start = kept.index(option)
            stop = next((i for i in range(start + 1, len(kept)) if kept[i].startswith("--")), len(kept))
            del kept[start:stop]
        kept += [option, *values] if values else []
    if program == "train" and "--out" not in kept:  # the folder is called after the size
        arch, fold, size = (words[list(words).index(o) + 1] for o in ("--arch", "--fold", "--size"))
        kept += ["--out", f"runs/{arch}-{size}-fold{fold}"]
    return kept


def check_foreign(call: Call, what: str) -> None:
    """Other programs are not run; what can be known of their arguments is."""
    if call.program == "":
        return
    if call.program == "python -c":
        for node in ast.walk(ast.parse(call.arguments[0])):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), what
        return
    if call.program.startswith("python benchmarks/"):  # minutes to hours; tests of their own run what can be run small
        source = (ROOT / call.program.removeprefix("python ")).read_text()
        unknown = [word for word in call.arguments if word.startswith("--") and f'"{word}"' not in source]
        assert not unknown, f"{what}: {call.program} has no {unknown}"
        return
    if call.program.startswith("python benchmarks/"):  # minutes to hours; tests of their own run what can be run small
        source = (ROOT / call.program.removeprefix("python ")).read_text()
        unknown = [word for word in call.arguments if word.startswith("--") and f'"{word}"' not in source]
        assert not unknown, f"{what}: {call.program} has no {unknown}"
        return
    assert call.program in FOREIGN, f"{what}: {call.program} is neither a command of jaxcryo nor listed as another one"
    if call.program == "pip":
        extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
        packages = [w for w in call.arguments[1:] if not w.startswith("-")]
        for package in packages:
            named = re.fullmatch(r"\.(?:\[(?P<extra>\w+)\])?", package)
            assert package in FOREIGN_PACKAGES or (named and (named["extra"] or "gpu") in extras), what
    if call.program == "sbatch":
        (page,) = (p for p in PAGES if p.name == what.partition(":")[0])
        files = re.findall(r"[\w-]+\.sbatch", " ".join(call.arguments))
        assert files, f"{what}: submits no file"
        for file in files:
            assert f"`{file}`" in page.read_text(), f"{what}: no block is called {file}"


def test_languages() -> None:
    """A block in a language that no test knows would go unchecked."""
    unknown = [b.where for page in PAGES for b in blocks(page) if b.language not in LANGUAGES]
    assert not unknown


def test_yaml_is_well_formed() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "yaml":
                assert isinstance(yaml.safe_load(block.text), dict), block.where


def test_nothing_in_the_tables_is_left_over() -> None:
    calls = [(block.page, text, understand(text)) for block, text in EVERY]
    ours = [c for c in calls if c[2].is_ours]
    assert [r.why for r in PARSED_ONLY if not any(r.applies(*c) for c in ours)] == []
    assert set(FOREIGN) - {call.program for _, _, call in calls} == set()
    assert set(WORDS) - {w for _, _, call in ours for w in call.arguments} == set()
    assert set(PRESUMED) - set(NAMES) == set()


def test_most_are_run() -> None:
    """Parsing is the exception for each of our commands but those that need a card or a network."""
    run_programs = {
        call.program
        for block, text in EVERY
        if (call := understand(text)).is_ours and not any(r.applies(block.page, text, call) for r in PARSED_ONLY)
    }
    assert run_programs == {*OURS, "jaxcryo"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_in_prose_exist(page: pathlib.Path) -> None:
    """Options and commands in backticks, also where they are cut short with dots."""
    ours = {name: commands_of(name) for name in OURS}
    every = set().union(*(options_of(c) for some in ours.values() for c in some.values())) | FOREIGN_OPTIONS
    for span in spans(page):
        if span.startswith("--"):
            assert span.split()[0].partition("=")[0] in every, f"{page.name}: `{span}` is no option"
        elif re.match(r"(jaxcryo|python (\w+\.py|-m)) ", span):
            call = understand(span)
            if not call.is_ours or call.program == "jaxcryo":
                continue
            some = ours[call.program]
            if call.arguments and ("" not in some or call.arguments[0] in some):
                assert call.arguments[0] in some, f"{page.name}: `{span}`"
                some = {"": some[call.arguments[0]]}
            known = set().union(*map(options_of, some.values()))
            wrong = {w for w in call.arguments if w.startswith("--")} - known
            assert not wrong, f"{page.name}: `{span}` has {wrong}"


@pytest.mark.parametrize(
    ("command", "program", "arguments"),
    [
        ("python train.py --fold 0", "train", ("--fold", "0")),
        ("env/bin/jaxcryo picks convert a 'b c'", "picks", ("convert", "a", "b c")),
        ("A=1 srun --ntasks 4 jaxcryo train --fold 0", "train", ("--fold", "0")),
        ("python -m convert onnx x  # why", "convert", ("onnx", "x")),
        ("python3 -m venv .venv", "python -m venv", (".venv",)),
        ("jaxcryo --help", "jaxcryo", ("--help",)),
        ("RUN=1", "", ()),
        ("rm -rf /", "rm", ("-rf", "/")),
    ],
)
def test_understand(command: str, program: str, arguments: tuple[str, ...]) -> None:
    assert understand(command).program == program
    assert understand(command).arguments == arguments


@pytest.mark.parametrize("text", ["jaxcryo infer --no-such-option", "jaxcryo train --fold 0", "jaxcryo infr --demo"])
def test_a_wrong_command_fails(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.chdir(tmp_path)
    block = Block(page="t4.md", line=1, language="bash", text=text)
    with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception)):
        attempt(block, text, monkeypatch)


def test_an_unknown_program_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="neither a command of jaxcryo"):
        attempt(Block(page="t4.md", line=1, language="bash", text=""), "curl x", monkeypatch)
