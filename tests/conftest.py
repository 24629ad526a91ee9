"""Two CPU devices, so that what is replicated can be compared with what is not; a double of TensorRT and its card; a
small dataset on disk, and engines of both architectures that nobody has trained."""

import os
import pathlib
import platform
import shutil
import signal
import sys
from collections.abc import Callable

# A run that was started in the background of a script ignores Ctrl-C, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA compiles in half the time; what it makes is run a few times only.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What XLA compiled is found again by later tests, by the processes that they start and by later runs on this machine.
# With a bound on its size JAX locks the folder, so that any number of processes can share it.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    pathlib.Path(__file__).parents[1] / ".pytest_cache" / f"compiled-{platform.node()}"
)
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2 * 2**30)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import pytest
from filelock import FileLock
from hypothesis import settings
from jaxtyping import install_import_hook

sys.path.extend(str(pathlib.Path(__file__).parent / name) for name in (".", "bindings", "fuzzing", "page"))

CHECKED = (
    "calibration", "convert", "data", "domain", "metric", "page", "phantom", "picks", "project", "report",
    "tomogram",
)  # fmt: skip
"""Folders and modules of the package in which the shapes and kinds of arrays are checked in every call."""
install_import_hook([f"jaxcryo.{room}" for room in CHECKED], "annotations.checked")

# `pytest --hypothesis-profile fuzz tests/tomogram/test_hostile.py tests/picks/test_formats_hostile.py` looks longer.
settings.register_profile("fuzz", max_examples=2000, deadline=None)
# How long an example takes says how busy the machine is, and nothing of the program.
settings.register_profile("quick", max_examples=50, deadline=None)
settings.load_profile("quick")

CACHE = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent
WITH_TENSORRT = ("jaxcryo.runtime.tensorrt", "jaxcryo.convert.engine_build")
"""Modules that import TensorRT; they are imported anew with the double, and again without it."""
SHAPE = (32, 72, 80)


BROWSER = ("chromium", "chromedriver")
LONGEST = ("training/test_processes.py", "training/test_step.py", "training/test_fit.py", "cli/test_pipeline.py")
"""Files that are begun first: else a process is at one of them when there is nothing left for the others."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a browser where there is none, unless it is asked for by its mark; the summary says so."""
    if _missing_browser() and "browser" not in config.option.markexpr:
        chosen = [item for item in items if item.get_closest_marker("browser") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def place(item: pytest.Item) -> int:
        return next((n for n, file in enumerate(LONGEST) if item.path.as_posix().endswith(file)), len(LONGEST))

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says where nothing was opened in a browser, and why."""
    missing = " and ".join(_missing_browser())
    if missing:
        advice = "apt-get install chromium chromium-driver"
        terminalreporter.line(f"pages were NOT opened in a browser, for want of {missing} ({advice})")


def _missing_browser() -> list[str]:
    return [name for name in BROWSER if shutil.which(name) is None]


def pytest_configure(config: pytest.Config) -> None:
    """A run that was killed may have left half of a compiled program, so none of its are kept."""
    if not hasattr(config, "workerinput"):
        for mark in CACHE.glob("running-*"):
            if not _is_alive(int(mark.name.partition("-")[2])):
                shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
                mark.unlink(missing_ok=True)
        CACHE.mkdir(exist_ok=True)
        _running().touch()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _running().unlink(missing_ok=True)


def _running() -> pathlib.Path:
    return CACHE / f"running-{os.getpid()}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch):
    """The double's faults, while TensorRT and a T4 seem to be at hand; XLA's CPU buffers are the card's memory."""
    import tensorrt_double as double

    from jaxcryo.runtime import tensorrt_target
    from jaxcryo.runtime.backends import openvino, tensorrt
    from jaxcryo.runtime.cuda import Gpu

    faults = double.FAULTS
    vars(faults).update(vars(double.Faults()))
    card = Gpu(index=0, name="Tesla T4", compute_capability="7.5", memory_bytes=15 * 2**30, driver="12.4")
    for module in (openvino, tensorrt, tensorrt_target):
        monkeypatch.setattr(module, "jax_gpus", lambda: (card,))
    monkeypatch.setattr(tensorrt_target, "_import_tensorrt", double.module)
    for name in WITH_TENSORRT:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", double.module())
    import numpy as np

    import jaxcryo.runtime.tensorrt as runtime

    monkeypatch.setattr(runtime, "_address", lambda buffer: np.asarray(buffer).ctypes.data)
    monkeypatch.setattr(runtime, "_stream", lambda context: 1234)
    monkeypatch.setattr(runtime, "_platform", lambda: "gpu")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    yield faults
    for name in WITH_TENSORRT:
        sys.modules.pop(name, None)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """A folder that the first process to want it makes for all of them; nobody writes into it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_name(f"{name}-making")
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            making.rename(folder)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two training runs and a test run, just larger than a tiny network's window."""
    from jaxcryo.phantom import PhantomConfig, write_dataset

    config = PhantomConfig(shape_zyx=SHAPE)
    return _once(tmp_path_factory, "phantom", lambda folder: write_dataset(folder, config, runs=2, test_runs=1))


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Both tiny networks with their first weights, converted."""
    return _once(tmp_path_factory, "engines", lambda folder: _convert(folder, "yu4u", "tattaka")) / "out"


@pytest.fixture(scope="session")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tiny yu4u alone, for what does not depend on the number of models."""
    return _once(tmp_path_factory, "one-model", lambda folder: _convert(folder, "yu4u")) / "out"


def _convert(folder: pathlib.Path, *arches: str) -> None:
    from jaxcryo.cli.convert import main as convert
    from jaxcryo.domain import CZII_TYPES
    from jaxcryo.models import build
    from jaxcryo.recipes import recipe
    from jaxcryo.weights import TrainedModel, save_model

    folder.mkdir()
    files = []
    for arch in arches:
        config = recipe(arch, "tiny")
        _, params, stats = build(config.model)
        params["head.kernel"] = 100 * params["head.kernel"]  # heatmaps with peaks
        files.append(str(folder / f"{arch}.safetensors"))
        model = TrainedModel(
            config=config, types=CZII_TYPES, spacing_angstrom=10.012444, params=params, stats=stats, source="untrained"
        )
        save_model(files[-1], model)
    assert convert(["onnx", *files, "--out", str(folder / "out")]) == 0
