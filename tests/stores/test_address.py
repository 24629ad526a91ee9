"""What stands where a path does."""

import pathlib

import pytest

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address, location


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("s3://bucket/a/b.zarr/", "s3://bucket/a/b.zarr", "b.zarr"),
        ("https://server:8000/a%20b.zarr", "https://server:8000/a%20b.zarr", "a b.zarr"),
        ("s3://bucket/a%20b.zarr", "s3://bucket/a%20b.zarr", "a%20b.zarr"),
        ("HTTP://server/x", "http://server/x", "x"),
        ("s3://bucket", "s3://bucket", "bucket"),
    ],
)
def test_addresses(text: str, url: str, name: str) -> None:
    found = location(text)
    assert found == Address(url) and str(found) == url
    assert isinstance(found, Address) and found.name == name
    assert location(found) is found
    assert location(pathlib.Path(text)) == found  # which makes one slash of two
    assert str(found / "0") == f"{url}/0"


@pytest.mark.parametrize("text", ["data", "/data/a.zarr", "C:stuff", "a:b/c", "./s3:/x"])
def test_paths(text: str) -> None:
    assert location(text) == pathlib.Path(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gs://bucket/x", "gs://"),
        ("https://server/x.zarr?token=1", "'?'"),
        ("https://me:secret@server/x.zarr", "password"),
        ("s3:///x", "bucket"),
    ],
)
def test_addresses_that_are_not_read(text: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        location(text)
    assert said in str(raised.value) and "secret" not in str(raised.value) and "token" not in str(raised.value)
