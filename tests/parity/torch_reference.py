"""The reference networks in PyTorch: timm's encoders, and yu4u's network as its paper and its code describe it.

Its tensors have the names of the published checkpoints, so that those load into it.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

torchvision_operators = torch.library.Library("torchvision", "DEF")
"""timm imports torchvision, whose wheels refuse to load without these where its own extension is not built."""
for operator in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, operator):
        torchvision_operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402


def encoder(name: str, channels: int) -> nn.Module:
    """timm's encoder with features of all stages, in evaluation mode."""
    return timm.create_model(name, pretrained=False, features_only=True, in_chans=channels).eval()


class Block(nn.Module):
    """3x3x3 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.block = nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Up(nn.Module):
    """Nearest upsampling, the skip after it, two blocks."""

    def __init__(self, inputs: int, outputs: int, factor: int):
        super().__init__()
        self.factor = factor
        self.conv1 = Block(inputs, outputs)
        self.conv2 = Block(outputs, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        up = nn.functional.interpolate(x, scale_factor=(self.factor, 2, 2), mode="nearest")
        return self.conv2(self.conv1(torch.cat([up, skip], dim=1)))


class Yu4u(nn.Module):
    """yu4u's network for windows (b, 1, d, h, w)."""

    def __init__(self, classes: int = 6):
        super().__init__()
        slicer = nn.Conv3d(1, 5, (5, 1, 1), padding=(2, 0, 0), bias=False)
        slicer.weight.data = torch.eye(5).reshape(5, 1, 5, 1, 1)
        self.stem = nn.ModuleDict({"conv": slicer})
        self.backbone = encoder("convnext_nano", 5)
        widths = self.backbone.feature_info.channels()
        inputs = (widths[3] + widths[2], 1024 + widths[1], 768 + widths[0])
        ups = [Up(i, o, 1 if n == 0 else 2) for n, (i, o) in enumerate(zip(inputs, (1024, 768, 256), strict=True))]
        self.decoder = nn.ModuleDict({"blocks": nn.ModuleList(ups)})
        self.conv3ds = nn.ModuleList(nn.Sequential(Block(w, w), Block(w, w)) for w in widths)
        self.segmentation_head = nn.Conv3d(256, 64 * classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, depth, height, width = x.shape
        x = self.stem["conv"](x).transpose(1, 2).reshape(batch * depth, 5, height, width)
        x = self.backbone.stem_1(self.backbone.stem_0(x))
        maps = []
        current, pooled = depth, 0
        for n, lateral in enumerate(self.conv3ds):
            x = getattr(self.backbone, f"stages_{n}")(x)
            channels, h, w = x.shape[1:]
            if pooled >= 4:
                k = 1
            elif width // w > depth * 2 // current:
                k, pooled = 4, pooled + 2
            else:
                k, pooled = 2, pooled + 1
            current //= k
            x = x.reshape(batch, current, k, channels, h, w).mean(2).reshape(batch * current, channels, h, w)
            maps.append(lateral(x.reshape(batch, current, channels, h, w).transpose(1, 2)))
        y = maps.pop()
        for block in self.decoder["blocks"]:
            y = block(y, maps.pop())
        y = self.segmentation_head(y)
        b, c, d, h, w = y.shape
        y = y.reshape(b, c // 64, 4, 4, 4, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return y.reshape(b, c // 64, 4 * d, 4 * h, 4 * w)


def fill_module(module: nn.Module) -> nn.Module:
    """The module with the golden cases' weights."""
    from golden.cases import reference_tensor

    state = OrderedDict(
        (key, torch.from_numpy(reference_tensor(key, tuple(value.shape))).to(value.dtype))
        for key, value in module.state_dict().items()
    )
    module.load_state_dict(state)
    return module.eval()
