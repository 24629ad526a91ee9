"""`jaxcryo infer`: the options of an inference; `inference.py` does it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

from jaxcryo.cli.command import Command, Switch, shown
from jaxcryo.cli.options import GeometryOptions, InputOptions, TruthOptions
from jaxcryo.picking.aim import Aim
from jaxcryo.picking.effort import Effort


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How the models are run."""

    backend: Annotated[str, shown("NAME")] = "auto"
    """what runs the models: tensorrt, openvino, flax, or auto for the fastest available"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """compute precision; auto is bfloat16 on CPUs that support it if 'convert check --bfloat16' found it as good, or
    int8 if 'convert quantize' found it as good and faster on this CPU"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickingOptions:
    """Which peaks of the heatmaps become picks."""

    aim: Aim = "recall"
    """what thresholds are chosen for: recall (F4, few missed), balanced (F1), or precision (95 % right)"""
    one_type_per_place: Switch = True
    """keep picks of different types at one position, of which at most one can be right; recall always keeps them"""
    thresholds: Annotated[str | None, shown("FILE", default="chosen for these tomograms")] = None
    """thresholds to use, as JSON: {"ribosome": 0.5, ...}"""
    merge_radius: Annotated[float | None, shown("FRACTION", default="the models' own, 0.7")] = None
    """merge picks of one type closer than this fraction of its radius; 0 keeps all"""
    refine: Switch = False
    """refine picks to sub-voxel precision (default: the models' setting, which is normally yes)"""
    no_refine: Switch = False
    """do not refine picks to sub-voxel precision"""
    tta: Switch = False
    """test-time augmentation: average over four in-plane flips, four times as slow"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written besides the picks."""

    report: Switch = True
    """do not write the HTML reports in PICKS/reports"""
    save_heatmaps: Switch = False
    """save heatmaps as OME-Zarr in PICKS/heatmaps"""
    view: Annotated[Literal["napari"] | None, shown("napari")] = None
    """show tomograms and picks in napari when all runs are done"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """Where the work is done."""

    workers: Annotated[int | None, shown("N", default="one per GPU, else 1")] = None
    """number of worker processes on this machine, each with its own GPU or its share of the CPU cores"""
    scheduler: Annotated[str | None, shown("ADDRESS")] = None
    """use the workers of a running Dask scheduler: tcp://HOST:8786, or its scheduler file (docs/scale.md)"""
    split_z: Annotated[int, shown("N")] = 1
    """share each tomogram out in N ranges of slices, for a few huge ones; the picks are the same"""
    shard: Annotated[str | None, shown("I/N")] = None
    """process only part I of N of the runs; afterwards the same command without --shard writes the tables"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferOptions:
    """Find particles in tomograms."""

    engines: Annotated[str | None, shown("DIR")] = None
    """folder of models, written by convert onnx, or hf://user/name[@revision]; all of them are averaged"""
    data: Annotated[str | None, shown("DIR", default="data")] = None
    """dataset, folder of tomograms, or one tomogram; also s3://bucket/folder, https://server/tomogram.zarr, and the
    metadata.json of a Croissant manifest"""
    copick: Annotated[str | None, shown("JSON")] = None
    """copick project to use instead of --data"""
    portal: Annotated[tuple[int, ...], shown("NUMBER ...", default="none")] = ()
    """datasets of the CryoET Data Portal to use instead of --data"""
    out: Annotated[pathlib.Path | None, shown("PICKS", default="picks, or demo with --demo")] = None
    """output folder"""
    runs: Annotated[tuple[str, ...], shown("NAME ...", default="all")] = ()
    """runs to process"""
    effort: Effort = "full"
    """how much windows overlap: full as in the paper; balanced and fast take a fraction of the time"""
    mask: Annotated[str | None, shown("VOLUME")] = None
    """pick only where this mask is above 0; or a folder with one mask per run, named like the run"""
    format: Annotated[tuple[str, ...], shown("NAME ...")] = ()
    """also write the picks as: relion4, relion5, dynamo, napari, csv (docs/formats.md)"""
    force: Switch = False
    """replace existing results"""
    demo: Switch = False
    """try the program on a synthetic tomogram with the bundled networks"""
    input: InputOptions = InputOptions()
    model: ModelOptions = ModelOptions()
    picking: PickingOptions = PickingOptions()
    output: OutputOptions = OutputOptions()
    running: RunningOptions = RunningOptions()
    geometry: GeometryOptions = GeometryOptions()
    truth: TruthOptions = TruthOptions()


INFER = Command(
    name="infer",
    summary="find particles in tomograms",
    options=InferOptions,
    action="jaxcryo.cli.inference:infer",
    examples={
        "infer --demo": "a synthetic tomogram, the bundled networks, and a score, in about a minute",
        "infer --engines out/ --data data/ --out picks/": "all runs of a dataset; rerun, it skips finished runs",
        "infer --engines out/ --data data/ --runs TS_5_4 TS_6_4": "these runs only",
        "infer --engines out/ --data tomograms/ --voxel-spacing 7.84": (
            "a folder of .mrc or .zarr files whose headers have a wrong voxel spacing"
        ),
        "infer --engines out/ --data data/ --scheduler scheduler.json": "on the workers of a cluster (docs/scale.md)",
        "infer --engines out/ --copick config.json": (
            "a copick project: the picks are also written to its overlay, as user jaxcryo"
        ),
        "infer --engines out/ --portal 10446 --cache chunks": (
            "a dataset of the CryoET Data Portal, scored where it has picks (docs/benchmarks.md)"
        ),
        "infer --engines hf://user/name --data s3://bucket/tomograms --cache chunks": (
            "models and tomograms that are not on this machine (docs/servers.md)"
        ),
        "score picks/ data/": "next, where the particles are known",
    },
)
main = INFER.main
