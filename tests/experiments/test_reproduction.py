"""What every figure's study refuses before anything is trained. Seed: 0 (labels)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from bvae_tune.data.sources import import_arrays

Reproduce = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize("figure", ["fig5-left", "fig6"])
@pytest.mark.parametrize(
    ("kept", "expected"), [(48, "these show size, colour"), (41, "these show size, colour, not in every combination")]
)
def test_images_without_the_factors_of_shapes(
    reproduce_here: Reproduce, tmp_path: Path, figure: str, kept: int, expected: str
) -> None:
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(6), indexing="ij"), axis=-1).reshape(-1, 2)[:kept]
    images = np.zeros((len(grid), 64, 64), bool)
    import_arrays(images, factors=grid, factor_names=("size", "colour"), path=tmp_path / "own.arrow")
    settings = ["dataset.source=arrow", f"dataset.path={tmp_path / 'own.arrow'}", "labels.factors=[size, colour]"]
    settings.append("labels.count=40")
    given = [part for setting in settings for part in ("--set", setting)]
    refused = reproduce_here(figure, tmp_path / "runs", *given)
    assert refused.returncode == 2
    assert "images of three shapes in every combination" in refused.stderr
    assert expected in refused.stderr
    assert not list((tmp_path / "runs").iterdir())


def test_an_error_names_no_setting_that_nobody_gave(reproduce_here: Reproduce, tmp_path: Path) -> None:
    refused = reproduce_here("fig6", tmp_path, "--set", "training.steps=7")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: --set training.steps=7: steps 7 is no multiple of report_every 20; steps 20 would be\n"
    )
