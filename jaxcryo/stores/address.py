"""Addresses of files on servers, which can be used like paths."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import urllib.parse

from jaxcryo.errors import InputError

_SCHEMES = ("s3", "https", "http")
_WITH_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(.*)", re.DOTALL)
"""One slash as well: `pathlib` makes one of two."""


@dataclasses.dataclass(frozen=True, order=True)
class Address:
    """A folder or an object on a server; `location` makes one from text."""

    url: str
    """Without a slash at its end."""

    @property
    def scheme(self) -> str:
        """`s3`, `https` or `http`."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the address."""
        name = self.url.rpartition("/")[2]
        return name if self.scheme == "s3" else urllib.parse.unquote(name)

    @property
    def parent(self) -> Address:
        """The address without its last part."""
        return Address(self.url.rpartition("/")[0])

    def __truediv__(self, part: str) -> Address:
        return Address(f"{self.url}/{part}")

    def __str__(self) -> str:
        return self.url


Location = pathlib.Path | Address
"""A place on this machine or on a server."""


def location(place: str | os.PathLike[str] | Address) -> Location:
    """The address that a text is, else a path.

    Raises:
        InputError: it is an address of an unsupported kind.
    """
    if isinstance(place, Address):
        return place
    match = _WITH_SCHEME.fullmatch(os.fspath(place))
    if match is None:
        return pathlib.Path(place)
    scheme, rest = match[1].lower(), match[2].rstrip("/")
    url = f"{scheme}://{rest}"
    if scheme not in _SCHEMES:
        raise InputError(f"{url}: addresses that begin with {scheme}:// are not read; expected s3:// or https://")
    if "?" in rest or "#" in rest:
        raise InputError(
            f"{url.partition('?')[0]}: an address with '?' or '#' stands for one object; expected that of an OME-Zarr "
            "folder, below which its chunks lie"
        )
    host = rest.partition("/")[0]
    if "@" in host:
        raise InputError(
            f"{scheme}://…@{host.rpartition('@')[2]}: a password in an address would be written beside the picks; "
            "leave it out"
        )
    if not host:
        raise InputError(f"{url}: names no {'bucket' if scheme == 's3' else 'server'}")
    return Address(url)
