"""Objects below an address, requested with retries and growing waits."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from jaxcryo.errors import InputError
from jaxcryo.stores.access import open_store
from jaxcryo.stores.address import Address

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """Number of attempts, and the waits between them, each twice the last one."""

    attempts: int = 8
    first_seconds: float = 0.25
    longest_seconds: float = 15.0

    def seconds(self, attempt: int) -> float:
        """After the attempt of that number (from 1), a little less at random: not all clients at once."""
        return min(self.first_seconds * 2 ** (attempt - 1), self.longest_seconds) * random.uniform(0.5, 1)


PATIENCE = Patience()


class RefusedError(InputError):
    """A server refuses to show something, or does not list its folders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stat:
    """What a server says of an object."""

    bytes: int
    modified_ns: int
    tag: str
    """The entity tag, which changes with the contents; empty where the server gives none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """What lies right below an address."""

    folders: tuple[str, ...]
    objects: tuple[str, ...]


Span = tuple[int, int | None] | int
"""Of bytes: from the first up to before the last, to the end where that is None; or so many at the end."""
Check = Callable[[bytes], str | None]
"""What is wrong with an object's bytes; None where nothing is."""


class Objects:
    """Reads below an address. All methods may be called from several threads.

    All raise InputError, with the address, for what does not come, and RefusedError for what may not be read.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._store = open_store(address)
        self._lost = threading.Event()
        """Set when something did not come: others that wait for another attempt then give up too, and it is renewed."""

    def get(self, key: str, span: Span | None = None, check: Check = lambda data: None) -> bytes | None:
        """An object's bytes, or some of them; None where there is none. What `check` objects to is asked for again."""

        def read() -> bytes:
            if span is None:
                return bytes(obstore.get(self._store, key).bytes())
            if isinstance(span, int):
                return bytes(obstore.get(self._store, key, options={"range": {"suffix": span}}).bytes())
            start, stop = span
            if stop is None:
                return bytes(obstore.get(self._store, key, options={"range": {"offset": start}}).bytes())
            return bytes(obstore.get_range(self._store, key, start=start, end=stop))

        return self._patiently(key, read, check)

    def stat(self, key: str) -> Stat | None:
        """What the server says of an object; None where there is none."""
        return self._patiently(key, lambda: _stat(obstore.head(self._store, key)))

    def listing(self) -> dict[str, Stat]:
        """Everything below the address."""
        self._check_listable()
        batches = self._patiently("", lambda: list(obstore.list(self._store)))
        return {entry["path"]: _stat(entry) for batch in batches or () for entry in batch}

    def inside(self) -> Folder:
        """What lies right below the address."""
        self._check_listable()
        found = self._patiently("", lambda: obstore.list_with_delimiter(self._store))
        if found is None:
            return Folder(folders=(), objects=())
        return Folder(
            folders=tuple(sorted(str(place).rstrip("/").rpartition("/")[2] for place in found["common_prefixes"])),
            objects=tuple(sorted(entry["path"].rpartition("/")[2] for entry in found["objects"])),
        )

    def _check_listable(self) -> None:
        if self.address.scheme != "s3":
            raise RefusedError(f"{self.address}: what lies in a folder of a web server cannot be listed")

    def _patiently(
        self, key: str, call: Callable[[], T], check: Callable[[T], str | None] = lambda got: None
    ) -> T | None:
        place = self.address / key if key else self.address
        lost = self._lost
        for attempt in itertools.count(1):
            try:
                got = call()
            except FileNotFoundError:
                return None
            except (PermissionDeniedError, UnauthenticatedError) as error:
                advice = (
                    "your credentials give no access to it: use others (AWS_ACCESS_KEY_ID, AWS_PROFILE), or none for "
                    "a public bucket (AWS_SKIP_SIGNATURE=true)"
                    if place.scheme == "s3"
                    else "it is not public: download it, and pass the folder"
                )
                raise RefusedError(f"{place}: may not be read ({_reason(error)}); {advice}") from error
            except BaseError as error:
                reason, again = _reason(error), not _FINAL.search(str(error))
            else:
                fault = check(got)
                if fault is None:
                    return got
                reason, again = fault, True
            if not again or attempt >= PATIENCE.attempts or lost.wait(PATIENCE.seconds(attempt)):
                if self._lost is lost:
                    self._lost = threading.Event()
                lost.set()
                times = f"in {attempt} attempts " if attempt > 1 else ""
                raise InputError(f"{place}: did not come {times}({reason}); try again later, or check the address")
        raise AssertionError


def read_object(address: Address) -> bytes:
    """The bytes of a single object.

    Raises:
        InputError: it does not come, or is not there.
    """
    data = Objects(address.parent).get(address.name)
    if data is None:
        raise InputError(f"{address}: does not exist; check the address")
    return data


_FINAL = re.compile(r"status code: 4(?!08|25|29)\d\d|missing from response")
"""Answers that stay the same however often one asks."""
_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_KIND = re.compile(r"\bkind: (Timeout|Interrupted|Connect|Decode)")


def _reason(error: Exception) -> str:
    said = str(error)
    if status := _STATUS.search(said):
        return f"the server answered {status[1].strip()}"
    if kind := _KIND.search(said):
        return {
            "Timeout": "the server fell silent",
            "Interrupted": "the connection broke off",
            "Connect": "no connection to the server",
            "Decode": "the answer broke off",
        }[kind[1]]
    return said.partition("\n")[0][:200]


def _stat(entry: Any) -> Stat:
    return Stat(
        bytes=int(entry["size"]),
        modified_ns=int(entry["last_modified"].timestamp()) * 10**9,
        tag=entry.get("e_tag") or "",
    )
