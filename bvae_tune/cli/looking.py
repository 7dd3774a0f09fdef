"""evaluate, traverse, tensorboard."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bvae_tune.cli.arguments import STORAGE, Json, Run, Settings, Storage, Trial, Weights
from bvae_tune.cli.printing import console, output_file, print_json
from bvae_tune.errors import InputError

if TYPE_CHECKING:
    from bvae_tune.search.kept import Evaluation, Traversal
    from bvae_tune.search.records import TrialRecord


def evaluate(
    run: Weights, trial: Trial = None, settings: Settings = None, storage: Storage = STORAGE, as_json: Json = False
) -> None:
    """Score kept weights again, with other settings of metric and labels (--set metric.pairs=16)."""
    from bvae_tune.search.kept import evaluate as score_again
    from bvae_tune.search.runs import find_trial

    study, record, file = find_trial(run, trial, storage)
    found = score_again(study, record, settings or [], file)
    if as_json:
        print_json(found.to_dict())
        return
    from bvae_tune.reporting.outcomes import score_table

    console().print(score_table(_label(record, found), found.score, found.collapsed))


def traverse(
    run: Weights,
    trial: Trial = None,
    image: Annotated[int | None, typer.Option(metavar="N", help="Whose code; the first labelled image's.")] = None,
    image_seed: Annotated[
        int | None, typer.Option(metavar="SEED", min=0, help="Draw that image at random, with this seed.")
    ] = None,
    latents: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the N latents of the highest KL.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG; in the study's folder if left out.")] = None,
    storage: Storage = STORAGE,
) -> None:
    """Draw what each latent of the best trial does, in order of KL."""
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.sheets import traversals
    from bvae_tune.search.kept import traverse as decode
    from bvae_tune.search.runs import find_trial
    from bvae_tune.wording import significant

    if image is not None and image_seed is not None:
        raise InputError("--image and --image-seed: give one of them")
    study, record, file = find_trial(run, trial, storage)
    kind = "" if record.kind == "search" else f"{record.kind}-"
    path = output_file(output or study.path / f"traversals-{kind}{record.number:05d}.png", "--output", ".png")
    found = decode(study, record, image, image_seed=image_seed, file=file)
    beta = "" if math.isnan(record.beta) else f"β {significant(record.beta)}, "
    title = f"{study.name}, {_label(record, found)}: {beta}M {record.latent_size}, image {found.image}"
    figure = traversals(
        found.pixels, found.reconstruction, found.decoded, found.kl, found.values, title, found.meanings, latents
    )
    write_png(figure, path)
    console().print(str(path), soft_wrap=True)


def _label(record: TrialRecord, found: Evaluation | Traversal) -> str:
    if found.final:
        return record.label
    return f"{record.label} ({'failed after' if record.state == 'failed' else 'unfinished, at'} step {found.step})"


def tensorboard(
    run: Run,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", min=0, max=65_535, help="The first free one from 6006 if left out.")
    ] = None,
    storage: Storage = STORAGE,
) -> None:
    """Open TensorBoard on a study, for this machine only (127.0.0.1); Ctrl-C ends it."""
    from bvae_tune.search.folder import TENSORBOARD
    from bvae_tune.search.runs import find_run

    folder = find_run(run, storage) / TENSORBOARD
    if not folder.is_dir():
        raise InputError(f"{folder}: no trial has reported yet")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1"]
    os.execv(sys.executable, [*command, *([] if port is None else ["--port", str(port)])])
