"""The named recipes.

paper, yu4u
    command   python train.py --arch yu4u --fold 0
    hardware  one GPU; on 16 GB (a T4) add `--accumulate 4 --precision float16`
    hours     about 6 on a T4 (float16), 1.5 on an A100 (bfloat16)
    score     the authors' 0.783 private / 0.788 public is of four yu4u and three tattaka models averaged; they give
              none of a single model

paper, tattaka
    command   python train.py --arch tattaka --fold 0
    hardware  one GPU; on 16 GB (a T4) add `--accumulate 8 --precision float16`
    hours     about 3 on a T4 (float16), 0.7 on an A100 (bfloat16)
    score     as above

The hours are estimates from operations; the authors give none, and nobody has measured them with this code. A forward
pass of one window takes 89 (yu4u) or 226 (tattaka) GFLOP by XLA's count, a training step three times as much. An epoch
of six runs of 1782 or 810 windows has 334 or 151 steps of 32: 183 or 82 PFLOP in 64 or 25 epochs, and a tenth more for
validation. Assumed are 10 TFLOP/s on the T4 and 40 on the A100, an eighth of their peaks.

`small`: the networks that come with the project, learnt from phantoms on two CPU cores in a quarter of an hour each
(docs/demo.md has commands, times and scores). `tiny`: for tests, seconds.
"""

from __future__ import annotations

from jaxcryo.config import (
    Arch,
    AugmentConfig,
    CropConfig,
    InferenceConfig,
    LossConfig,
    OptimConfig,
    Size,
    TargetConfig,
    TattakaConfig,
    TrainConfig,
    Yu4uConfig,
)


def recipe(arch: Arch, size: Size = "paper", *, classes: int = 6) -> TrainConfig:
    """The training of one architecture in one size."""
    if size == "paper":
        return _yu4u_paper(classes) if arch == "yu4u" else _tattaka_paper(classes)
    return _reduced(arch, size, classes)


def _yu4u_paper(classes: int) -> TrainConfig:
    """Table 1 of the paper and the published configuration."""
    return TrainConfig(arch="yu4u", size="paper", model=Yu4uConfig.of_size("paper", classes))


def _tattaka_paper(classes: int) -> TrainConfig:
    """Table 2 of the paper; crops and augmentation are assumed to be yu4u's."""
    return TrainConfig(
        arch="tattaka",
        size="paper",
        model=TattakaConfig.of_size("paper", classes),
        target=TargetConfig(sigma_voxel=None),
        loss=LossConfig(kind="balanced"),
        optim=OptimConfig(weight_decay=1e-2, epochs=25, warmup_epochs=5),
        inference=InferenceConfig(stride_zyx=(16, 48, 48), batch=2),
    )


def _reduced(arch: Arch, size: Size, classes: int) -> TrainConfig:
    """What short trainings of small networks want.

    More than half the windows around a pick of a randomly chosen type, so that rare types are seen; wide targets and a
    low weight of the background, so that they are learnt; no mixup and a quick average, since there are few steps.
    """
    model = Yu4uConfig.of_size(size, classes) if arch == "yu4u" else TattakaConfig.of_size(size, classes)
    depth, height, width = model.patch_zyx
    return TrainConfig(
        arch=arch,
        size=size,
        model=model,
        target=TargetConfig(sigma_voxel=6.0 if arch == "yu4u" else 5.0),
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
