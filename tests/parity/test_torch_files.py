"""What torch.save writes is read as torch.load reads it."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from jaxcryo.convert.torch_zip import open_torch_zip
from jaxcryo.errors import InputError

pytestmark = pytest.mark.parity


def test_tensors_of_all_sorts(tmp_path: pathlib.Path) -> None:
    base = torch.randn(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "expanded": base[:1].expand(3, 6),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "bfloat16": torch.randn(3).bfloat16(),
        "half": torch.randn(3).half(),
        "double": torch.randn(3).double(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "int8": torch.tensor([-1, 2], dtype=torch.int8),
    }
    extra = {"size": torch.Size([1]), "device": torch.device("cpu"), "dtype": torch.float32, "set": {1}, "bytes": b"a"}
    torch.save({"tensors": tensors, **extra}, tmp_path / "a.pth")
    with open_torch_zip(tmp_path / "a.pth") as checkpoint:
        assert set(checkpoint) == {f"tensors.{k}" for k in tensors}
        for key, value in tensors.items():
            expected = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
            np.testing.assert_array_equal(checkpoint[f"tensors.{key}"].read(), expected.numpy())


def test_state_dicts_of_modules_are_read_and_modules_refused(tmp_path: pathlib.Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "state.pth")
    with open_torch_zip(tmp_path / "state.pth") as checkpoint:
        assert set(checkpoint) == set(module.state_dict())
    torch.save(module, tmp_path / "module.pth")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.container\.Sequential"):
        open_torch_zip(tmp_path / "module.pth")
    torch.save(module.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before 1\.6"):
        open_torch_zip(tmp_path / "old.pth")
