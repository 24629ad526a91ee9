"""Tomograms on servers are the same as on disk, whatever their servers do; what does not come is said."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import servers
import zarr

from jaxcryo.cli.infer import main as infer
from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.picks.origin import Origin, unchanged, write_origin
from jaxcryo.project.dataset import find_runs
from jaxcryo.stores import access, objects
from jaxcryo.stores.cache import Cache
from jaxcryo.tomogram import remote
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

VOXELS = np.random.default_rng(0).normal(size=(70, 130, 130)).astype(np.float32)
CHUNKS = 2 * 3 * 3


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts."""
    monkeypatch.setattr(objects, "PATIENCE", objects.Patience(attempts=4, first_seconds=0.01, longest_seconds=0.02))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """With a tomogram, `a b.zarr`."""
    folder = tmp_path_factory.mktemp("served")
    write_ome_zarr(folder / "a b.zarr", VOXELS, (10.0, 10.0, 10.0), levels=2)
    return folder


@pytest.fixture
def web(folder: pathlib.Path) -> Iterator[servers.Served]:
    with servers.web_server(folder) as served:
        yield served


@pytest.fixture(scope="module")
def bucket(folder: pathlib.Path) -> Iterator[servers.Served]:
    with servers.s3_server() as served:
        servers.put_folder(served, "bucket", folder, "some/")
        yield served


@pytest.fixture
def s3(bucket: servers.Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.Served]:
    """Read anonymously."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    bucket.asked.clear()
    yield bucket
    bucket.fault = lambda path, attempt: None


def chunks_asked(served: servers.Served) -> dict[str, int]:
    return {
        path: n
        for path, n in served.asked.items()
        if "/0/" in path and not path.endswith((".zarray", ".json", ".zattrs", ".zgroup"))
    }


def in_slabs(volume: Volume, slices: int) -> np.ndarray:
    return np.concatenate([volume.read(z, min(z + slices, 70)) for z in range(0, 70, slices)])


def test_a_tomogram_by_https_is_the_one_on_disk(web, folder) -> None:
    web.fault = servers.one_in(20)
    volume = open_volume(f"{web.url}/a b.zarr")
    assert volume.name == "a b" and volume.grid == open_volume(folder / "a b.zarr").grid
    np.testing.assert_array_equal(in_slabs(volume, 64), VOXELS)
    assert web.failed
    asked = chunks_asked(web)
    assert len(asked) == CHUNKS and sum(asked.values()) <= CHUNKS + web.failed  # each once, ahead or not
    half = open_volume(f"{web.url}/a b.zarr", level=1)
    np.testing.assert_array_equal(half.load(), open_volume(folder / "a b.zarr", level=1).load())
    np.testing.assert_array_equal(volume.read_box(slice(3, 9), slice(60, 70), slice(0, 5)), VOXELS[3:9, 60:70, :5])


def test_a_tomogram_in_a_bucket_is_the_one_on_disk(s3, folder) -> None:
    s3.fault = servers.one_in(5)
    volume = open_volume("s3://bucket/some/a b.zarr/")
    assert volume.grid == open_volume(folder / "a b.zarr").grid
    np.testing.assert_array_equal(in_slabs(volume, 64), VOXELS)
    assert s3.failed


def test_a_server_without_head_is_read_too(web) -> None:
    web.answers_head = False
    np.testing.assert_array_equal(open_volume(f"{web.url}/a b.zarr").read(0, 2), VOXELS[:2])
    (run,) = find_runs(f"{web.url}/a b.zarr")
    assert Origin.of(run.volume_path).is_same(Origin.of(run.volume_path))


def test_what_stalls_is_asked_for_again(web, monkeypatch) -> None:
    monkeypatch.setattr(access, "SILENCE_SECONDS", 1.0)
    web.fault = lambda path, attempt: "stall" if path.endswith("/0/1/1/1") and attempt == 1 else None
    np.testing.assert_array_equal(open_volume(f"{web.url}/a b.zarr").load(), VOXELS)
    assert web.asked["/a b.zarr/0/1/1/1"] == 2


@pytest.mark.parametrize(("fault", "said"), [("503", "503"), ("break", "broke off"), ("403", "403")])
def test_a_chunk_that_does_not_come_is_named(web, fault, said) -> None:
    web.fault = lambda path, attempt: fault if path.endswith("/0/1/0/0") else None
    volume = open_volume(f"{web.url}/a b.zarr")
    with pytest.raises(InputError, match=said) as raised:
        volume.load()
    assert f"{web.url}/a b.zarr/0/1/0/0" in str(raised.value)
    np.testing.assert_array_equal(volume.read(0, 64), VOXELS[:64])


def test_a_chunk_that_is_not_there_is_the_fill_value_and_said(web, s3) -> None:
    web.fault = lambda path, attempt: "404" if path.endswith("/0/1/0/0") else None
    volume = open_volume(f"{web.url}/a b.zarr")
    with pytest.warns(UserWarning, match="/0/1/0/0.*absent"):
        found = volume.load()
    expected = VOXELS.copy()
    expected[64:, :64, :64] = 0
    np.testing.assert_array_equal(found, expected)


def test_absent_chunks_of_a_bucket_are_said_at_once(s3, folder, tmp_path) -> None:
    shutil.copytree(folder / "a b.zarr", tmp_path / "c.zarr")
    (tmp_path / "c.zarr" / "0" / "1" / "0" / "0").unlink()
    servers.put_folder(s3, "lacking", tmp_path)
    with pytest.warns(UserWarning, match=f"1 of its {CHUNKS} chunks"):
        volume = open_volume("s3://lacking/c.zarr")
    assert not volume.load()[64:, :64, :64].any()
    assert not any(path.endswith("/0/1/0/0") for path in s3.asked)


def test_a_damaged_chunk_is_named(folder, tmp_path) -> None:
    shutil.copytree(folder / "a b.zarr", tmp_path / "c.zarr")
    chunk = tmp_path / "c.zarr" / "0" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with servers.web_server(tmp_path) as web, pytest.raises(InputError, match=r"c\.zarr/0/1/0/0.*truncated"):
        open_volume(f"{web.url}/c.zarr").load()


def test_memory_is_bounded(web, monkeypatch) -> None:
    """No more chunks are held than the bound, however many are expected."""
    monkeypatch.setattr(remote, "_AHEAD_BYTES", 3 * 64**3 * 4)
    most = 0
    ask = remote.RemoteStore._ask

    def watched(store: remote.RemoteStore) -> None:
        nonlocal most
        ask(store)
        most = max(most, len(store._coming))

    monkeypatch.setattr(remote.RemoteStore, "_ask", watched)
    np.testing.assert_array_equal(open_volume(f"{web.url}/a b.zarr").load(), VOXELS)
    assert most == 3


def test_the_cache_spares_the_network(web, tmp_path, folder) -> None:
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(open_volume(f"{web.url}/a b.zarr", cache=cache).load(), VOXELS)
    asked = chunks_asked(web)
    assert set(asked.values()) == {1} and len(asked) == CHUNKS


def test_the_cache_is_of_one_version(tmp_path) -> None:
    write_ome_zarr(tmp_path / "served" / "c.zarr", VOXELS, (10.0, 10.0, 10.0), levels=1)
    with servers.web_server(tmp_path / "served") as web:
        cache = Cache(tmp_path / "cache")
        open_volume(f"{web.url}/c.zarr", cache=cache).load()
        write_ome_zarr(tmp_path / "served" / "c.zarr", 2 * VOXELS, (10.0, 10.0, 10.0), levels=1)
        np.testing.assert_array_equal(open_volume(f"{web.url}/c.zarr", cache=cache).load(), 2 * VOXELS)


def test_shards_and_leading_axes(tmp_path) -> None:
    group = zarr.open_group(tmp_path / "d.zarr", mode="w", zarr_format=3)
    array = group.create_array(
        "0", shape=(1, *VOXELS.shape), dtype="float32", chunks=(1, 16, 32, 32), shards=(1, 64, 64, 64)
    )
    array[0] = VOXELS
    transforms = [{"type": "scale", "scale": [1, 8, 8, 8]}]
    axes = [{"name": "c"}, *({"name": a, "unit": "angstrom"} for a in "zyx")]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}],
    }
    with servers.web_server(tmp_path) as web:
        volume = open_volume(f"{web.url}/d.zarr")
        np.testing.assert_array_equal(in_slabs(volume, 16), VOXELS)
        assert volume.voxels.chunks == (16, 32, 32)


def test_what_is_private_wants_credentials(s3, folder, monkeypatch) -> None:
    servers.put_folder(s3, "private", folder, public=False)
    with pytest.raises(InputError, match=r"s3://private/a b\.zarr.*403.*AWS_"):
        open_volume("s3://private/a b.zarr")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    np.testing.assert_array_equal(open_volume("s3://private/a b.zarr").read(0, 2), VOXELS[:2])


def test_runs_of_a_bucket(s3, tmp_path) -> None:
    for name in ("b.ome.zarr", "a.zarr"):
        write_ome_zarr(tmp_path / "t" / name, VOXELS[:8, :16, :16], (10.0, 10.0, 10.0), levels=1)
    (tmp_path / "t" / "notes").mkdir()
    (tmp_path / "t" / "notes" / "x.txt").touch()
    servers.put_folder(s3, "runs", tmp_path)
    notes: list[str] = []
    runs = find_runs("s3://runs/t/", note=notes.append)
    assert [(r.name, str(r.volume_path)) for r in runs] == [
        ("a", "s3://runs/t/a.zarr"),
        ("b", "s3://runs/t/b.ome.zarr"),
    ]
    assert len(notes) == 1 and "notes" in notes[0]
    assert [r.name for r in find_runs("s3://runs/t/a.zarr")] == ["a"]
    assert [r.name for r in find_runs("s3://runs/t", names=["b"])] == ["b"]
    with pytest.raises(InputError, match="no run c; its runs are a, b"):
        find_runs("s3://runs/t", names=["c"])
    with pytest.raises(InputError, match=r"s3://runs: holds no tomogram.*t/"):
        find_runs("s3://runs")


@pytest.mark.parametrize("name", ["x%2F..%2Fy.zarr", "...zarr"])
def test_a_run_is_not_called_like_a_path(name: str, monkeypatch) -> None:
    """Its name becomes a folder's."""
    monkeypatch.setattr(objects.Objects, "inside", lambda _: objects.Folder(folders=(), objects=("zarr.json",)))
    with pytest.raises(InputError, match="a run is called"):
        find_runs(f"https://127.0.0.1:9/{name}")


def test_runs_of_a_web_server(web) -> None:
    assert [r.name for r in find_runs(f"{web.url}/a b.zarr")] == ["a b"]
    with pytest.raises(InputError, match="list"):
        find_runs(web.url)


@pytest.mark.parametrize("kind", ["web", "s3"])
def test_picks_are_of_one_state_of_an_address(kind, s3, tmp_path) -> None:
    write_ome_zarr(tmp_path / "served" / "c.zarr", VOXELS[:8, :16, :16], (10.0, 10.0, 10.0), levels=1)
    with servers.web_server(tmp_path / "served") as web:
        servers.put_folder(s3, "states", tmp_path / "served")
        place = f"{web.url}/c.zarr" if kind == "web" else "s3://states/c.zarr"
        (run,) = find_runs(place)
        write_origin(tmp_path / "picks" / "c", Origin.of(run.volume_path))
        assert unchanged(tmp_path / "picks", [run])[0] == {"c"}
        write_ome_zarr(tmp_path / "served" / "c.zarr", VOXELS[8:16, :16, :16], (10.0, 10.0, 10.0), levels=1)
        servers.put_folder(s3, "states", tmp_path / "served")
        done, changed = unchanged(tmp_path / "picks", [run])
        assert not done and place in changed["c"]


@pytest.fixture
def phantom(dataset: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a phantom in many chunks, `a.zarr`."""
    found = zarr.open_group(min(dataset.glob("train/static/ExperimentRuns/*/*/denoised.zarr")), mode="r")
    group = zarr.open_group(tmp_path / "served" / "a.zarr", mode="w", zarr_format=2)
    voxels = np.asarray(found["0"])
    chunks = {"chunks": (8, 16, 16), "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    group.create_array("0", shape=voxels.shape, dtype="float32", **chunks)[:] = voxels
    group.attrs.update(found.attrs)
    return tmp_path / "served"


@pytest.mark.slow
def test_picks_from_servers_are_those_from_disk(phantom, engines, s3, tmp_path, monkeypatch, capsys) -> None:
    """With one request in twenty failing."""
    servers.put_folder(s3, "phantom", phantom)
    s3.fault = servers.one_in(20)
    with servers.web_server(phantom) as web:
        web.fault = servers.one_in(20)
        places = {"disk": str(phantom), "s3": "s3://phantom", "web": f"{web.url}/a.zarr"}
        for name, place in places.items():
            options = ["--engines", str(engines), "--data", place, "--out", str(tmp_path / name), "--no-report"]
            assert infer([*options, "--cache", str(tmp_path / "cache")]) == 0
        assert web.failed and s3.failed
        capsys.readouterr()
        assert infer([*options, "--cache", str(tmp_path / "cache")]) == 0
        assert "already done" in capsys.readouterr().out
        web.fault = lambda path, attempt: "503" if path.endswith("/0/0/1/0") else None
        options = ["--engines", str(engines), "--data", places["web"], "--out", str(tmp_path / "none"), "--no-report"]
        assert infer(options) == 1
        assert f"{places['web']}/0/0/1/0" in capsys.readouterr().err
    tables = [(tmp_path / name / "submission.csv").read_text() for name in places]
    assert tables[0] == tables[1] == tables[2] and tables[0].count("\n") > 1


def test_nothing_there(web, s3) -> None:
    for place in (f"{web.url}/other.zarr", "s3://bucket/other.zarr", "s3://unknown/other.zarr"):
        with pytest.raises(InputError, match=f"{place.partition('://')[2]}.*"):
            open_volume(place)
    with pytest.raises(InputError, match=r"a\.mrc.*OME-Zarr"):
        open_volume(f"{web.url}/a.mrc")


def test_no_server() -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/a\.zarr.*4 attempts.*connection"):
        open_volume("http://127.0.0.1:9/a.zarr")
