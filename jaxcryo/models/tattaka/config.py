"""tattaka's network and recipes (paper section 2.4 and table 2). Its code is not public; what the paper leaves open is
assumed.

Where the author's earlier public code for 2-D images (`FastFCNImproveHead` of his solutions to the contrail and lumbar
spine challenges) differs from the defaults here, a field allows for it; the sizes `paper-fastfcn` and `small-fastfcn`
follow that code throughout.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jaxcryo.config import InferenceConfig, LossConfig, NetworkConfig, OptimConfig, TargetConfig, TrainConfig


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
class TattakaConfig(NetworkConfig):
    """tattaka's network."""

    arch: ClassVar[str] = "tattaka"

    patch_zyx: tuple[int, int, int] = (32, 128, 128)
    encoder: ResNetRSConfig = ResNetRSConfig()
    jpu_width: int = 128
    """Assumed: the figure shows no widths; 128 keeps the decoder as light as the paper calls the model."""
    jpu_dilations: tuple[int, ...] = (1, 2, 4, 8)
    """FastFCN's four branches."""
    decoder_widths: tuple[int, ...] = (128, 64, 32)
    """Assumed: halved at each step. Fewer than three end at a higher stride, the rest by pixel shuffle."""
    jpu_coarsest_first: bool = False
    """The order in which the pyramid's maps are concatenated. Only names of weights depend on it."""
    aspp_dilations: tuple[int, ...] = ()
    """Atrous spatial pyramid pooling after the joint pyramid upsampling, as wide as that; none if empty. Assumed: the
    paper names none. The earlier code has dilations of 4, 8 and 12 beside a 1x1 convolution and the global mean."""
    scse_reduction: int = 16
    """Assumed: the value of the attention's paper and of the common implementations."""
    scse_before: bool = False
    """Attention also on the concatenation with a skip, before the convolutions, as in the earlier code."""
    scse_full_width: bool = False
    """The spatial half weighs each channel on its own (channels to channels), as in the earlier code, instead of all
    alike (channels to 1), as in the attention's paper."""
    scse_last: bool = True
    """Attention after the last block, the one without a skip; the earlier code has none there."""
    depth_pool_counts_padding: bool = True
    """Assumed: PyTorch's default, zeros beyond the ends count in the mean of the 3-slice pooling."""

    @property
    def least_tensors(self) -> int:
        """One for each block of the encoder."""
        return sum(self.encoder.depths)


def paper(classes: int) -> TrainConfig:
    """Table 2 of the paper; crops and augmentation are assumed to be yu4u's."""
    return TrainConfig(
        arch="tattaka",
        size="paper",
        model=TattakaConfig(classes=classes),
        target=TargetConfig(sigma_voxel=None),
        loss=LossConfig(kind="balanced"),
        optim=OptimConfig(weight_decay=1e-2, epochs=25, warmup_epochs=5),
        inference=InferenceConfig(stride_zyx=(16, 48, 48), batch=2),
    )


def small(classes: int) -> TrainConfig:
    """Learns phantoms on a CPU in a quarter of an hour."""
    model = TattakaConfig(
        classes=classes,
        encoder=ResNetRSConfig(stem_widths=(8, 8, 16), depths=(1, 2, 2, 1), widths=(16, 24, 32, 48)),
        jpu_width=32,
        decoder_widths=(48,),
        scse_reduction=8,
        patch_zyx=(16, 96, 96),
    )
    return TrainConfig.for_phantoms(model, size="small", sigma_voxel=5.0)


_FASTFCN: dict[str, Any] = {
    "jpu_coarsest_first": True, "scse_before": True, "scse_full_width": True, "scse_last": False,
}  # fmt: skip


def paper_fastfcn(classes: int) -> TrainConfig:
    """`paper` with the decoder of the author's earlier code."""
    config = paper(classes)
    model = TattakaConfig(classes=classes, jpu_width=256, decoder_widths=(128, 64, 64), **_FASTFCN)
    return dataclasses.replace(config, size="paper-fastfcn", model=model)


def small_fastfcn(classes: int) -> TrainConfig:
    """`small` with the attention and the order of the author's earlier code; its widths stay."""
    config = small(classes)
    model = dataclasses.replace(config.model, **_FASTFCN)
    return dataclasses.replace(config, size="small-fastfcn", model=model)


def tiny(classes: int) -> TrainConfig:
    """For tests."""
    model = TattakaConfig(
        classes=classes,
        encoder=ResNetRSConfig(stem_widths=(4, 4, 8), depths=(1, 1, 1, 1), widths=(4, 6, 8, 12)),
        jpu_width=12,
        decoder_widths=(16,),
        scse_reduction=4,
        patch_zyx=(16, 64, 64),
    )
    return TrainConfig.for_phantoms(model, size="tiny", sigma_voxel=5.0)


RECIPES = {
    "paper": paper,
    "small": small,
    "tiny": tiny,
    "paper-fastfcn": paper_fastfcn,
    "small-fastfcn": small_fastfcn,
}
