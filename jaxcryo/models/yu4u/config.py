"""yu4u's network and recipes (paper section 2.3 and table 1; `Timm3DDecoder3` of the published code)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxcryo.config import NetworkConfig, TrainConfig
from jaxcryo.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """A ConvNeXt encoder; the defaults are timm's `convnext_nano`."""

    in_channels: int = 5
    depths: tuple[int, ...] = (2, 2, 8, 2)
    widths: tuple[int, ...] = (80, 160, 320, 640)
    kernel: int = 7
    """Side of the depthwise kernels; a small net on a CPU spends most of its time in them, so it has smaller ones."""
    layer_scale: float = 1e-6
    """Initial factor of a block's output. With timm's value, blocks that are not pretrained learn late."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yu4uConfig(NetworkConfig):
    """yu4u's network."""

    arch: ClassVar[str] = "yu4u"

    neighbors: int = 2
    """Slices on each side that become channels of a slice's image."""
    encoder: ConvNeXtConfig = ConvNeXtConfig()
    decoder_widths: tuple[int, ...] = (1024, 768, 256)
    head_stride: int = 4
    """The decoder ends at this stride; the head's channels hold the rest (3-D pixel shuffle)."""

    def __post_init__(self) -> None:
        if self.encoder.in_channels != 2 * self.neighbors + 1:
            raise InputError(
                f"the encoder takes {self.encoder.in_channels} channels; {self.neighbors} neighbors on each side make "
                f"{2 * self.neighbors + 1}"
            )

    @property
    def least_tensors(self) -> int:
        """One for each block of the encoder."""
        return sum(self.encoder.depths)


def paper(classes: int) -> TrainConfig:
    """Table 1 of the paper and the published configuration."""
    return TrainConfig(arch="yu4u", size="paper", model=Yu4uConfig(classes=classes))


def small(classes: int) -> TrainConfig:
    """Learns phantoms on a CPU in a quarter of an hour."""
    encoder = ConvNeXtConfig(depths=(1, 1, 2, 1), widths=(32, 64, 96, 160), kernel=3, layer_scale=1.0)
    model = Yu4uConfig(classes=classes, encoder=encoder, decoder_widths=(80, 64, 64), patch_zyx=(16, 96, 96))
    return TrainConfig.for_phantoms(model, size="small", sigma_voxel=6.0)


def tiny(classes: int) -> TrainConfig:
    """For tests."""
    encoder = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(8, 16, 24, 32), kernel=3, layer_scale=1.0)
    model = Yu4uConfig(classes=classes, encoder=encoder, decoder_widths=(24, 16, 16), patch_zyx=(16, 64, 64))
    return TrainConfig.for_phantoms(model, size="tiny", sigma_voxel=6.0)


RECIPES = {"paper": paper, "small": small, "tiny": tiny}
