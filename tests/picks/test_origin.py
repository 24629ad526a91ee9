"""Picks are those of one tomogram, known by its files and not by its name."""

import os
import pathlib
import shutil

import pytest

from jaxcryo.domain import Run
from jaxcryo.picks.folder import PicksFolder
from jaxcryo.picks.origin import Origin, change_since, unchanged, write_origin
from jaxcryo.stores.address import Address


@pytest.fixture
def tomogram(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of chunks."""
    folder = tmp_path / "a.zarr"
    for name in ("0/0", "0/1", ".zattrs"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(range(100)) * 200)
    return folder


def picked(tmp_path: pathlib.Path, tomogram: pathlib.Path) -> pathlib.Path:
    write_origin(tmp_path / "picks" / "TS_1", Origin.of(tomogram))
    return tmp_path / "picks" / "TS_1"


def test_the_same_tomogram_is_done_wherever_it_was_moved(tmp_path, tomogram) -> None:
    folder = picked(tmp_path, tomogram)
    assert change_since(folder, Run(name="TS_1", volume_path=tomogram)) is None
    moved = tmp_path / "elsewhere.zarr"
    shutil.copytree(tomogram, moved)  # with its times
    assert change_since(folder, Run(name="TS_1", volume_path=moved)) is None
    (tmp_path / "link.zarr").symlink_to(tomogram)
    assert change_since(folder, Run(name="TS_1", volume_path=tmp_path / "link.zarr")) is None


def test_another_tomogram_of_the_name_is_not(tmp_path, tomogram) -> None:
    folder = picked(tmp_path, tomogram)
    other = tmp_path / "other.zarr"
    shutil.copytree(tomogram, other)
    times = (other / "0" / "1").stat()
    (other / "0" / "1").write_bytes(bytes(range(100, 200)) * 200)  # as large, and as old
    os.utime(other / "0" / "1", ns=(times.st_atime_ns, times.st_mtime_ns))
    said = change_since(folder, Run(name="TS_1", volume_path=other))
    assert said is not None and str(other) in said and str(tomogram) in said


def test_a_chunk_that_was_written_anew_is_seen(tmp_path, tomogram) -> None:
    folder, run = picked(tmp_path, tomogram), Run(name="TS_1", volume_path=tomogram)
    with (tomogram / "0" / "1").open("r+b") as file:
        file.seek(7000)
        file.write(b"x")
    os.utime(tomogram / "0" / "1", ns=(0, 2**61))
    said = change_since(folder, run)
    assert said is not None and "changed" in said
    other = Run(name="TS_2", volume_path=tomogram)  # picked before origins were kept
    assert unchanged(tmp_path / "picks", [run, other]) == ({"TS_2"}, {"TS_1": said})


def test_a_file_is_one_too(tmp_path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(b"a" * 10)
    first = Origin.of(path)
    assert first.is_same(Origin.of(path))
    path.write_bytes(b"b" * 10)
    os.utime(path, ns=(0, first.modified_ns))
    assert not first.is_same(Origin.of(path))
    gone = Origin.of(tmp_path / "gone.mrc")
    assert gone.is_same(gone) and not gone.is_same(Origin.of(tmp_path / "gone.zarr"))


def test_a_tomogram_at_an_address_is_still_there(tmp_path, tomogram) -> None:
    folder = PicksFolder(path=tmp_path)
    url = "s3://bucket/TS_3.zarr"
    for name, path in (("TS_1", str(tomogram)), ("TS_2", str(tmp_path / "gone.zarr")), ("TS_3", url)):
        write_origin(folder.runs / name, Origin(path=path, bytes=1, modified_ns=0, sample="a"))
    places = {run.name: run.volume_path for run in folder.origins()}
    assert places == {"TS_1": tomogram, "TS_3": Address(url)}
