"""Ways to spoil files, and how long to try."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_QUICK = 40
_USUAL = settings.get_profile("default").max_examples
_CHOSEN = settings.get_current_profile_name() == "fuzz"

FUZZ = settings(
    max_examples=settings.get_profile("fuzz").max_examples if _CHOSEN else min(_QUICK, _USUAL),
    deadline=60_000,  # what hangs is found; a busy machine is not
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TOKENS = st.sampled_from(
    [
        "", "nan", "NaN", "-inf", "1e400", "1e308", "-0", "1_0", "0x10", "9" * 400, "9" * 5000, "../../up", "/etc",
        "a\\b", ".", "..", "\0", "\x1b[31m", "\n", "\r", '"', "'", "#", ",", "\t", " ", "_", "data_", "loop_", "{}",
        "[]", "null", "true", "é", "\u2028", "TS_1", "ribosome", "x" * 3000, "1 2 3 4", "_rlnTomoName #1", "[" * 3000,
        '{"a":' * 3000,
    ]
)  # fmt: skip

JSON_LEAVES = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.just(10**400), st.text(max_size=8))
VALUES = st.one_of(
    JSON_LEAVES,
    st.sampled_from(
        [0, -1, 2**31, 2**63, 10**30, 1e308, 1e-308, float("nan"), float("inf"), "", "../../up", "/etc/passwd", "a/b",
         "a\0b", "x" * 5000, [], {}, [[]], [None], [0, 0, 0], [-1, 1, 1], [10**9] * 3, [1e308] * 3, ["a"], {"a": {}},
         "|O", "<c8", "<f4", ">i2", "<U8", {"id": "pickle"}, {"name": "zstd"}]
    ),
)  # fmt: skip


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[float, float, str | bytes | None]]:
    """Where in a file, how much of it, and what stands there instead; None cuts the file off."""
    what = st.one_of(TOKENS, st.binary(max_size=12), st.none())
    place, length = st.floats(0, 1), st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 1))
    return draw(st.lists(st.tuples(place, length, what), min_size=1, max_size=4))


def spoil(data: bytes, damage: list[tuple[float, float, str | bytes | None]]) -> bytes:
    """The bytes with some damage."""
    for place, length, what in damage:
        at = int(place * len(data))
        if what is None:
            data = data[:at]
            continue
        inserted = what.encode("utf-8", "surrogateescape") if isinstance(what, str) else what
        data = data[:at] + inserted + data[at + int(length * len(data)) :]
    return data


def with_other_values(content: Any, changes: list[tuple[int, Any]]) -> Any:
    """The JSON content with some of its values, counted through from the outside, replaced or removed."""
    content = copy.deepcopy(content)
    for number, value in changes:
        places = list(_places(content))
        if not places:
            return content
        holder, key = places[number % len(places)]
        if value is _GONE:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(value)
    return content


_GONE = object()

CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.one_of(VALUES, st.just(_GONE))), min_size=1, max_size=3)


def _places(content: Any) -> Any:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])


def snapshot(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    """All files below a folder."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
