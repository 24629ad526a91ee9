"""PyTorch's checkpoints are read as PyTorch reads them, and nothing in them is executed."""

from __future__ import annotations

import pathlib
import struct
import zipfile

import numpy as np
import pytest
from torch_zip_writer import ORDERED_DICT, Call, Global, Persistent, View, pickle_of, write_torch_zip

from jaxcryo.convert.torch_zip import open_torch_zip
from jaxcryo.errors import InputError

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    with open_torch_zip(path) as checkpoint:
        return {name: tensor.read() for name, tensor in checkpoint.items()}


def refused(tmp_path: pathlib.Path, content: object) -> str:
    path = write_torch_zip(tmp_path / "bad.pth", content)
    with pytest.raises(InputError) as error:
        open_torch_zip(path)
    return str(error.value)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_tensors_of_every_type_and_byte_order_come_back(tmp_path: pathlib.Path, dtype: str, order: str) -> None:
    array = ARRAY.astype(dtype)
    (found,) = read(write_torch_zip(tmp_path / "a.pth", {"x": array}, order=order)).values()
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype(dtype)


def test_bfloat16_is_read_as_float32(tmp_path: pathlib.Path) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80], np.uint16)
    (found,) = read(write_torch_zip(tmp_path / "a.pth", {"x": bits})).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1, -2, np.inf], np.float32))


def test_views_share_a_storage_and_may_be_strided(tmp_path: pathlib.Path) -> None:
    storage = np.arange(24, dtype=np.float32)
    content = {
        "transposed": View(storage, 0, (4, 6), (1, 4)),
        "part": View(storage, 5, (3,), (2,)),
        "expanded": View(storage, 2, (2, 3), (0, 0)),
        "scalar": View(storage, 7, (), ()),
        "empty": View(storage, 0, (0, 3), (3, 1)),
    }
    found = read(write_torch_zip(tmp_path / "a.pth", content))
    np.testing.assert_array_equal(found["transposed"], storage.reshape(6, 4).T)
    np.testing.assert_array_equal(found["part"], [5, 7, 9])
    np.testing.assert_array_equal(found["expanded"], np.full((2, 3), 2))
    assert found["scalar"] == 7 and found["scalar"].shape == ()
    assert found["empty"].shape == (0, 3)


def test_nested_containers_and_plain_values(tmp_path: pathlib.Path) -> None:
    weights = Call(ORDERED_DICT, ((("a", ARRAY), ("b.c", ARRAY)),), {"_metadata": Call(ORDERED_DICT, ())})
    plain = {"epoch": 3, "rate": 0.5, "name": "x", "none": None, "yes": True, "raw": b"\xff", "set": {1}, "no": False}
    other = {
        "size": Call(Global("torch", "Size"), ((1, 2),)),
        "device": Call(Global("torch", "device"), ("cuda", 0)),
        "dtype": Global("torch", "float32"),
        "parameter": Call(Global("torch._utils", "_rebuild_parameter"), (ARRAY, True, Call(ORDERED_DICT, ()))),
    }
    path = write_torch_zip(tmp_path / "a.ckpt", {"state_dict": weights, **plain, **other, "list": [ARRAY, (ARRAY,)]})
    with open_torch_zip(path) as checkpoint:
        assert list(checkpoint) == ["state_dict.a", "state_dict.b.c", "parameter", "list.0", "list.1.0"]
        assert {k: checkpoint.content[k] for k in plain} == plain
        assert checkpoint.content["size"] == (1, 2)
        assert [repr(checkpoint.content[k]) for k in ("device", "dtype")] == ["torch.device('cuda')", "torch.float32"]
        assert checkpoint["list.1.0"].shape == ARRAY.shape


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("jaxcryo.convert.torch_pickle", "Reader"),
    ],
)
def test_any_other_name_is_refused_by_its_full_name(tmp_path: pathlib.Path, module: str, name: str) -> None:
    mark = tmp_path / "executed"
    message = refused(tmp_path, {"x": Call(Global(module, name), (f"touch {mark}",))})
    assert f"{module}.{name}" in message and "torch.save" in message
    assert not mark.exists()


STORAGE = Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", 24))
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    "odd",
    [
        Call(REBUILD, ("os", 0, (1,), (1,), False, None)),
        Call(REBUILD, (1, 2)),
        Call(Global("torch", "FloatStorage"), (3,)),
        Call(Global("torch", "float32"), ()),
        Call(Global("torch", "Size"), ("abc",)),
        Call(Global("torch", "device"), (["x"],)),
        Call(Global("torch._utils", "_rebuild_parameter"), ("x", True, None)),
        Call(Global("_codecs", "encode"), ("x", "rot13")),
        Call(Global("__builtin__", "set"), ("abc",)),
        Call(ORDERED_DICT, (3,)),
        Call(REBUILD, (View(ARRAY.reshape(-1), 0, (1,), (1,)), 0, (1,), (1,), False, None)),
        Persistent("storage"),
        Persistent(("module", Global("torch", "FloatStorage"), "0", "cpu", 24)),
        Persistent(("storage", "FloatStorage", "0", "cpu", 24)),
        Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", -1)),
        Persistent(("storage", Global("torch", "FloatStorage"), "../data.pkl", "cpu", 1)),
    ],
)
def test_odd_arguments_are_refused(tmp_path: pathlib.Path, odd: object) -> None:
    assert "bad.pth" in refused(tmp_path, {"x": ARRAY, "odd": odd})


@pytest.mark.parametrize(
    "view",
    [
        (0, (25,), (1,)),
        (24, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (24, 1)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40,), (0,)),
        (True, (2,), (1,)),
        (0, [2], (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path: pathlib.Path, view: tuple[object, ...]) -> None:
    assert "_rebuild_tensor_v2" in refused(tmp_path, {"x": View(ARRAY.reshape(-1), *view)})


@pytest.mark.parametrize("what", [Global("torch._utils", "_rebuild_tensor_v2"), Global("torch", "float32"), ARRAY])
def test_build_cannot_change_what_is_admitted(tmp_path: pathlib.Path, what: object) -> None:
    code = pickle_of(what, {})[2:-1] + pickle_of({"name": "x"})[2:-1] + b"b"
    path = tmp_path / "bad.pth"
    write_torch_zip(path, {"x": ARRAY}, skip="data.pkl")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code + b".")
    with pytest.raises(InputError, match=r"change"):
        open_torch_zip(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}q\x00",
        b"\x80\x02.",
        b"\x80\x63N.",
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02(ios\nsystem\n.",
        b"\x80\x02]]a}" + b"\x85" * 10 + b"s.",
    ],
)
def test_damaged_pickles_are_refused(tmp_path: pathlib.Path, data: bytes) -> None:
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(InputError, match=r"bad\.pth"):
        open_torch_zip(path)


def test_damaged_and_foreign_files_have_clear_errors(tmp_path: pathlib.Path) -> None:
    good = write_torch_zip(tmp_path / "good.pth", {"x": ARRAY}).read_bytes()
    cases = {
        "cut short|damaged": good[: len(good) // 2],
        r"1\.6": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        "PyTorch": b"hello",
    }
    for message, data in cases.items():
        (tmp_path / "bad.pth").write_bytes(data)
        with pytest.raises(InputError, match=message):
            open_torch_zip(tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"none\.pth"):
        open_torch_zip(tmp_path / "none.pth")
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(InputError, match=r"data\.pkl"):
        open_torch_zip(tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"data/0"):
        open_torch_zip(write_torch_zip(tmp_path / "bad.pth", {"x": ARRAY}, skip="data/0"))


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path: pathlib.Path) -> None:
    path = write_torch_zip(tmp_path / "a.pth", {"x": ARRAY})
    data = bytearray(path.read_bytes())
    data[data.index(ARRAY.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="archive/data/0"):
        read(path)


def test_compressed_checkpoints_are_read_but_bombs_are_not(tmp_path: pathlib.Path) -> None:
    noise = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    path = write_torch_zip(tmp_path / "a.pth", {"x": noise}, compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read(path)["x"], noise)
    bomb = write_torch_zip(tmp_path / "a.pth", {"x": np.zeros(1 << 20, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="unpack"):
        open_torch_zip(bomb)


def test_shared_containers_are_walked_once(tmp_path: pathlib.Path) -> None:
    code = b"]" + b"".join(b"q" + bytes([n]) + b"]h" + bytes([n]) + b"ah" + bytes([n]) + b"a" for n in range(100))
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + code + b".")
    with open_torch_zip(path) as checkpoint:
        assert len(checkpoint) == 0
