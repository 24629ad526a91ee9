"""Models with their card, written to a folder or to the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
from typing import Any

from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.runtime.card import Said, card
from jaxcryo.runtime.hub import SUFFIXES, HubName, endpoint, first_line, hub
from jaxcryo.runtime.manifest import FILE_NAME, read_manifest

CARD = "README.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Publishable:
    """What is published."""

    name: HubName
    folder: pathlib.Path
    files: tuple[str, ...]
    """Of the folder."""
    card: str


def publishable(folder: pathlib.Path, name: str, said: Said) -> Publishable:
    """The models of a folder, checked, and their card.

    Raises:
        InputError: they are not usable models, or the name or the licence is none.
    """
    parsed = HubName.parse(name)
    if parsed is None or parsed.revision is not None:
        raise InputError(f"{name}: is no name to publish under; expected hf://user/name, without a revision")
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
        files=(FILE_NAME, *sorted(files)),
        card=card(entries, parsed.repository, said),
    )


def write_folder(models: Publishable, out: pathlib.Path, *, force: bool) -> None:
    """Writes all of it to a folder, whole or not at all.

    Raises:
        InputError: it is there already and no `force`, or cannot be written.
    """
    if out.exists() and not (force and (out / FILE_NAME).is_file() and (out / CARD).is_file()):
        raise InputError(
            f"{out} already exists and holds no published models: choose another folder"
            if force
            else f"{out} already exists; pass --force to replace models that were written there"
        )
    with atomic_path(out) as fresh:
        fresh.mkdir()
        (fresh / CARD).write_text(models.card, encoding="utf-8")
        for file in models.files:
            shutil.copyfile(models.folder / file, fresh / file)


def upload(models: Publishable, *, private: bool) -> str:
    """Publishes all of it in one commit, in which earlier models that are no longer listed go; gives its address.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    package = hub(models.name)
    repository = models.name.repository
    try:
        api: Any = package.HfApi(endpoint=endpoint())
        address = api.create_repo(repository, private=private, exist_ok=True)
        there = api.list_repo_files(repository)
        stale = [f for f in there if "/" not in f and f.endswith(SUFFIXES) and f not in models.files]
        operations = [
            package.CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=models.card.encode()),
            *(package.CommitOperationAdd(path_in_repo=f, path_or_fileobj=str(models.folder / f)) for f in models.files),
            *(package.CommitOperationDelete(path_in_repo=f) for f in stale),
        ]
        api.create_commit(repository, operations, commit_message="Models of jaxcryo")
    except Exception as error:  # the hub's own errors, and those of its HTTP client
        raise InputError(
            f"{models.name}: cannot be published ({first_line(error)}); sign in with 'hf auth login' (or set HF_TOKEN) "
            "and check that the name is yours"
        ) from error
    return str(address)
