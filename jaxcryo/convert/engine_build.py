"""Builds a TensorRT engine from an ONNX file, for this machine's GPU. Importing this module imports TensorRT.

Precision is the graph's: TensorRT 11 knows only strongly typed networks, and 10 is asked for one.
"""

from __future__ import annotations

import dataclasses
import pathlib

import tensorrt as trt

from jaxcryo.errors import InputError
from jaxcryo.progress import Progress
from jaxcryo.runtime.tensorrt import LOG, LoadedEngine, reported


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How thoroughly TensorRT searches, and with how much memory."""

    workspace_bytes: int = 4 * 2**30
    optimization_level: int = 3
    """0 to 5: higher levels build longer, for engines that are as fast or faster."""

    def __post_init__(self) -> None:
        if self.workspace_bytes < 1:
            raise InputError(f"the workspace is {self.workspace_bytes} bytes; expected some")
        if not 0 <= self.optimization_level <= 5:
            raise InputError(f"the optimization level is {self.optimization_level}; expected 0 to 5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """The result of a build."""

    plan: bytes
    timing_cache: bytes
    """Measured kernels; the next build on the same kind of card starts from it."""


def build_engine(onnx_path: pathlib.Path, options: BuildOptions, timing_cache: bytes = b"") -> BuiltEngine:
    """Parses, times kernels for some minutes, and serializes the fastest ones.

    Raises:
        InputError: TensorRT cannot parse the file (every fault is named), or cannot build an engine of it.
    """
    builder = trt.Builder(LOG)
    network = builder.create_network(_network_flags())
    _parse(network, onnx_path)
    config = _config(builder, options)
    cache = _timing_cache(config, timing_cache)
    with Progress(desc=onnx_path.name, unit="step", leave=False) as bar:
        config.progress_monitor = _Progress(bar)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(
            f"{onnx_path}: TensorRT {trt.__version__} cannot build an engine of it ({reported()}); if memory is "
            "short, end other programs on the card, or choose another --workspace"
        )
    return BuiltEngine(plan=bytes(plan), timing_cache=bytes(cache.serialize()))


def layer_information(loaded: LoadedEngine) -> str:
    """TensorRT's description of an engine's layers, as JSON."""
    inspector = loaded.engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _network_flags() -> int:
    """The strongly-typed flag of TensorRT 10; 0 in versions where all networks are strongly typed."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(network: trt.INetworkDefinition, onnx_path: pathlib.Path) -> None:
    parser = trt.OnnxParser(network, LOG)
    if parser.parse_from_file(str(onnx_path)):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    faults = [f"{e.node_operator()} {e.node_name()!r}: {' '.join(e.desc().split())}" for e in errors]
    raise InputError(
        f"{onnx_path}: TensorRT {trt.__version__} cannot parse it ({'; '.join(faults) or reported()}); convert "
        "again, with the other --upsampling if Resize is at fault"
    )


def _config(builder: trt.Builder, options: BuildOptions) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the description of the layers; costs no time
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32, on cards that would round
    return config


def _timing_cache(config: trt.IBuilderConfig, stored: bytes) -> trt.ITimingCache:
    """The stored cache if it is for this card and version, else an empty one."""
    for content in (stored, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    raise InputError(f"TensorRT {trt.__version__} cannot make a timing cache ({reported()}); install it again")


class _Progress(trt.IProgressMonitor):  # type: ignore[misc] # untyped
    """Shows the phase that TensorRT is in."""

    def __init__(self, bar: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._bar = bar
        self._phase = ""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._phase = phase_name
        self._bar.set_postfix_str(phase_name, refresh=False)
        self._bar.reset(total=num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """True continues the build."""
        if phase_name == self._phase:
            self._bar.update(step + 1 - self._bar.n)
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Called at the end of a phase; shows nothing."""
