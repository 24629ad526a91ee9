"""Writes trainings or weights as a folder of ONNX models, with the list that inference reads."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import onnx

from jaxcryo.config import Precision, TrainConfig
from jaxcryo.convert.export import weights_file
from jaxcryo.convert.onnx_write import write_onnx
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.models import Weights, build
from jaxcryo.models.onnx_layers import Upsampling
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import FILE_NAME, ModelEntry, file_sha256, listed_files, write_manifest
from jaxcryo.weights import TrainedModel, load_model, model_types, save_model

_GENERIC_STEMS = ("best", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """How all models of a folder are written."""

    precision: Precision = "float32"
    batch: int | None = None
    """None takes the recipe's."""
    upsampling: Upsampling = "folded"
    """With `folded`, OpenVINO takes two thirds of the time (paper size)."""
    spacing_angstrom: float | None = None
    """For weights that do not record the voxel spacing of their training."""
    window_zyx: tuple[int, int, int] | None = None
    """None takes the training's. Windows of other sizes overlap by the same number of voxels."""


def convert_models(
    sources: list[pathlib.Path], out: pathlib.Path, options: OnnxOptions, *, force: bool = False
) -> tuple[ModelEntry, ...]:
    """Writes every model to the folder, and the manifest last.

    Raises:
        InputError: a source cannot be used, the models do not belong together, or the folder already holds models.
    """
    _check_options(options)
    if (out / FILE_NAME).exists() and not force:
        raise InputError(f"{out} already holds models; choose another --out or pass --force")
    files = [weights_file(source) for source in sources]
    twice = sorted({str(f) for f in files if [g.resolve() for g in files].count(f.resolve()) > 1})
    if twice:
        raise InputError(f"given more than once: {', '.join(twice)}; name each model once")
    _check_types(files)
    names = _names(files)
    written = {(out / f"{name}.{ending}").resolve() for name in names for ending in ("onnx", "safetensors")}
    if clash := sorted(str(f) for f in files if f.resolve() in written):
        raise InputError(f"{', '.join(clash)} would be overwritten; choose another folder with --out")
    if not force and (present := sorted(str(f) for f in written if f.exists())):
        raise InputError(f"{', '.join(present)} already exists; choose another --out or pass --force")
    print(
        f"{len(files)} model{'s' * (len(files) > 1)} to {out}: {options.precision}, upsampling {options.upsampling}, "
        f"batch {options.batch or 'of the recipe'}"
    )
    before = _listed_files(out)
    steps = Progress(zip(files, names, strict=True), total=len(files), desc="converting", unit="model")
    entries = tuple(convert_model(load_model(file), name, out, options, source=str(file)) for file, name in steps)
    write_manifest(out, entries)
    for stale in before - {name for e in entries for name, _ in e.files}:
        (out / stale).unlink(missing_ok=True)
    return entries


def convert_model(
    model: TrainedModel, name: str, folder: pathlib.Path, options: OnnxOptions, *, source: str
) -> ModelEntry:
    """Writes one model's two files to the folder, and describes it."""
    config = model.config if options.window_zyx is None else with_window(model.config, options.window_zyx)
    spacing = model.spacing_angstrom or options.spacing_angstrom
    if spacing is None:
        raise InputError(
            f"{source}: does not record the voxel spacing it was trained at; pass --voxel-spacing A "
            "(10.012444 for the challenge's tomograms)"
        )
    batch = options.batch or config.inference.batch
    # Both files come from the same numbers: else Flax and ONNX would be rounded differently.
    model = dataclasses.replace(model, params=_stored(model.params, options.precision), spacing_angstrom=spacing)
    network, _, _ = build(config.model, seed=None)
    graph = write_onnx(
        network.module(model.params, model.stats),
        config.model,
        batch=batch,
        precision=options.precision,
        upsampling=options.upsampling,
    )
    onnx_file, weights = folder / f"{name}.onnx", folder / f"{name}.safetensors"
    with atomic_path(onnx_file) as fresh:
        onnx.save(graph, str(fresh))
    save_model(weights, model)
    return ModelEntry(
        name=name,
        size=config.size,
        model=config.model,
        onnx_file=onnx_file.name,
        onnx_sha256=file_sha256(onnx_file),
        weights_file=weights.name,
        weights_sha256=file_sha256(weights),
        precision=options.precision,
        types=model.types,
        intensity=config.intensity,
        spacing_angstrom=spacing,
        inference=dataclasses.replace(config.inference, batch=batch),
        source=f"{pathlib.Path(source).parent.name}/{pathlib.Path(source).name}: {model.source}",
        skewness=model.skewness,
        calibration=model.calibration,
    )


def with_window(config: TrainConfig, window_zyx: tuple[int, int, int]) -> TrainConfig:
    """The config for windows of another size, which overlap by as many voxels as its own.

    Raises:
        InputError: the network cannot take such windows, or they are no larger than the overlap.
    """
    own, stride = config.model.patch_zyx, config.inference.stride_zyx
    z, y, x = (w - (o - s) for w, o, s in zip(window_zyx, own, stride, strict=True))
    if min(z, y, x) < 1:
        raise InputError(
            f"--window is {' '.join(map(str, window_zyx))}, no larger than the overlap of windows (they are "
            f"{' '.join(map(str, own))} and move by {' '.join(map(str, stride))} voxels); choose a larger one"
        )
    network, params, stats = build(config.model, seed=None)
    jax.eval_shape(network.apply, params, stats, jax.ShapeDtypeStruct((1, *window_zyx), jnp.float32))  # raises
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, patch_zyx=window_zyx),
        inference=dataclasses.replace(config.inference, stride_zyx=(z, y, x)),
    )


def _stored(params: Weights, precision: Precision) -> Weights:
    """Kernels in the chosen precision; all else is small, and a layer scale may be too small for float16."""
    return {k: v.astype(jnp.dtype(precision)) if v.ndim > 1 else v for k, v in params.items()}


def _check_options(options: OnnxOptions) -> None:
    if options.batch is not None and options.batch < 1:
        raise InputError(f"--batch is {options.batch}; expected at least 1 window")
    if options.spacing_angstrom is not None and not 0 < options.spacing_angstrom < float("inf"):
        raise InputError(f"--voxel-spacing is {options.spacing_angstrom}; expected ångströms above 0")


def _check_types(files: list[pathlib.Path]) -> None:
    """Compares the descriptions of all models before any is loaded or anything written."""
    found: dict[tuple[tuple[str, float], ...], pathlib.Path] = {}
    for file in files:
        types = model_types(file)
        found.setdefault(tuple((t.name, t.radius_angstrom) for t in types), file)
    if len(found) > 1:
        lists = "; ".join(f"{file} finds {', '.join(name for name, _ in types)}" for types, file in found.items())
        raise InputError(
            f"the models find different particle types: {lists}; averaged models need the same types in the "
            "same order with the same radii: convert them to different folders"
        )


def _names(files: list[pathlib.Path]) -> list[str]:
    """The name of the run folder or file, numbered if it is already taken."""
    names: list[str] = []
    for file in files:
        stem = file.resolve().parent.name if file.stem in _GENERIC_STEMS else file.stem
        name, n = stem, 1
        while name in names:
            n += 1
            name = f"{stem}-{n}"
        names.append(name)
    return names


def _listed_files(out: pathlib.Path) -> set[str]:
    """The files of the models that are in the folder now; none if its manifest cannot be read."""
    try:
        return {name for name in listed_files(out) if pathlib.PurePath(name).name == name}
    except InputError:
        return set()
