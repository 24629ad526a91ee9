"""Models with their card, written to a folder or to the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.runtime.card import Said, card
from jaxcryo.runtime.hub import SUFFIXES, HubName, endpoint, first_line, hub
from jaxcryo.runtime.manifest import FILE_NAME, manifest_text, read_manifest

CARD = "README.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publishable:
    """The files to publish."""

    name: HubName
    folder: pathlib.Path
    files: tuple[str, ...]
    """Of the folder: what its manifest lists."""
    texts: Mapping[str, str]
    """The card and the manifest, by their files' names."""


def publishable(folder: pathlib.Path, name: str, said: Said) -> Publishable:
    """The models of a folder, checked, and their card.

    Raises:
        InputError: they are not usable models, or the name or the license is not valid.
    """
    parsed = HubName.parse(name)
    if parsed is None or parsed.revision is not None:
        raise InputError(f"{name}: is not a name to publish under; expected hf://user/name, without a revision")
    if not _LICENSE.fullmatch(said.license):
        raise InputError(
            f"--license is {said.license!r}; expected a name as the hub has them, such as mit or cc-by-4.0"
        )
    entries = read_manifest(folder)
    files = {name for e in entries for name, _ in e.files}
    other = sorted(f for f in files if not f.endswith(SUFFIXES))
    if other:
        raise InputError(f"{folder / other[0]}: is not published; expected {' or '.join(SUFFIXES)}: convert again")
    return Publishable(
        name=parsed,
        folder=folder,
        files=tuple(sorted(files)),
        # The manifest in today's format, whatever the folder's is: only that is fetched.
        texts={CARD: card(entries, parsed.repository, said), FILE_NAME: manifest_text(entries)},
    )


def write_folder(models: Publishable, out: pathlib.Path, *, force: bool) -> None:
    """Writes all of it to a folder, whole or not at all.

    Raises:
        InputError: it already exists and `force` is not given, holds anything else, or cannot be written.
    """
    if out.exists():
        if not force:
            raise InputError(f"{out} already exists; pass --force to replace models that were written there")
        _check_replaceable(out, models.folder)
    with atomic_path(out) as fresh:
        fresh.mkdir()
        for name, text in models.texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        for file in models.files:
            shutil.copyfile(models.folder / file, fresh / file)


def _check_replaceable(out: pathlib.Path, folder: pathlib.Path) -> None:
    if out.samefile(folder):
        raise InputError(f"{out} is the folder that is published: choose another one for --dry-run")
    if not ((out / FILE_NAME).is_file() and (out / CARD).is_file()):
        raise InputError(f"{out} already exists and holds no published models: choose another folder")
    others = sorted(p.name for p in out.iterdir() if p.name not in (CARD, FILE_NAME) and p.suffix not in SUFFIXES)
    if others:
        raise InputError(f"{out} also holds {', '.join(others[:5])}, which would be lost: choose another folder")


def upload(models: Publishable, *, private: bool) -> str:
    """Publishes all of it in one commit, which removes earlier models that are no longer listed; returns the address.

    Raises:
        InputError: the hub cannot be reached, or refuses; or a repository that is to be private is public.
    """
    package = hub(models.name)
    repository = models.name.repository
    try:
        api: Any = package.HfApi(endpoint=endpoint())
        address = api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise InputError(
                f"{models.name}: already exists and is public, which --private does not change; make it private on "
                "the hub first, or leave out --private"
            )
        there = api.list_repo_files(repository)
        stale = [f for f in there if "/" not in f and f.endswith(SUFFIXES) and f not in models.files]
        operations = [
            *(package.CommitOperationAdd(path_in_repo=f, path_or_fileobj=t.encode()) for f, t in models.texts.items()),
            *(package.CommitOperationAdd(path_in_repo=f, path_or_fileobj=str(models.folder / f)) for f in models.files),
            *(package.CommitOperationDelete(path_in_repo=f) for f in stale),
        ]
        api.create_commit(repository, operations, commit_message="Models of jaxcryo")
    except InputError:
        raise
    except Exception as error:  # the hub's own errors, and those of its HTTP client
        raise InputError(
            f"{models.name}: cannot be published ({first_line(error)}); sign in with 'hf auth login' (or set HF_TOKEN) "
            "and check that the name is yours"
        ) from error
    return str(address)
