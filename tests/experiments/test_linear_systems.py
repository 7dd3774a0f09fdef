"""The systems of Fig. 5 left that need no training, on images of other origin than the usual. Seeds: 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bvae_tune.data.shapes import SPACE, render
from bvae_tune.experiments import Scale
from bvae_tune.experiments.linear_systems import (
    EFFORT,
    ICA,
    ICA_PAIRS,
    PCA,
    PCA_STANDARDISED,
    RAW,
    TRUTH,
    linear_scores,
)
from bvae_tune.experiments.model_table import SPACES
from bvae_tune.experiments.reproduction import scaled
from bvae_tune.search.runner import create
from bvae_tune.search.study import Study

SIZES = (3, 3, 8, 6, 6)  # of shape, scale, rotation and the positions


def test_dsprites_as_published_has_one_colour(cache: Path, tmp_path: Path) -> None:
    values = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    images = render(values * (1, 2, 5, 6, 6))[:, ::4, ::4]  # coarse, for speed
    classes = np.concatenate([np.zeros((len(values), 1), np.int64), values], axis=1)
    np.savez_compressed(tmp_path / "dsprites.npz", imgs=images.astype(np.uint8), latents_classes=classes)
    data = ["dataset.source=npz", f"dataset.path={tmp_path / 'dsprites.npz'}", "labels.count=2000"]
    settings = [*data, "model.architecture=fc", "model.widths=[16]"]
    study = Study.open(create(scaled(Scale.SMOKE, SPACES, settings), "dsprites", tmp_path))
    scores = linear_scores(study, EFFORT[Scale.SMOKE], lambda _: None)
    assert list(scores) == [TRUTH, RAW, PCA, PCA_STANDARDISED, ICA, ICA_PAIRS]
    truth, remark = scores[TRUTH]
    assert remark == ", ".join(SPACE.names)
    assert truth.profile[64] > 0.98
    assert truth.profile[4] > max(score.profile[4] for label, (score, _) in scores.items() if label != TRUTH)
