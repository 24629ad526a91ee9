"""GPUs are found through the driver, here a small library with its functions, and JAX is not started by it."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from jaxcryo.runtime import cuda
from jaxcryo.runtime.cuda import Gpu, described, find_gpus, gpu_environment, jax_gpus, share_memory

DRIVER = """
#include <string.h>
int cuInit(unsigned f) { return FAILS; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuDeviceGet(int *d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char *name, int size, int d) { strncpy(name, d == 40 ? "Tesla T4" : "NVIDIA L4", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { *bytes = 15828320256; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? (d == 40 ? 7 : 8) : (d == 40 ? 5 : 9); return 0; }
"""


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("driver")
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "this test compiles a small C file, and finds no cc"
    (folder / "driver.c").write_text(DRIVER)
    built = {}
    for name, code in (("works", "0"), ("fails", "100")):
        built[name] = folder / f"lib{name}.so"
        flags = ["-shared", "-fPIC", f"-DFAILS={code}", "-o", str(built[name])]
        subprocess.run([compiler, *flags, str(folder / "driver.c")], check=True)
    return built


def use(monkeypatch: pytest.MonkeyPatch, driver: pathlib.Path, platforms: str | None = None, plugin: bool = True):
    monkeypatch.setattr(cuda, "_DRIVER", str(driver))
    monkeypatch.setattr(cuda, "jax", types.SimpleNamespace(config=types.SimpleNamespace(jax_platforms=platforms)))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: plugin or None if name.startswith("jax_cuda") else real(name)
    )


def test_every_card_is_named_with_its_capability(drivers, monkeypatch) -> None:
    monkeypatch.setattr(cuda, "_DRIVER", str(drivers["works"]))
    first, second = find_gpus()
    assert first == Gpu(index=0, name="Tesla T4", compute_capability="7.5", memory_bytes=15828320256, driver="12.4")
    assert (second.index, second.name, second.compute_capability) == (1, "NVIDIA L4", "8.9")
    assert described([first, first, second]) == "2 × Tesla T4, NVIDIA L4"


@pytest.mark.parametrize("driver", ["fails", "is not there"])
def test_without_a_driver_there_are_none(driver, drivers, monkeypatch) -> None:
    monkeypatch.setattr(cuda, "_DRIVER", str(drivers.get(driver, "libnone.so.1")))
    assert find_gpus() == ()


def test_jax_takes_them_where_it_can_and_may(drivers, monkeypatch) -> None:
    use(monkeypatch, drivers["works"])
    assert len(jax_gpus()) == 2
    use(monkeypatch, drivers["works"], platforms="cuda,cpu")
    assert len(jax_gpus()) == 2
    use(monkeypatch, drivers["works"], platforms="cpu")
    assert jax_gpus() == ()
    use(monkeypatch, drivers["works"], plugin=False)
    assert jax_gpus() == ()


def test_a_process_for_a_card_sees_that_one(monkeypatch) -> None:
    card = Gpu(index=1, name="Tesla T4", compute_capability="7.5", memory_bytes=1, driver="12.4")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_environment(card) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert gpu_environment(card) == {"CUDA_VISIBLE_DEVICES": "5"}


def test_memory_is_shared_unless_the_user_chose(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith("XLA_PYTHON_CLIENT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    share_memory()
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")  # so that it is deleted again after the test
    share_memory()
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.slow
def test_the_commands_do_not_start_jax_before_memory_is_shared(tmp_path) -> None:
    code = (
        "import jaxcryo.cli.inference, jaxcryo.cli.training, jaxcryo.runtime.workers\n"
        "from jaxcryo.runtime.cuda import jax_gpus\n"
        "from jax._src import xla_bridge\n"
        "jax_gpus()\n"
        "raise SystemExit(xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
