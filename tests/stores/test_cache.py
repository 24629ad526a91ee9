"""A cache gives back what it was given, and never grows beyond its size."""

import os
import pathlib
import pickle

import pytest

from jaxcryo.errors import InputError
from jaxcryo.stores.cache import Cache


def held(cache: Cache) -> int:
    return sum(f.stat().st_size for f in cache.folder.rglob("*") if f.is_file())


def test_what_was_put_is_found_by_other_processes_too(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path, limit_gb=1e-3)
    assert cache.get("a") is None
    cache.put("a", b"chunk")
    assert cache.get("a") == b"chunk" and cache.get("b") is None
    other = pickle.loads(pickle.dumps(cache))
    assert other.get("a") == b"chunk" and other.limit_bytes == cache.limit_bytes


def test_the_size_is_kept_and_what_was_read_last_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_bytes(bytes(10**6))
    cache = Cache(tmp_path, limit_gb=1e-4)  # 100 kB
    for number in range(50):
        cache.put(str(number), bytes([number]) * 10_000)
        os.utime(cache._path(str(number)), ns=(0, 10**9 * number))
        if number > 0:
            assert cache.get("0") is not None
        assert held(cache) <= cache.limit_bytes
    assert cache.get("49") is not None and cache.get("1") is None
    assert (tmp_path / "mine").exists()
    cache.put("huge", bytes(10**6))
    assert cache.get("huge") is None


def test_the_size_holds_for_several_processes(tmp_path: pathlib.Path) -> None:
    caches = [Cache(tmp_path, limit_gb=1e-4) for _ in range(3)]
    for number in range(200):
        caches[number % 3].put(str(number), bytes(1000))
    assert held(caches[0]) <= 1.15 * caches[0].limit_bytes


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        Cache(tmp_path / "file")
    with pytest.raises(InputError, match="0 GB"):
        Cache(tmp_path, limit_gb=0)
    cache = Cache(tmp_path / "cache")
    cache.folder.rmdir()
    cache.folder.touch()
    cache.put("a", b"chunk")
    assert cache.get("a") is None and cache.fault is not None and str(cache.folder) in cache.fault
