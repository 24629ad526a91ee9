"""Every number of the method, as frozen records; presets are named constructors.

Imports nothing of the project but its error. What the paper or the published code leaves open is a field here,
with the reason for its default.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal

from jaxcryo.errors import InputError

Arch = Literal["yu4u", "tattaka"]
Size = Literal["paper", "small", "tiny"]
ARCHS: tuple[Arch, ...] = typing.get_args(Arch)
SIZES: tuple[Size, ...] = typing.get_args(Size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """A ConvNeXt encoder; the defaults are timm's `convnext_nano`."""

    in_channels: int = 5
    depths: tuple[int, ...] = (2, 2, 8, 2)
    widths: tuple[int, ...] = (80, 160, 320, 640)
    kernel: int = 7
    """Side of the depthwise kernels; a small net on a CPU spends most of its time in them, so it has smaller ones."""
    layer_scale: float = 1e-6
    """What a block's answer is multiplied by at first. timm's value lets blocks that are not pretrained learn late."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetRSConfig:
    """A ResNet-RS encoder; the defaults are timm's `resnetrs50`."""

    in_channels: int = 1
    """Assumed: each slice is an image of one channel (the code of this model is not public)."""
    stem_widths: tuple[int, int, int] = (32, 32, 64)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Bottleneck widths; a stage's output is `expansion` times as wide."""
    expansion: int = 4
    se_ratio: float = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yu4uConfig:
    """yu4u's network (paper section 2.3; `Timm3DDecoder3` of the published code)."""

    classes: int = 6
    patch_zyx: tuple[int, int, int] = (16, 128, 128)
    neighbors: int = 2
    """Slices on each side that become channels of a slice's image."""
    encoder: ConvNeXtConfig = ConvNeXtConfig()
    decoder_widths: tuple[int, ...] = (1024, 768, 256)
    head_stride: int = 4
    """The decoder ends at this stride; the head's channels hold the rest (3-D pixel shuffle)."""

    def __post_init__(self) -> None:
        if self.encoder.in_channels != 2 * self.neighbors + 1:
            raise InputError(
                f"the encoder takes {self.encoder.in_channels} channels; {self.neighbors} neighbours on each side make "
                f"{2 * self.neighbors + 1}"
            )

    @classmethod
    def of_size(cls, size: Size, classes: int = 6) -> Yu4uConfig:
        """`paper` is the published network; the smaller ones learn phantoms on a CPU in minutes."""
        match size:
            case "paper":
                return cls(classes=classes)
            case "small":
                encoder = ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(32, 64, 96, 160), kernel=3, layer_scale=1.0)
                return cls(classes=classes, encoder=encoder, decoder_widths=(80, 64, 64), patch_zyx=(16, 96, 96))
            case "tiny":
                encoder = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), kernel=3, layer_scale=1.0)
                return cls(classes=classes, encoder=encoder, decoder_widths=(24, 16, 16), patch_zyx=(16, 64, 64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TattakaConfig:
    """tattaka's network (paper section 2.4). Its code is not public; what is open is assumed."""

    classes: int = 6
    patch_zyx: tuple[int, int, int] = (32, 128, 128)
    encoder: ResNetRSConfig = ResNetRSConfig()
    jpu_width: int = 128
    """Assumed: the figure shows no widths; 128 keeps the decoder as light as the paper calls the model."""
    jpu_dilations: tuple[int, ...] = (1, 2, 4, 8)
    """FastFCN's four branches."""
    decoder_widths: tuple[int, ...] = (128, 64, 32)
    """Assumed: halved at each step. Fewer than three end at a higher stride, the rest by pixel shuffle."""
    scse_reduction: int = 16
    """Assumed: the value of the attention's paper and of the common implementations."""
    depth_pool_counts_padding: bool = True
    """Assumed: PyTorch's default, zeros beyond the ends count in the mean of the 3-slice pooling."""

    @classmethod
    def of_size(cls, size: Size, classes: int = 6) -> TattakaConfig:
        """`paper` is the network of the text; the smaller ones learn phantoms on a CPU in minutes."""
        match size:
            case "paper":
                return cls(classes=classes)
            case "small":
                encoder = ResNetRSConfig(stem_widths=(8, 8, 16), depths=(1, 2, 2, 1), widths=(16, 24, 32, 48))
                return cls(
                    classes=classes,
                    encoder=encoder,
                    jpu_width=32,
                    decoder_widths=(48,),
                    scse_reduction=8,
                    patch_zyx=(16, 96, 96),
                )
            case "tiny":
                encoder = ResNetRSConfig(stem_widths=(4, 4, 8), depths=(1, 1, 1, 1), widths=(4, 6, 8, 12))
                return cls(
                    classes=classes,
                    encoder=encoder,
                    jpu_width=12,
                    decoder_widths=(16,),
                    scse_reduction=4,
                    patch_zyx=(16, 64, 64),
                )


ModelConfig = Yu4uConfig | TattakaConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How voxels become the network's input: (v - center) / scale, limited to ±clip. Those without data become 0."""

    rule: Literal["fixed", "tomogram", "robust"] = "fixed"
    """`fixed`: the constants below, for every tomogram; `tomogram`: each one's own mean and standard deviation;
    `robust`: its median and the deviation that its quartiles tell, which dark aggregates and gold hardly move."""
    mean: float = 5.2577832e-08
    std: float = 7.199929e-06
    clip: float | None = None
    """In deviations; None limits nothing."""

    @classmethod
    def robust(cls) -> IntensityConfig:
        """For networks that are to meet other tomograms than those they were trained on.

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
    """A Gaussian is drawn up to this many σ from its centre along each axis; beyond it is below 4e-4."""
    rounded: bool = False
    """The published code's rounding: whole-voxel centres, values in 1/255, a patch of 45 voxels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Where training windows lie."""

    stride: float = 0.5
    """Of the window's size: the grid of one epoch."""
    jitter: float = 0.25
    """Each grid start moves by up to this share of the window."""
    near_pick: float = 0.0
    """Share of the windows that are drawn around a pick of a randomly chosen type instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a window and its picks (published `get_train_transforms`)."""

    warp_probability: float = 0.5
    shift: float = 0.05
    """Of the window's size, up to, in y and x."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`weighted`: mean of (p - y)² (y + alpha), equation 1; `balanced`: equation 2."""

    kind: Literal["weighted", "balanced"] = "weighted"
    alpha: float = 0.1
    epsilon: float = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up from 0 and cosine decay to 0, per step (tables 1 and 2)."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: float = 64
    warmup_epochs: float = 4
    batch: int = 32
    accumulate: int = 1
    """A batch is split into this many parts whose gradients are averaged; BatchNorm sees one part at a time."""
    ema_decay: float = 0.999
    ema_warmup: bool = False
    """Let the decay rise as (1 + n) / (10 + n), for trainings of a few hundred steps."""
    clip_norm: float | None = None
    epsilon: float = 1e-8
    """Adam's. Gradients of these losses are about as small as the customary value, which then slows what is learnt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a window moves over a tomogram, and what a peak is (sections 2.5 and 2.6)."""

    stride_zyx: tuple[int, int, int] = (8, 48, 48)
    batch: int = 4
    padding: Literal["zeros", "reflect"] = "zeros"
    """What lies beyond the volume. The published code trains and validates with zeros; networks that saw no zeros in
    training find false particles at such an edge, and want the volume reflected."""
    nms_voxel: int = 7
    """Side of the cube in which a voxel must be the largest."""
    merge_radius: float = 0.7
    """Of two picks of one type closer than this share of its radius the better one stays; 0 keeps both."""
    refine: bool = True
    """Put picks at the top of a paraboloid through the peak's cube instead of at its largest voxel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole recipe. `recipe` gives the named ones."""

    arch: Arch
    size: Size
    model: ModelConfig
    intensity: IntensityConfig = IntensityConfig()
    target: TargetConfig = TargetConfig()
    crop: CropConfig = CropConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    inference: InferenceConfig = InferenceConfig()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    pretrained: bool = True
    """Start from ported ImageNet weights."""
    rematerialize: bool = False
    """Compute the encoder's activations again in the backward pass instead of keeping them."""
    sync_batch_norm: bool = False
    validate_every_epochs: float = 1
    seed: int = 42
