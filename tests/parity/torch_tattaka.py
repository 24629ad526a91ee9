"""tattaka's network in PyTorch as the paper's text describes it, with timm's encoder.

Nobody has published its code, so what the text leaves open follows `TattakaConfig`. Its decoder's tensors are named by
our modules.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch_reference import encoder

from jaxcryo.models.tattaka.config import TattakaConfig


class ConvNorm(nn.Module):
    """3x3x3 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Separable(nn.Module):
    """Dilated depthwise 3x3x3, norm, pointwise, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        self.depthwise = nn.Conv3d(
            inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
        )  # fmt: skip
        self.norm1 = nn.BatchNorm3d(inputs)
        self.pointwise = nn.Conv3d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm2(self.pointwise(self.norm1(self.depthwise(x)))))


class PyramidUpsampling(nn.Module):
    """FastFCN's joint pyramid upsampling, in 3-D."""

    def __init__(self, inputs: list[int], width: int, dilations: tuple[int, ...], coarsest_first: bool):
        super().__init__()
        self.coarsest_first = coarsest_first
        self.project = nn.ModuleList(ConvNorm(i, width) for i in inputs)
        self.branches = nn.ModuleList(Separable(len(inputs) * width, width, d) for d in dilations)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        size = maps[0].shape[2:]
        projected = [layer(x) for layer, x in zip(self.project, maps, strict=True)]
        fine = [nn.functional.interpolate(x, size, mode="nearest") for x in projected]
        joined = torch.cat(fine[::-1] if self.coarsest_first else fine, dim=1)
        return torch.cat([branch(joined) for branch in self.branches], dim=1)


class AtrousPooling(nn.Module):
    """Dilated convolutions and the global mean side by side, brought back to one width."""

    def __init__(self, inputs: int, width: int, dilations: tuple[int, ...]):
        super().__init__()
        self.near = nn.Conv3d(inputs, width, 1, bias=False)
        self.near_norm = nn.BatchNorm3d(width)
        self.far = nn.ModuleList(
            nn.Conv3d(inputs, width, 3, padding=d, dilation=d, bias=False) for d in dilations
        )  # fmt: skip
        self.far_norms = nn.ModuleList(nn.BatchNorm3d(width) for _ in dilations)
        self.whole = nn.Conv3d(inputs, width, 1, bias=False)
        self.whole_norm = nn.BatchNorm3d(width)
        self.project = nn.Conv3d((len(dilations) + 2) * width, width, 1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.relu(self.near_norm(self.near(x)))]
        parts += [torch.relu(norm(conv(x))) for conv, norm in zip(self.far, self.far_norms, strict=True)]
        whole = torch.relu(self.whole_norm(self.whole(x.mean((2, 3, 4), keepdim=True))))
        parts.append(nn.functional.interpolate(whole, x.shape[2:], mode="nearest"))
        return torch.relu(self.norm(self.project(torch.cat(parts, dim=1))))


class Attention(nn.Module):
    """Concurrent spatial and channel squeeze-and-excitation."""

    def __init__(self, channels: int, reduction: int, full_width: bool):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Conv3d(channels, hidden, 1)
        self.fc2 = nn.Conv3d(hidden, channels, 1)
        self.spatial = nn.Conv3d(channels, channels if full_width else 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channel = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3, 4), keepdim=True)))))
        return x * channel + x * torch.sigmoid(self.spatial(x))


class Block(nn.Module):
    """Two convolutions; the first takes the upsampled map and the skip."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(outputs)
        self.refine = ConvNorm(outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.refine(torch.relu(self.norm(self.up(x))))


class Up(nn.Module):
    """Nearest upsampling, the skip after it, two convolutions, attention; with `scse_before` on their input too."""

    def __init__(self, inputs: int, skip: int, outputs: int, factor: int, config: TattakaConfig):
        super().__init__()
        self.factor = factor
        reduction, full_width = config.scse_reduction, config.scse_full_width
        joined = inputs + skip
        self.before = Attention(joined, reduction, full_width) if skip and config.scse_before else nn.Identity()
        self.block = Block(joined, outputs)
        self.attention = Attention(outputs, reduction, full_width) if skip or config.scse_last else nn.Identity()

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        up = nn.functional.interpolate(x, scale_factor=(self.factor, 2, 2), mode="nearest")
        joined = up if skip is None else torch.cat([up, skip], dim=1)
        return self.attention(self.block(self.before(joined)))


class Tattaka(nn.Module):
    """tattaka's network for windows (b, 1, d, h, w)."""

    def __init__(self, config: TattakaConfig):
        super().__init__()
        self.encoder = encoder("resnetrs50", config.encoder.in_channels)
        channels = self.encoder.feature_info.channels()
        self.jpu = PyramidUpsampling(
            channels[2:], config.jpu_width, config.jpu_dilations, config.jpu_coarsest_first
        )  # fmt: skip
        width = config.jpu_width * len(config.jpu_dilations)
        pools = config.aspp_dilations
        self.aspp = AtrousPooling(width, config.jpu_width, pools) if pools else nn.Identity()
        inputs = [config.jpu_width if pools else width, *config.decoder_widths[:-1]]
        skips = [channels[1], channels[0], 0]
        self.decoder = nn.ModuleList(
            Up(i, s, o, 1 if n == 0 else 2, config)
            for n, (i, s, o) in enumerate(zip(inputs, skips, config.decoder_widths, strict=True))
        )
        self.head = nn.Conv3d(config.decoder_widths[-1], config.classes, 1)
        self.counts_padding = config.depth_pool_counts_padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, depth, height, width = x.shape
        e = self.encoder
        x = x.transpose(1, 2).reshape(batch * depth, 1, height, width)
        x = _pooled(e.act1(e.bn1(e.conv1(x))), batch)
        maps = [x]
        x = e.maxpool(x)
        for n, layer in enumerate((e.layer1, e.layer2, e.layer3, e.layer4)):
            x = layer(x)
            x = _pooled(x, batch) if n == 0 else self._mixed(x, batch)
            maps.append(x)
        maps = [m.reshape(batch, -1, *m.shape[1:]).transpose(1, 2) for m in maps]
        y = self.aspp(self.jpu(maps[2:]))
        for block, skip in zip(self.decoder, [maps[1], maps[0], None], strict=True):
            y = block(y, skip)
        return self.head(y)

    def _mixed(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        volume = x.reshape(batch, -1, *x.shape[1:]).transpose(1, 2)
        mixed = nn.functional.avg_pool3d(
            volume, (3, 1, 1), stride=1, padding=(1, 0, 0), count_include_pad=self.counts_padding
        )
        return mixed.transpose(1, 2).reshape(x.shape)

    def load(self, encoder_state: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> Tattaka:
        """Takes exported weights of the encoder, and ours of the rest by their names; in evaluation mode."""
        self.encoder.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in encoder_state.items()})
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        for name, value in ours.items():
            if name.startswith("encoder."):
                continue
            path, kind = name.rsplit(".", 1)
            array = np.asarray(value)
            if kind == "kernel":
                array = np.moveaxis(array, (-1, -2), (0, 1))
            key = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(kind, kind)
            assert state[f"{path}.{key}"].shape == array.shape, name
            state[f"{path}.{key}"] = torch.from_numpy(np.array(array))
        missing, unexpected = self.load_state_dict(state, strict=False)
        assert not unexpected and all(k.startswith("encoder.") for k in missing)
        return self.eval()


def _pooled(x: torch.Tensor, batch: int) -> torch.Tensor:
    slices = x.reshape(batch, -1, 2, *x.shape[1:]).mean(2)
    return slices.reshape(-1, *x.shape[1:])
