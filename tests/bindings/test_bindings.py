"""Every TensorRT name in the sources is in the real bindings of the oldest and of the newest supported version.

The bindings are downloaded once (1.3 MB each) and imported over empty libraries: without a GPU nothing can be built,
but every class, method, keyword and enum member is there to be looked at. pip takes them from whatever package index it
is set to; pytest's cache keeps them. Where there is no index the tests fail and say so: they are never skipped, since
nothing else tells whether the sources fit TensorRT.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
VERSIONS = ("10.12.0.36", "11.4.0.106")
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "getBuilderPluginRegistry", "getPluginRegistry", "getInferLibVersion", "initLibNvInferPlugins",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion",
)  # fmt: skip
"""What the bindings look up when they are loaded."""

SOURCES = sorted(
    path
    for package in ("jaxcryo", "convert")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^\s*(import tensorrt\b|from tensorrt\b)", path.read_text(encoding="utf-8"), re.MULTILINE)
)

USED = """
Builder Builder.build_serialized_network Builder.create_builder_config Builder.create_network BuilderFlag
BuilderFlag.TF32 DataType DataType.FLOAT EngineInspector.get_engine_information IBuilderConfig
IBuilderConfig.builder_optimization_level IBuilderConfig.clear_flag IBuilderConfig.create_timing_cache
IBuilderConfig.profiling_verbosity IBuilderConfig.progress_monitor IBuilderConfig.set_memory_pool_limit
IBuilderConfig.set_timing_cache ICudaEngine ICudaEngine.create_engine_inspector ICudaEngine.create_execution_context
ICudaEngine.get_tensor_dtype ICudaEngine.get_tensor_mode ICudaEngine.get_tensor_name ICudaEngine.get_tensor_shape
ICudaEngine.num_io_tensors IExecutionContext IExecutionContext.execute_async_v3 IExecutionContext.set_tensor_address
ILogger ILogger.Severity ILogger.__init__ ILogger.log INetworkDefinition IProgressMonitor IProgressMonitor.__init__
IProgressMonitor.phase_finish IProgressMonitor.phase_start IProgressMonitor.step_complete ITimingCache
ITimingCache.serialize LayerInformationFormat LayerInformationFormat.JSON MemoryPoolType MemoryPoolType.WORKSPACE
NetworkDefinitionCreationFlag OnnxParser OnnxParser.get_error OnnxParser.num_errors OnnxParser.parse_from_file
ParserError.desc ParserError.node_name ParserError.node_operator ProfilingVerbosity ProfilingVerbosity.DETAILED Runtime
Runtime.deserialize_cuda_engine Severity.ERROR Severity.INTERNAL_ERROR TensorIOMode TensorIOMode.INPUT
TensorIOMode.OUTPUT __version__
"""
"""What is found in the sources; a name that is used newly is added here, one that is no longer followed is missed."""

OF_TENSORRT_8 = """
import tensorrt as trt

LOG = trt.Logger()

def build(path: str, config: trt.IBuilderConfig):
    builder = trt.Builder(logger=LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    builder.max_batch_size = 4
    config.max_workspace_size = 1 << 30
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)
    return builder.build_engine(network, config)

class Predict:
    def __init__(self, engine: trt.ICudaEngine):
        self._context = engine.create_execution_context()
        self._shapes = [engine.get_binding_shape(i) for i in range(engine.num_bindings)]

    def run(self, bindings, stream):
        self._context.execute_async_v2(bindings, stream)
"""


@pytest.fixture(scope="session")
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Folders to import `tensorrt_bindings` from, by version; each holds the empty libraries too."""
    cache = getattr(request.config, "cache", None)  # pytest may run without its cache
    folder = tmp_path_factory.mktemp("bindings") if cache is None else pathlib.Path(cache.mkdir("tensorrt-bindings"))
    return {version: _unpacked(folder / version, version) for version in VERSIONS}


def _unpacked(folder: pathlib.Path, version: str) -> pathlib.Path:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    target = folder / tag
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            made = pathlib.Path(fresh) / tag
            _download(f"tensorrt-cu12-bindings=={version}", made)
            with zipfile.ZipFile(next(made.glob("*.whl"))) as wheel:
                wheel.extractall(made)
            _compile_empty_libraries(made, version.partition(".")[0])
            with contextlib.suppress(OSError):  # another test run was quicker
                made.rename(target)
    return target


def _download(requirement: str, folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    result = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(
            f"pip cannot download {requirement}, without which the names of TensorRT in the sources are not checked; "
            f"a package index is needed once (later runs take it from pytest's cache):\n{result.stderr}",
            pytrace=False,
        )


def _compile_empty_libraries(folder: pathlib.Path, major: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("there is no C compiler (cc) to make the libraries that the bindings load", pytrace=False)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)


def examine(folder: pathlib.Path, sources: list[pathlib.Path]) -> dict[str, Any]:
    """What `trt_uses.py` says of the sources, with the bindings of this folder."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join([str(folder), str(HERE)])}
    command = [sys.executable, str(HERE / "trt_uses.py"), *map(str, sources)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def examined(bindings: dict[str, pathlib.Path]):
    return functools.cache(lambda version: examine(bindings[version], SOURCES))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_that_is_used_is_there(version, examined) -> None:
    result = examined(version)
    assert result["version"] == version
    assert not result["faults"], "\n".join(result["faults"])
    found = {name for name in result["names"] if not name.endswith((" =", "(optional)")) and "(" not in name}
    assert found == set(USED.split())
    assert "NetworkDefinitionCreationFlag.STRONGLY_TYPED (optional)" in result["names"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_double_is_like_the_bindings(version, examined) -> None:
    assert examined(version)["unlike"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_names_of_tensorrt_8_are_found_out(version, bindings, tmp_path) -> None:
    source = tmp_path / "old.py"
    source.write_text(OF_TENSORRT_8)
    faults = "\n".join(examine(bindings[version], [source])["faults"])
    for name in (
        "old.py:9: Builder.max_batch_size does not exist",
        "old.py:10: IBuilderConfig.max_workspace_size does not exist",
        "old.py:12: IBuilderConfig.set_memory_pool_limit takes [('pool', 'pool_size')], not 1 arguments and size",
        "old.py:13: Builder.build_engine does not exist",
        "old.py:18: ICudaEngine.get_binding_shape does not exist",
        "old.py:18: ICudaEngine.num_bindings does not exist",
        "old.py:21: IExecutionContext.execute_async_v2 does not exist",
    ):
        assert name in faults, faults
    gone = "BuilderFlag.FP16 does not exist" in faults, "Flag.EXPLICIT_BATCH does not exist" in faults
    assert gone == (version.startswith("11"),) * 2


def test_without_an_index_it_fails_and_says_why(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="tensorrt-cu12-bindings"):
        _download(f"tensorrt-cu12-bindings=={VERSIONS[0]}", tmp_path)
