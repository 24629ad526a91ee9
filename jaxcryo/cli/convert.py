"""`jaxcryo convert`: weights from and to other programs, models for inference, TensorRT engines."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

from tyro.conf import Positional

from jaxcryo.calling import command
from jaxcryo.cli.command import Command, Group, check_above_zero, shown
from jaxcryo.cli.options import InputOptions

Weights = Annotated[Positional[pathlib.Path], shown("RUN_OR_WEIGHTS")]
_MOST_RUNS = 8
"""How many tomograms of a dataset to calibrate on; they are alike."""

Models = Annotated[Positional[pathlib.Path], shown("MODELS")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortOptions:
    """Convert a timm or PyTorch Lightning checkpoint to this program's weights, without PyTorch."""

    source: Annotated[Positional[tuple[str, ...]], shown("SOURCE ...")]
    """checkpoints (.safetensors, .bin, .pth, .ckpt), or names on the Hugging Face hub such as
    timm/convnext_nano.in12k_ft_in1k (yu4u) or timm/resnetrs50.tf_in1k (tattaka)"""
    arch: Annotated[str, shown("NAME")]
    """architecture of the weights: yu4u, tattaka, or one that you added (docs/extending.md)"""
    out: Annotated[pathlib.Path, shown("FILE")]
    """file to write; with several sources, a folder"""
    size: Annotated[str, shown("NAME")] = "paper"
    """size of the network: paper, small or tiny"""
    plain: bool = False
    """use the raw weights instead of the averaged ones (EMA)"""
    particles: Annotated[str | None, shown("FILE")] = None
    """particle types in channel order: a copick config.json or a short .toml file"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM")] = None
    """voxel spacing in Å of the tomograms that the model was trained on"""
    seed: int = 0
    """random seed for weights that the source lacks"""
    dry_run: bool = False
    """only print how each tensor would be converted"""
    force: bool = False
    """replace existing files"""


PORT = Command(
    name="convert port",
    summary="convert a timm or PyTorch Lightning checkpoint to this program's weights",
    options=PortOptions,
    action="jaxcryo.cli.convert:port",
    examples={
        "convert port timm/convnext_nano.in12k_ft_in1k --arch yu4u --out weights/convnext_nano.safetensors": (
            "ImageNet weights of yu4u's encoder, from the Hugging Face hub"
        ),
        "convert port checkpoint.ckpt --arch yu4u --out weights/yu4u.safetensors": (
            "a checkpoint of the published yu4u code"
        ),
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """Write ONNX models, and engines.json, the list of them that inference reads.

    Each source becomes NAME.onnx and, for the Flax backend, NAME.safetensors. Inference averages the models of a
    folder, so they must find the same particle types.
    """

    weights: Annotated[Positional[tuple[pathlib.Path, ...]], shown("RUN_OR_WEIGHTS ...")]
    """run folders of trainings (their best.safetensors, else last.safetensors), or .safetensors files"""
    out: Annotated[pathlib.Path, shown("DIR")]
    """folder to write"""
    precision: Literal["float32", "float16"] = "float32"
    """float32 for CPUs, float16 for TensorRT on a T4"""
    batch: Annotated[int | None, shown("N", default="the recipe's")] = None
    """windows per batch"""
    upsampling: Literal["folded", "resize"] = "folded"
    """write nearest-neighbor upsampling as smaller convolutions at low resolution (faster on CPUs) or as ONNX Resize"""
    window: Annotated[tuple[int, int, int] | None, shown("Z Y X", default="the training's")] = None
    """window size in voxels; windows overlap by the same number of voxels whatever their size"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM")] = None
    """voxel spacing in Å that the weights were trained at, if they do not record it"""
    force: bool = False
    """replace the models in the folder"""


ONNX = Command(
    name="convert onnx",
    summary="write ONNX models for inference",
    options=OnnxOptions,
    action="jaxcryo.cli.convert:onnx",
    examples={
        "convert onnx runs/yu4u-small-fold0 runs/tattaka-small-structures --out out/": (
            "for a computer without an NVIDIA GPU (OpenVINO runs float32, and bfloat16 where the CPU has it)"
        ),
        "convert onnx runs/yu4u-paper-fold0 --precision float16 --out engines-t4": (
            "for TensorRT on a T4, which is fast in float16 only; then build the engines on that card"
        ),
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Build TensorRT engines on the GPU that will run them, and compare them with ONNX Runtime.

    Each model becomes NAME-...-trtVERSION-smCAPABILITY-bBATCH.engine, with a .json beside it that says what was built
    where, and a .layers.json with TensorRT's description of its layers. Engines run only with the TensorRT version
    and on the kind of GPU that built them. Existing engines that match are kept.
    """

    engines: Models
    """folder of models, written by convert onnx"""
    workspace: Annotated[float, shown("GIB")] = 4.0
    """GPU memory that kernels may use, in GiB"""
    optimization_level: Annotated[Literal[0, 1, 2, 3, 4, 5], shown("0-5")] = 3
    """TensorRT's optimization level; a higher one builds longer and may run faster"""
    force: bool = False
    """rebuild engines even if matching ones exist"""


ENGINE = Command(
    name="convert engine",
    summary="build TensorRT engines on the GPU that will run them",
    options=EngineOptions,
    action="jaxcryo.cli.convert:engine",
    examples={"convert engine engines-t4": "the engines of all models in the folder"},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Compare models with Flax on this computer."""

    engines: Models
    """folder of models, written by convert onnx"""
    windows: Annotated[int, shown("N")] = 4
    """windows of noise, and as many of a phantom"""
    bfloat16: Annotated[int | None, shown("PHANTOMS")] = None
    """also pick this many phantoms in float32 and in bfloat16, and record the change of the weighted F4 in
    engines.json, so that inference uses bfloat16 where it is as good; 8 are enough"""
    int8: Annotated[int | None, shown("PHANTOMS")] = None
    """the same for the int8 models of convert quantize, which it also times; for a folder made on another computer"""
    shape: Annotated[tuple[int, int, int], shown("Z Y X")] = (184, 630, 630)
    """size of these phantoms in voxels"""


CHECK = Command(
    name="convert check",
    summary="compare models with Flax on this computer",
    options=CheckOptions,
    action="jaxcryo.cli.convert:check",
    examples={
        "convert check engines": "all models of the folder",
        "convert check engines --bfloat16 8": "and whether bfloat16 picks as well as float32",
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Write an int8 model beside each float one, for CPUs that run int8 faster (needs onnxruntime).

    Value ranges are measured on windows of tomograms, or of phantoms without --data. Each layer is tried alone; those
    that cost the most accuracy stay in float, until the weighted F4 on other phantoms falls by less than 0.003. The
    result is recorded in engines.json, and inference uses int8 where it is as good and faster.
    """

    engines: Models
    """folder of models, written by convert onnx"""
    data: Annotated[str | None, shown("DIR", default="phantoms")] = None
    """dataset, folder of tomograms, or one tomogram like those that will be picked"""
    windows: Annotated[int, shown("N")] = 32
    """windows of these tomograms"""
    phantoms: Annotated[int, shown("N")] = 4
    """phantoms to compare int8 with float32 on"""
    shape: Annotated[tuple[int, int, int], shown("Z Y X")] = (128, 400, 400)
    """size of these phantoms in voxels"""
    force: bool = False
    """replace existing int8 models, which are kept otherwise"""
    input: InputOptions = InputOptions()


QUANTIZE = Command(
    name="convert quantize",
    summary="write int8 models beside the float ones",
    options=QuantizeOptions,
    action="jaxcryo.cli.convert:quantize",
    examples={
        "convert quantize out/": "calibrated on phantoms",
        "convert quantize out/ --data tomograms/": "calibrated on tomograms like those that will be picked",
        "infer --engines out/ --data data/ --precision int8": "next, to use int8 even where auto would not",
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write this program's weights under the tensor names of timm or of yu4u's code, for use in PyTorch.

    lightning: yu4u's whole network under the names of his checkpoints, for
    Timm3DDecoder3.load_state_dict({k.removeprefix("model."): v for k, v in safetensors.torch.load_file(OUT).items()}).
    timm: the encoder of either network, for timm.create_model("convnext_nano", in_chans=5, num_classes=0) or
    timm.create_model("resnetrs50", in_chans=1, num_classes=0) and load_state_dict(load_file(OUT), strict=False).
    """

    weights: Weights
    """run folder of a training, or a .safetensors file"""
    out: Annotated[Positional[pathlib.Path], shown("OUT.safetensors")]
    """file to write"""
    to: Literal["timm", "lightning"]
    """timm: the encoder; lightning: the whole network"""


EXPORT = Command(
    name="convert export",
    summary="write weights under the tensor names of timm or of yu4u's code",
    options=ExportOptions,
    action="jaxcryo.cli.convert:export",
    examples={"convert export runs/yu4u-paper-fold0 yu4u.safetensors --to lightning": "yu4u's whole network"},
)

CONVERT = Group(
    name="convert",
    summary="turn trained networks into models for inference; weights from and to other programs",
    commands=(PORT, ONNX, QUANTIZE, ENGINE, CHECK, EXPORT),
)
main = CONVERT.main


def port(options: PortOptions) -> None:
    """Ports one source to a file, or several to a folder."""
    from jaxcryo.convert import port as porting
    from jaxcryo.project.particles import read_particles

    how = porting.PortOptions(
        arch=options.arch,
        size=options.size,
        averaged=not options.plain,
        types=None if options.particles is None else read_particles(options.particles),
        spacing_angstrom=options.voxel_spacing,
        seed=options.seed,
    )
    porting.port_files(options.source, options.out, how, dry_run=options.dry_run, force=options.force)


def onnx(options: OnnxOptions) -> None:
    """Converts all models; says what was written and what to run next."""
    from onnx import load

    from jaxcryo.convert.onnx_models import OnnxOptions, convert_models
    from jaxcryo.convert.onnx_write import described
    from jaxcryo.runtime.manifest import FILE_NAME

    how = OnnxOptions(
        precision=options.precision,
        batch=options.batch,
        upsampling=options.upsampling,
        spacing_angstrom=options.voxel_spacing,
        window_zyx=options.window,
    )
    entries = convert_models(list(options.weights), options.out, how, force=options.force)
    for entry in entries:
        path = options.out / entry.onnx_file
        print(f"  {path}  {path.stat().st_size / 1e6:.1f} MB, {described(load(path))}, from {entry.source}")
    print(f"  {options.out / FILE_NAME}  {len(entries)} model{'s' * (len(entries) > 1)}")
    print(f"next: {command(f'convert check {options.out}')}")
    if options.precision == "float16":
        print(f"then, on the GPU that will run it: {command(f'convert engine {options.out}')}")
    print(f"then: {command(f'infer --engines {options.out} --data DIR')}")


def engine(options: EngineOptions) -> int:
    """Builds what is missing; 1 where an engine fails the accuracy check."""
    from jaxcryo.convert.engines import build_engines

    good = build_engines(
        options.engines,
        workspace_gib=options.workspace,
        optimization_level=options.optimization_level,
        force=options.force,
    )
    return 0 if good else 1


def check(options: CheckOptions) -> int:
    """Prints all comparisons; 1 where one exceeds its tolerance."""
    from jaxcryo.convert.check import check_models
    from jaxcryo.runtime.manifest import RunPrecision

    asked: dict[RunPrecision, int | None] = {"bfloat16": options.bfloat16, "int8": options.int8}
    phantoms = {precision: count for precision, count in asked.items() if count is not None}
    good = check_models(
        options.engines,
        windows=options.windows,
        phantoms=phantoms,
        shape_zyx=options.shape,
    )
    return 0 if good else 1


def quantize(options: QuantizeOptions) -> int:
    """Writes the int8 models; 1 where one loses too much whatever is left in float."""
    from jaxcryo.cli.geometry import say
    from jaxcryo.cli.inputs import find_source, reading_of
    from jaxcryo.convert.calibration_windows import tomogram_calibration
    from jaxcryo.convert.comparison import Windows
    from jaxcryo.convert.quantize import QuantizeOptions, quantize_models
    from jaxcryo.picking.preprocess import fit_volume
    from jaxcryo.runtime.manifest import ModelEntry

    check_above_zero(windows=options.windows)

    def of_tomograms(entry: ModelEntry) -> tuple[Windows, str]:
        source = find_source(options.data, None, options.input)
        reading = reading_of(options.input)
        count = min(len(source.runs), _MOST_RUNS)
        runs = [source.runs[i * len(source.runs) // count] for i in range(count)]
        volumes = [fit_volume(reading.open(run.volume_path, run.name), [entry], note=say) for run in runs]
        windows = tomogram_calibration(entry, volumes, windows=options.windows)
        return windows, f"{len(windows)} windows of {', '.join(run.name for run in runs)}"

    good = quantize_models(
        options.engines,
        QuantizeOptions(
            phantoms=options.phantoms,
            shape_zyx=options.shape,
            calibrate=None if options.data is None else of_tomograms,
        ),
        force=options.force,
    )
    print(f"next: {command(f'infer --engines {options.engines} --data DIR')}")
    return 0 if good else 1


def export(options: ExportOptions) -> None:
    """Writes the file."""
    from jaxcryo.convert.export import export_file

    export_file(options.weights, options.out, options.to)
