"""All parameters of the method, as frozen records; presets are named constructors.

Imports nothing of the project except its error. A network's own record lies with its architecture
(jaxcryo/models/ARCHITECTURE/config.py). What the paper or the published code leaves open is a field here,
with the reason for its default.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from jaxcryo.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What every network has; an architecture's own config adds the rest (jaxcryo/models/registry.py lists them)."""

    arch: ClassVar[str] = ""
    """The architecture's name; in JSON it says which record it is."""

    classes: int = 6
    patch_zyx: tuple[int, int, int] = (16, 128, 128)
    """The window that it was trained on."""

    @property
    def least_tensors(self) -> int:
        """A lower bound of its number of parameters, known without building it: a file with fewer is damaged."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How voxels become the network's input: (v - center) / scale, limited to ±clip. Voxels without data become 0."""

    rule: Literal["fixed", "tomogram", "robust"] = "fixed"
    """`fixed`: the constants below, for every tomogram; `tomogram`: each one's own mean and standard deviation;
    `robust`: its median and the deviation from its quartiles, which dark aggregates and gold hardly change."""
    mean: float = 5.2577832e-08
    std: float = 7.199929e-06
    clip: float | None = None
    """In deviations; None sets no limit."""

    @classmethod
    def robust(cls) -> IntensityConfig:
        """For networks that will be used on tomograms unlike those they were trained on.

        The darkest thousandth of a real tomogram lies 10 robust deviations below the median, in particles; gold and
        aggregates lie further out.
        """
        return cls(rule="robust", clip=10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Gaussians at the picks (paper section 2.2)."""

    sigma_voxel: float | None = 6.0
    """One width for every type (yu4u); None: radius / (2 x spacing) of each type (assumed for tattaka)."""
    cutoff_sigma: float = 4.0
    """A Gaussian is drawn up to this many σ from its center along each axis; beyond, it is below 4e-4."""
    rounded: bool = False
    """The published code's rounding: whole-voxel centers, values in steps of 1/255, a patch of 45 voxels."""


def _check(
    record: object, *, above_zero: Sequence[str] = (), from_zero: Sequence[str] = (), share: Sequence[str] = ()
) -> None:
    """Raises InputError for a number that makes no sense; None is accepted."""
    for names, expected, least, most in (
        (above_zero, "a number above 0", math.ulp(0.0), sys.float_info.max),
        (from_zero, "a number from 0", 0.0, sys.float_info.max),
        (share, "a share from 0 to 1", 0.0, 1.0),
    ):
        for name in names:
            value = getattr(record, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {value:g}; expected {expected}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Where training windows lie."""

    stride: float = 0.5
    """The stride of one epoch's grid, as a share of the window's size."""
    jitter: float = 0.25
    """Each grid start moves by up to this share of the window."""
    near_pick: float = 0.0
    """Share of the windows that are drawn around a pick of a randomly chosen type instead."""

    def __post_init__(self) -> None:
        _check(self, above_zero=("stride",), share=("jitter", "near_pick"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The augmentation of a window and its picks (published `get_train_transforms`)."""

    warp_probability: float = 0.5
    shift: float = 0.05
    """Largest shift in y and x, as a share of the window's size."""
    scale: float = 0.1
    rotation_degree: float = 180.0
    flip_x_probability: float = 0.5
    flip_y_probability: float = 0.0
    flip_z_probability: float = 0.0
    intensity_probability: float = 0.3
    brightness: float = 0.3
    contrast: float = 0.3
    mixup_probability: float = 0.5
    """Per batch; λ is uniform in [0, 1], which is Beta(1, 1)."""

    def __post_init__(self) -> None:
        probabilities = [f.name for f in dataclasses.fields(self) if f.name.endswith("_probability")]
        _check(self, share=(*probabilities, "shift", "scale"), from_zero=("rotation_degree", "brightness", "contrast"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`weighted`: mean of (p - y)² (y + alpha), equation 1; `balanced`: equation 2."""

    kind: Literal["weighted", "balanced"] = "weighted"
    alpha: float = 0.1
    epsilon: float = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartialConfig:
    """Learning from partial labels: everything unmarked is unknown (docs/own-particles.md)."""

    own_reach: float = 1.4
    """Share of a marked particle's radius within which there can be no second one of its type."""
    other_reach: float = 0.5
    """Share of a radius within which no other type has its center; also used around rejected positions."""
    far_below: float = 0.1
    """Share of the starting model's threshold below which there is surely nothing."""
    unknown_weight: float = 0.0
    """Weight of unknown voxels as background until warm-up is over; above 0 if no starting model knows background."""
    new_types: tuple[int, ...] | None = None
    """The types (by number) whose unknown voxels have this weight; None for all."""
    warmup: float = 0.3
    """Share of the training before which the averaged weights' answers are not trusted."""
    trust: float = 0.4
    """Their least mean answer at marked particles of a type, to be trusted about that type."""
    surely_none: float = 0.03
    surely_one: float = 0.7
    """Answers below the first and above the second are trusted."""

    def __post_init__(self) -> None:
        _check(
            self,
            share=("far_below", "unknown_weight", "warmup", "trust", "surely_none", "surely_one"),
            above_zero=("own_reach", "other_reach"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up from 0 and cosine decay to 0, per step (tables 1 and 2)."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: float = 64
    warmup_epochs: float = 4
    batch: int = 32
    accumulate: int | None = None
    """A batch is split into this many parts whose gradients are averaged; BatchNorm sees one part at a time. None: as
    few as the device's memory allows, which a training decides when it begins, and keeps."""
    ema_decay: float = 0.999
    ema_warmup: bool = False
    """Let the decay rise as (1 + n) / (10 + n), for trainings of a few hundred steps."""
    clip_norm: float | None = None
    epsilon: float = 1e-8
    """Adam's epsilon. Gradients of these losses are about as small as the usual value, which would slow learning."""

    def __post_init__(self) -> None:
        _check(
            self,
            above_zero=("learning_rate", "epochs", "batch", "accumulate", "clip_norm", "epsilon"),
            from_zero=("weight_decay", "warmup_epochs"),
            share=("ema_decay",),
        )

    @property
    def parts(self) -> int:
        """Into which a batch is split; one where nothing was decided."""
        return self.accumulate or 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a window moves over a tomogram, and what a peak is (sections 2.5 and 2.6)."""

    stride_zyx: tuple[int, int, int] = (8, 48, 48)
    batch: int = 4
    padding: Literal["zeros", "reflect"] = "zeros"
    """Padding beyond the volume. The published code trains and validates with zeros. Networks that saw no zeros in
    training find false particles at such an edge, and need the volume reflected."""
    nms_voxel: int = 7
    """Side of the cube in which a voxel must be the largest."""
    merge_radius: float = 0.7
    """Of two picks of one type closer than this share of its radius, the better one is kept; 0 keeps both."""
    refine: bool = True
    """Place picks at the top of a paraboloid through the peak's cube instead of at its largest voxel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole recipe. `recipe` returns the named ones."""

    arch: str
    size: str
    model: NetworkConfig
    intensity: IntensityConfig = IntensityConfig()
    target: TargetConfig = TargetConfig()
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    partial: PartialConfig | None = None
    """How partial labels are learned; None if labels are complete."""
    optim: OptimConfig = OptimConfig()
    inference: InferenceConfig = InferenceConfig()
    precision: Precision | None = None
    """None: what the device does best, which a training decides when it begins, and keeps."""
    pretrained: bool = True
    """Start from ported ImageNet weights."""
    rematerialize: bool = False
    """Gradient checkpointing: recompute the encoder's activations in the backward pass instead of keeping them."""
    sync_batch_norm: bool = False
    validate_every_epochs: float = 1
    seed: int = 42

    def __post_init__(self) -> None:
        if self.model.arch != self.arch:
            raise InputError(f"the architecture is {self.arch}, its network {self.model.arch}'s; expected one")

    @classmethod
    def for_phantoms(cls, model: NetworkConfig, *, size: str, sigma_voxel: float) -> Self:
        """Settings for short trainings of small networks.

        More than half the windows are around a pick of a randomly chosen type, so that rare types are seen. Targets are
        wide and the background has a low weight, so that they are learned. There is no mixup, and the average is fast,
        since there are few steps.
        """
        depth, height, width = model.patch_zyx
        return cls(
            arch=model.arch,
            size=size,
            model=model,
            target=TargetConfig(sigma_voxel=sigma_voxel),
            crop=CropConfig(near_pick=0.6),
            augment=AugmentConfig(mixup_probability=0.0, flip_y_probability=0.5),
            loss=LossConfig(kind="weighted", alpha=0.02),
            optim=OptimConfig(
                learning_rate=2e-3, weight_decay=1e-2, epochs=2, warmup_epochs=0.1, batch=4, ema_decay=0.995,
                ema_warmup=True, clip_norm=1.0, epsilon=1e-12,
            ),
            inference=InferenceConfig(
                stride_zyx=(depth * 3 // 4, height * 3 // 4, width * 3 // 4), batch=4, padding="reflect"
            ),
            pretrained=False,
        )  # fmt: skip
