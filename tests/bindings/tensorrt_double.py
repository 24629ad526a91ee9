"""A double of the TensorRT objects that this project uses, with their signatures; ONNX Runtime computes for it.

The names of classes, methods and parameters are checked against the real bindings by `test_bindings.py`. Engines are
bound to a version and a card as the real ones are. Memory is the CPU's.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import json
import types

import numpy as np
import onnx
import onnxruntime


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class BuilderFlag(enum.IntEnum):
    TF32 = 6


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self) -> None:
        self.is_initialized = True

    def log(self, severity, msg):
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_initialized = True

    def phase_start(self, phase_name, parent_phase, num_steps):
        raise NotImplementedError

    def step_complete(self, phase_name, step):
        raise NotImplementedError

    def phase_finish(self, phase_name):
        raise NotImplementedError


@dataclasses.dataclass
class Faults:
    """What is to go wrong, by name, and what was asked of the double."""

    said: set[str] = dataclasses.field(default_factory=set)
    card: str = "7.5"
    version: str = "10.12.0.36"
    scale: float = 1.0
    """Heatmaps are multiplied by it."""
    calls: list[tuple[str, object]] = dataclasses.field(default_factory=list)


FAULTS = Faults()
"""Of the test that runs."""


def _say(logger: ILogger, text: str) -> None:
    logger.log(ILogger.Severity.ERROR, text)


class ParserError:
    def __init__(self, operator: str, name: str, text: str) -> None:
        self._operator, self._name, self._text = operator, name, text

    def desc(self):
        return self._text

    def node_operator(self):
        return self._operator

    def node_name(self):
        return self._name


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = b""


class OnnxParser:
    def __init__(self, network, logger):
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self):
        return len(self._errors)

    def parse_from_file(self, model):
        if "parse" in FAULTS.said:
            self._errors = [
                ParserError("Resize", "decoder/Resize_1", "the mode is\nnot known"),
                ParserError("Erf", "encoder/Erf_3", "no importer"),
            ]
            return False
        with open(model, "rb") as file:  # noqa: PTH123 # as the real one, which takes text
            self._network._model = file.read()
        return True

    def get_error(self, index):
        return self._errors[index]


class IHostMemory(bytes):
    pass


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self):
        return IHostMemory(self._content)


class IBuilderConfig:
    builder_optimization_level = 3
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
    progress_monitor: IProgressMonitor | None = None

    def __init__(self) -> None:
        self._cache: ITimingCache | None = None
        self._flags = {BuilderFlag.TF32}
        self._pools: dict[MemoryPoolType, int] = {}

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool] = pool_size

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._content and not cache._content.startswith(b"timings"):
            return False
        self._cache = cache
        return True


class Builder:
    def __init__(self, logger):
        assert logger.is_initialized
        self._logger = logger

    def create_network(self, flags=0):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def build_serialized_network(self, network, config):
        FAULTS.calls.append(("build", (network._flags, config)))
        FAULTS.calls.append(("timings", config._cache._content))
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 2)
            config.progress_monitor.phase_start("Tactic Selection", "Building Engine", 3)
            assert all(config.progress_monitor.step_complete("Tactic Selection", step) for step in range(3))
            config.progress_monitor.phase_finish("Tactic Selection")
            config.progress_monitor.phase_finish("Building Engine")
        if "build" in FAULTS.said:
            _say(self._logger, "no implementation for node\n  {Resize_1}")
            return None
        config._cache._content = b"timings" + config._cache._content
        head = json.dumps({"version": FAULTS.version, "card": FAULTS.card}).encode()
        return IHostMemory(head + b"\n" + network._model)


class EngineInspector:
    def __init__(self, names: list[str]) -> None:
        self._names = names

    def get_engine_information(self, format):
        assert format is LayerInformationFormat.JSON
        return json.dumps({"Layers": [{"Name": name, "TacticName": "turing_h1688"} for name in self._names]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self._engine = engine
        self._logger = logger
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name, memory):
        if "address" in FAULTS.said:
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        FAULTS.calls.append(("enqueue", stream_handle))
        if "enqueue" in FAULTS.said:
            _say(self._logger, "an illegal memory access was encountered")
            return False
        (source,), (target,) = self._engine._session.get_inputs(), self._engine._session.get_outputs()
        windows, heatmaps = (_view(self._addresses[port.name], port.shape) for port in (source, target))
        heatmaps[...] = self._engine._session.run(None, {source.name: windows})[0] * FAULTS.scale
        return True


class ICudaEngine:
    def __init__(self, model: bytes, logger: ILogger) -> None:
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._layers = [node.name for node in onnx.load_from_string(model).graph.node]
        self._ports = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._logger = logger

    @property
    def num_io_tensors(self):
        return len(self._ports)

    def get_tensor_name(self, index):
        return self._ports[index].name

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self._ports[0].name else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_shape(self, name):
        return next(tuple(port.shape) for port in self._ports if port.name == name)

    def create_execution_context(self):
        if "context" in FAULTS.said:
            _say(self._logger, "out of memory")
            return None
        return IExecutionContext(self, self._logger)

    def create_engine_inspector(self):
        return EngineInspector(self._layers)


class Runtime:
    def __init__(self, logger):
        assert logger.is_initialized
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        head, _, model = bytes(serialized_engine).partition(b"\n")
        if json.loads(head) != {"version": FAULTS.version, "card": FAULTS.card}:
            _say(self._logger, "the engine plan file is not compatible with this version of TensorRT")
            return None
        return ICudaEngine(model, self._logger)


def _view(address: int, shape: list[int]) -> np.ndarray:
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, tuple(shape))


CLASSES = (
    Builder, BuilderFlag, DataType, EngineInspector, IBuilderConfig, ICudaEngine, IExecutionContext, ILogger,
    INetworkDefinition, IProgressMonitor, ITimingCache, LayerInformationFormat, MemoryPoolType,
    NetworkDefinitionCreationFlag, OnnxParser, ParserError, ProfilingVerbosity, Runtime, TensorIOMode, IHostMemory,
)  # fmt: skip


def module() -> types.ModuleType:
    """What `import tensorrt` gives while the double is in place."""
    made = types.ModuleType("tensorrt")
    made.__dict__.update({cls.__name__: cls for cls in CLASSES}, __version__=FAULTS.version)
    return made
