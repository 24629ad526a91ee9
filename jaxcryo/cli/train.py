"""`train.py`: trains one architecture on all runs of a dataset but the held-out one."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from jaxcryo.allocator import keep_freed_memory
from jaxcryo.cli.check_intensities import suited
from jaxcryo.cli.common import PARTICLES_HELP, parser, reports_errors
from jaxcryo.cli.convert import main as convert
from jaxcryo.cli.geometry import add_frame_options
from jaxcryo.cli.geometry import say as note
from jaxcryo.cli.inputs import add_source_options, picks_to_train_on, reading_of, source_of, types_of
from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.models import architecture, architectures, build
from jaxcryo.models.registry import sizes
from jaxcryo.project.dataset import read_run_picks, within_volume
from jaxcryo.recipes import recipe
from jaxcryo.report import score_table
from jaxcryo.runtime.manifest import file_sha256
from jaxcryo.tomogram.volumes import Reading
from jaxcryo.training import distributed
from jaxcryo.training.fit import Length, Outcome, Start, TrainingStopped, fit
from jaxcryo.training.run_folder import Fingerprint, RunDescription
from jaxcryo.training.source import Example, at_one_spacing
from jaxcryo.training.source import source_of as samples_of
from jaxcryo.weights import load_model

EXAMPLES = """examples:
  python train.py --arch yu4u --fold 0
      the paper's recipe on data/ (the challenge's layout), the first run in sorted order held out
  python train.py --arch tattaka --fold 2 --accumulate 8
      the other network, its batch of 32 in eight parts, for cards with less memory
  python train.py --arch yu4u --fold 0 --data data/phantom --size small --minutes 15
      a small network on two CPU cores; the schedule fits itself to the time
  python train.py --arch yu4u --fold 0 --init weights/convnext_nano.safetensors
      starts from weights that 'python -m convert port' wrote

  python train.py --arch yu4u --fold 0 --copick config.json --picks-user curator
      tomograms, picks and particle types of a copick project
  python train.py --arch yu4u --fold 0 --data tomograms/ --picks picks.csv --particles particles.toml
      own tomograms, picks and particles
  python train.py --arch yu4u --fold all
      every run held out in turn, and a table at the end
  srun --ntasks 4 python train.py --arch yu4u --fold 0
      several hosts; without SLURM set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process

Started again with the same options it goes on where it was cut off. Next: python -m convert onnx RUN --out out/
"""


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "python train.py") -> int:
    """Runs the command."""
    args = _parser(prog).parse_args(argv)
    keep_freed_memory()
    distributed.join(sys.argv[1:] if argv is None else argv)
    types = types_of(args)
    config = _config(args, len(types))
    source = source_of(args, train=True)
    runs = source.runs
    if len(runs) < 2:
        raise InputError(f"{source.place}: has {len(runs)} training run; at least two are needed, one is held out")
    if args.fold != "all" and args.fold >= len(runs):
        raise InputError(
            f"fold {args.fold} does not exist: {source.place} has {len(runs)} runs, folds 0 to {len(runs) - 1}: "
            + ", ".join(f"{i} {r.name}" for i, r in enumerate(runs))
        )
    start = _start(args, config)
    given = picks_to_train_on(args, source, types)
    examples = [_example(r, types, reading_of(args), given.get(r.name)) for r in runs]
    unknown = [t.name for i, t in enumerate(types) if not any(len(e.picks.of_type(i)) for e in examples)]
    if unknown:
        note(f"no run has picks of {', '.join(unknown)}: not learned, and left out of the mean F4")
    config, volumes, skewness = suited(config, [e.volume for e in examples], note)
    examples = [dataclasses.replace(e, volume=v) for e, v in zip(examples, volumes, strict=True)]
    examples = at_one_spacing(examples, note)
    fingerprints = {e.volume.name: Fingerprint.of(e.volume, e.picks) for e in examples}
    folds = range(len(runs)) if args.fold == "all" else [args.fold]
    results = []
    try:
        for fold in folds:
            results.append(
                (runs[fold].name, _train(args, config, types, examples, fold, start, skewness, fingerprints))
            )
    except TrainingStopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return 1
    if args.fold == "all" and distributed.is_first():
        print("\n" + _fold_table(results))
    return 0


def _train(
    args: argparse.Namespace,
    config: TrainConfig,
    types: tuple[ParticleType, ...],
    examples: Sequence[Example],
    fold: int,
    start: Start | None,
    skewness: float,
    fingerprints: dict[str, Fingerprint],
) -> Outcome:
    held_out, rest = examples[fold], [*examples[:fold], *examples[fold + 1 :]]
    spacing = held_out.volume.grid.spacing_angstrom
    name = f"{args.arch}-{args.size}-fold{fold}"
    out = pathlib.Path("runs", name) if args.out is None else pathlib.Path(args.out)
    if args.out is not None and args.fold == "all":
        out = out / name
    description = RunDescription(
        config=config,
        types=types,
        fold=fold,
        train_runs=tuple(e.volume.name for e in rest),
        held_out=held_out.volume.name,
        spacing_angstrom=spacing,
        steps=args.steps,
        skewness=skewness,
        fingerprints=fingerprints,
        start=None if start is None else start.sha256,
    )
    say = print if distributed.is_first() else lambda *_: None
    say(
        f"Training {args.arch} ({args.size}) on {len(rest)} runs of {args.copick or args.data} at {spacing:.3f} Å, "
        f"{held_out.volume.name} held out, into {out}"
    )
    began = time.monotonic()
    outcome = fit(
        samples_of(rest, config, volumes=args.volumes),
        held_out,
        description,
        out,
        length=Length(steps=args.steps, minutes=args.minutes),
        start=start,
        save_every_seconds=60 * args.save_minutes,
    )
    result = outcome.result
    if outcome.was_finished:
        say(f"\n{out} was finished already. On {held_out.volume.name}:")
    else:
        say(f"\n{result.step} steps in {(time.monotonic() - began) / 60:.1f} minutes. On {held_out.volume.name}:")
    say(score_table(result.chosen, [t.threshold for t in result.types]))
    say("\nand with each type's single best threshold, which carries over less well:")
    say(score_table(result.best, result.best_thresholds))
    say("in the folder:\n" + "\n".join(f"  {f}" for f in outcome.files))
    say(f"next: python -m convert onnx {out} --out out/")
    return outcome


def _fold_table(results: Sequence[tuple[str, Outcome]]) -> str:
    lines = ["fold  held out          weighted F4  at the best thresholds"]
    scores = [(o.result.chosen.weighted_f4_of_known, o.result.best.weighted_f4_of_known) for _, o in results]
    lines += [
        f"{i:4d}  {name:16}  {chosen:11.3f}  {best:22.3f}"
        for i, ((name, _), (chosen, best)) in enumerate(zip(results, scores, strict=True))
    ]
    chosen, best = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    lines.append(f"mean  {'':16}  {chosen:11.3f}  {best:22.3f}")
    return "\n".join(lines)


def _config(args: argparse.Namespace, classes: int) -> TrainConfig:
    config = recipe(args.arch, args.size, classes=classes)
    optim: dict[str, Any] = {
        name: value
        for name, value in (("batch", args.batch), ("accumulate", args.accumulate), ("learning_rate", args.lr))
        if value is not None
    }
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, **optim),
        precision=args.precision,
        rematerialize=args.rematerialize,
        sync_batch_norm=args.sync_batch_norm,
        seed=args.seed,
        pretrained=config.pretrained and not args.from_scratch and args.init is None,
    )


def _start(args: argparse.Namespace, config: TrainConfig) -> Start | None:
    path = args.init
    if path is None:
        if not config.pretrained:
            return None
        path = _imagenet_weights(pathlib.Path(args.weights), config.arch)
    model = load_model(path)
    _, params, stats = build(config.model, seed=config.seed)
    taken = 0
    for own, given in ((params, model.params), (stats, model.stats)):
        for key, value in given.items():
            if key in own and own[key].shape == value.shape:
                own[key] = value
                taken += 1
    count = len(params) + len(stats)
    if taken == 0:
        raise InputError(f"{path}: none of its tensors fits {config.arch} ({config.size}); choose other weights")
    new = sorted(k for k in params if k not in model.params or model.params[k].shape != params[k].shape)
    about = f"{taken} of {count} tensors start from {path} ({model.source})" + (
        f"; new: {', '.join(new[:4])}{' …' if len(new) > 4 else ''}" if new else ""
    )
    return Start(params=params, stats=stats, about=about, sha256=file_sha256(path))


def _imagenet_weights(folder: pathlib.Path, arch: str) -> pathlib.Path:
    """The encoder's ported weights; downloaded and ported where they are not there yet."""
    hub_name = architecture(arch).imagenet
    if hub_name is None:
        raise InputError(f"{arch} has no ImageNet weights to start from; train with --from-scratch, or give --init")
    path = folder / f"{hub_name.rsplit('/', 1)[-1].split('.')[0]}.safetensors"
    if not path.exists() and distributed.is_first():
        print(f"the recipe starts from ImageNet weights, and {path} is not there: downloading and porting them")
        if convert(["port", hub_name, "--arch", arch, "--out", str(path)]) != 0:
            raise InputError(
                f"{path} could not be made; where there is a network, run\n"
                f"  pip install 'jaxcryo[hub]' && python -m convert port {hub_name} --arch {arch} --out {path}\n"
                "or give a downloaded model.safetensors to the same command; or train with --from-scratch, or from "
                "weights of your own with --init WEIGHTS"
            )
    distributed.meet("weights")
    return path


def _example(run: Run, types: tuple[ParticleType, ...], reading: Reading, given: Picks | None) -> Example:
    volume = reading.open(run.volume_path, run.name)
    picks = read_run_picks(run, types) if given is None else given
    return Example(volume=volume, picks=within_volume(picks, volume.grid, note=note))


def _parser(prog: str) -> argparse.ArgumentParser:
    p = parser("Train a network on tomograms with known picks.", EXAMPLES, prog)
    p.add_argument("--arch", required=True, choices=tuple(architectures()), help="which network")
    p.add_argument(
        "--fold", required=True, type=_fold, help="the run to hold out, counted from 0 in sorted order, or all in turn"
    )
    add_source_options(p, "dataset in the challenge's layout, or a folder of tomograms with --picks")
    p.add_argument("--out", metavar="RUN", help="run folder (default: runs/ARCH-SIZE-foldK)")
    p.add_argument("--size", default="paper", choices=sizes(), help="the paper's network, or a smaller one")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_positive(int), help="end after so many steps; the schedule fits itself")
    length.add_argument("--minutes", type=_positive(float), help="end in time; the schedule fits itself to the speed")
    p.add_argument(
        "--picks", metavar="PICKS", help="known picks in any format (docs/formats.md); default: the dataset's"
    )
    add_frame_options(p)
    p.add_argument("--particles", metavar="FILE", help=PARTICLES_HELP)
    p.add_argument("--batch", type=_positive(int), help="samples a step (default: the recipe's)")
    p.add_argument("--accumulate", type=_positive(int), help="split a batch into so many parts, to save memory")
    p.add_argument("--lr", type=_positive(float), help="learning rate (default: the recipe's)")
    p.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"), help="of computation")
    p.add_argument("--rematerialize", action="store_true", help="compute activations twice, for less memory")
    p.add_argument("--sync-batch-norm", action="store_true", help="BatchNorm over the batch of all devices")
    p.add_argument(
        "--volumes", default="auto", choices=("auto", "device", "stream"),
        help="keep tomograms on the device, or cut windows from the files; auto by size",
    )  # fmt: skip
    p.add_argument(
        "--save-minutes", type=_positive(float), default=2.0, help="minutes between checkpoints of the whole state"
    )
    p.add_argument("--seed", type=int, default=42, help="of weights, crops and augmentation")
    start = p.add_mutually_exclusive_group()
    start.add_argument("--init", metavar="WEIGHTS", help="start from these weights; what does not fit starts new")
    start.add_argument("--from-scratch", action="store_true", help="start without ImageNet weights")
    p.add_argument("--weights", default="weights", metavar="DIR", help="where ported ImageNet weights are looked for")
    return p


def _fold(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fold's number nor 'all'")
    return int(text)


def _positive(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    convert.__name__ = kind.__name__
    return convert
