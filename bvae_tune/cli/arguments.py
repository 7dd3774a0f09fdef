"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bvae_tune.errors import InputError

Run = Annotated[str, typer.Argument(metavar="RUN", help="A study's folder, its name below --storage, or `latest`.")]
Storage = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the studies.")]
Space = Annotated[
    str,
    typer.Option(
        metavar="FILE|NAME",
        help="Search space: a YAML file or a packaged name (shapes, shapes_paper, chairs, faces, celeba, dcign, ...).",
    ),
]
Trials = Annotated[int | None, typer.Option(metavar="N", help="Trials, in place of search.trials.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the search space; as often as needed."),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Join the Ray cluster there (or `auto`); otherwise one is started."),
]
Weights = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A study's folder, its name below --storage, `latest`, or a file of weights in a study's folder.",
    ),
]
Trial = Annotated[
    str | None,
    typer.Option(metavar="N|LABEL", help="Which trial, or which baseline (as `beta=1`); the best trial otherwise."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

STORAGE = Path("runs")


def with_trials(settings: list[str] | None, trials: int | None) -> list[str]:
    """The settings, with --trials as the last of them; InputError where it asks for none."""
    if trials is not None and trials < 1:
        raise InputError(f"--trials {trials}: give a number of trials of at least 1")
    return [*(settings or []), *([] if trials is None else [f"search.trials={trials}"])]
