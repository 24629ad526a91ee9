"""`jaxcryo train`: the options of a training; `training.py` does it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

from jaxcryo.cli.command import Command, Switch, shown
from jaxcryo.cli.options import GeometryOptions, InputOptions, Particles, TruthOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Numbers to use instead of the recipe's."""

    set: Annotated[tuple[str, ...], shown("NAME=VALUE ...")] = ()
    """any number of the recipe, e.g. optim.ema_decay=0.99 crop.near_pick=0.3 (config.json of a run lists all)"""
    batch: Annotated[int | None, shown("N", default="the recipe's")] = None
    """samples per step"""
    accumulate: Annotated[int | None, shown("N", default="as few as memory allows")] = None
    """gradient accumulation steps: the batch is split into this many parts, to save memory"""
    lr: Annotated[float | None, shown("RATE", default="the recipe's")] = None
    """learning rate"""
    seed: Annotated[int, shown("N")] = 42
    """random seed of weights, crops and augmentation"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions:
    """The weights that training starts from."""

    init: Annotated[pathlib.Path | None, shown("WEIGHTS")] = None
    """start from these weights, or 'bundled' for the bundled network; particle types of the same name keep what was
    learned, tensors that do not fit are initialized anew"""
    from_scratch: Switch = False
    """start without ImageNet weights"""
    weights: Annotated[pathlib.Path, shown("DIR")] = pathlib.Path("weights")
    """folder of ported ImageNet weights"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How steps are computed."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """compute precision; auto is bfloat16 on NVIDIA GPUs from compute capability 8.0 on, float16 with loss scaling from
    7.0 on (a T4), else float32; a training that is continued keeps its own"""
    rematerialize: Switch = False
    """gradient checkpointing: recompute activations to save memory"""
    sync_batch_norm: Switch = False
    """batch normalization over the batch of all devices"""
    volumes: Literal["auto", "device", "stream"] = "auto"
    """keep tomograms on the device, or stream windows from the files; auto decides by size"""
    save_minutes: Annotated[float, shown("M")] = 2.0
    """minutes between checkpoints"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How complete the picks are (docs/own-particles.md)."""

    labels: Literal["complete", "partial"] = "complete"
    """complete: what is not marked is background; partial: it is unknown"""
    corrections: Annotated[tuple[str, ...], shown("FILE ...")] = ()
    """corrections saved from pages; with partial labels only these, and picks in complete regions, count as marked"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureOptions:
    """Training from structures alone, on phantoms made meanwhile."""

    structures: Annotated[str | None, shown("TOML")] = None
    """train without tomograms or picks: a file of particle types with a structure for each (docs/phantoms.md), or czii
    for the challenge's six"""
    like: Annotated[tuple[str, ...], shown("TOMOGRAM ...")] = ()
    """make phantoms look like these tomograms, whose wedge, noise, scale and ice thickness are measured"""
    background: Annotated[tuple[str, ...], shown("TOMOGRAM ...")] = ()
    """put particles into these tomograms, which should hold few of them; implies --like"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a network on tomograms with known picks."""

    arch: Annotated[str, shown("NAME")]
    """architecture: yu4u, tattaka, or one that was added (docs/extending.md)"""
    fold: Annotated[int | Literal["all"] | None, shown("K")] = None
    """run to hold out, counted from 0 in sorted order, or all to hold out each in turn; not with --structures, nor with
    a single tomogram, of which a part is held out"""
    data: Annotated[str | None, shown("DIR", default="data")] = None
    """dataset in the challenge's layout, or a folder of tomograms with --picks"""
    copick: Annotated[str | None, shown("JSON")] = None
    """copick project to use instead of --data"""
    picks: Annotated[str | None, shown("PICKS", default="the dataset's")] = None
    """known picks in any format (docs/formats.md)"""
    particles: Particles = None
    """particle types: a copick config.json or a short .toml file (docs/formats.md)"""
    out: Annotated[pathlib.Path | None, shown("RUN", default="runs/ARCH-SIZE-foldK")] = None
    """run folder; started again with the same options, training resumes where it was interrupted"""
    size: Annotated[str, shown("NAME")] = "paper"
    """size of the network: paper, or small and tiny, which learn on a CPU"""
    steps: Annotated[int | None, shown("N", default="the recipe's")] = None
    """stop after N steps; the schedule is rescaled"""
    minutes: Annotated[float | None, shown("M")] = None
    """stop after M minutes; the schedule is rescaled to the measured speed"""
    label: LabelOptions = LabelOptions()
    from_structures: StructureOptions = StructureOptions()
    recipe: RecipeOptions = RecipeOptions()
    start: StartOptions = StartOptions()
    compute: ComputeOptions = ComputeOptions()
    input: InputOptions = InputOptions()
    truth: TruthOptions = TruthOptions()
    geometry: GeometryOptions = GeometryOptions()


TRAIN = Command(
    name="train",
    summary="train a network on tomograms with known picks",
    options=TrainOptions,
    action="jaxcryo.cli.training:train",
    examples={
        "train --arch yu4u --fold 0": (
            "the paper's recipe on data/ (in the challenge's layout), the first run in sorted order held out"
        ),
        "train --arch tattaka --fold 2 --accumulate 8": (
            "the other architecture, its batch of 32 in eight parts whatever the memory"
        ),
        "train --arch yu4u --fold 0 --data data/phantom --size small --minutes 15": "a small network on two CPU cores",
        "train --arch yu4u --fold 0 --set optim.ema_decay=0.99 crop.near_pick=0.3": "two numbers of the recipe changed",
        "train --arch yu4u --fold 0 --init weights/convnext_nano.safetensors": (
            "starts from weights that 'convert port' wrote"
        ),
        "train --arch yu4u --fold 0 --copick config.json --picks-user curator": (
            "tomograms, picks and particle types of a copick project"
        ),
        "train --arch yu4u --fold 0 --data tomograms/ --picks picks.csv --particles particles.toml": (
            "your own tomograms, picks and particles"
        ),
        "train --arch tattaka --size small --data one/ --picks marks.csv --labels partial --init bundled": (
            "some particles marked, the others unknown; of a single tomogram a part is held out"
        ),
        "train --arch yu4u --fold all": "each run held out in turn, and a table at the end",
        "train --arch tattaka --size small --structures particles.toml --minutes 30": (
            "no tomograms, no picks: phantoms of the structures are made while it trains"
        ),
        "train --arch tattaka --size small --structures particles.toml --like tomograms/TS_1.mrc --minutes 30": (
            "the same, with phantoms that look like a tomogram of yours"
        ),
        "convert onnx runs/yu4u-paper-fold0 --out out/": "next: models for inference",
    },
    notes="""\
On several hosts start the same command on each, under SLURM with srun --ntasks N. Without SLURM set
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process.""",
)
main = TRAIN.main
