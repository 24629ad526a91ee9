"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
import pathlib

import pytest

from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path, write_text


def test_a_file_appears_when_the_block_ends(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as fresh:
        assert fresh.parent == target.parent and fresh.name.startswith(".")
        fresh.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_failed_block_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="broken"), atomic_path(target) as fresh:
        fresh.write_text("half")
        raise RuntimeError("broken")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_a_folder(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "out"
    for content in ("first", "second"):
        with atomic_path(target) as fresh:
            fresh.mkdir()
            (fresh / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_one(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(KeyError), atomic_path(target) as fresh:
        fresh.mkdir()
        (fresh / "half").write_text("half")
        raise KeyError
    assert [p.name for p in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_where_a_folder_is_needed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file/a\.txt.*folder"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(InputError, match="file"), atomic_path(tmp_path / "file") as fresh:
        fresh.mkdir()
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_where_a_file_is_needed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(InputError, match="folder"):
        write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"a: .*full"), atomic_path(tmp_path / "a"):
        raise OSError(28, os.strerror(28))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: pathlib.Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="closed/a"):
        write_text(tmp_path / "closed" / "a", "x")


def test_errors_about_other_files_pass_through(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "a"):
        (tmp_path / "folder").read_text()
