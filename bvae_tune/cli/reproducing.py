"""reproduce fig5-left, fig5-right, fig6."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bvae_tune.cli.arguments import STORAGE, Address, Json, Settings, Storage
from bvae_tune.cli.printing import console, draw_score_and_kl, print_json, working
from bvae_tune.errors import InputError
from bvae_tune.experiments import Scale

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.search.study import Study

app = typer.Typer(
    no_args_is_help=True,
    help="The paper's figures, each a study of its own; the same command again goes on where it was left.",
)

Scaled = Annotated[
    Scale,
    typer.Option(
        help="smoke: two minutes, shows that it works; cpu: an hour on two cores; hours: some of them; paper: for GPUs."
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of the study; the figure's and the scale's if left out.")
]


@app.command("fig5-left")
def fig5_left(
    scale: Scaled = Scale.CPU,
    name: Name = None,
    storage: Storage = STORAGE,
    settings: Settings = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score of every system of the paper beside its own numbers: Fig. 5 left."""
    import pyarrow as pa

    from bvae_tune.experiments.linear_systems import IMAGES
    from bvae_tune.experiments.model_table import learning_curves, read_systems, run_model_table
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.reproductions import systems_figure, systems_table
    from bvae_tune.search.folder import write_table

    out = console()
    shown = None if as_json else out
    study = run_model_table(scale, storage, name, settings or (), address=address, console=shown)
    with _interruptible(study):
        systems = read_systems(study, IMAGES[scale], told=lambda what: None if as_json else out.print(what))
    rows = [system.to_dict() for system in systems]
    path = study.path / "fig5_left.png"
    write_png(systems_figure(systems, learning_curves(study), f"Fig. 5 left ({study.name})"), path)
    write_table(path.with_suffix(".parquet"), pa.Table.from_pylist(rows))
    draw_score_and_kl(study, None if as_json else out)
    if as_json:
        print_json({"systems": rows, "failed": _failures(study), "figure": str(path)})
        return
    out.print(systems_table(systems))
    _tell_failures(out, study)
    out.print(f"Fig. 5 left: {path}, {path.with_suffix('.parquet').name}", soft_wrap=True)


@app.command("fig5-right")
def fig5_right(
    scale: Scaled = Scale.CPU,
    name: Name = None,
    storage: Storage = STORAGE,
    settings: Settings = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score over a grid of β_norm and M, and two reconstructions: Fig. 5 right."""
    from bvae_tune.experiments.reproduction import budget
    from bvae_tune.experiments.score_grid import entangled_and_disentangled, read_score_grid, run_score_grid
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.reproductions import score_grid_figure, score_grid_table

    out = console()
    study = run_score_grid(scale, storage, name, settings or (), address=address, console=None if as_json else out)
    grid = read_score_grid(study)
    path = study.path / "fig5_right.png"
    assert study.best is not None
    title = f"Fig. 5 right on {study.facts['dataset']['name']} ({study.name}; {budget(study, study.best)} a cell)"
    write_png(score_grid_figure(grid, *entangled_and_disentangled(study), title), path)
    draw_score_and_kl(study, None if as_json else out)
    if as_json:
        print_json({**grid.to_dict(), "failed": _failures(study), "figure": str(path)})
        return
    out.print(score_grid_table(grid))
    _tell_failures(out, study)
    out.print(f"Fig. 5 right: {path}", soft_wrap=True)


@app.command("fig6")
def fig6(
    scale: Scaled = Scale.CPU,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Draw the best trial of this study of 2D shapes and its β = 1 instead; nothing is trained.",
        ),
    ] = None,
    image: Annotated[
        int | None, typer.Option(metavar="N", help="The image that is traversed; the first labelled one if left out.")
    ] = None,
    name: Name = None,
    storage: Storage = STORAGE,
    settings: Settings = None,
    address: Address = None,
) -> None:
    """What each latent answers to and does, for a β-VAE, a VAE, DC-IGN and InfoGAN: Fig. 6."""
    from bvae_tune.experiments.portraits import IMAGES, read_portraits, run_portraits
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.reproductions import portraits_figure
    from bvae_tune.search.runs import find_run
    from bvae_tune.search.study import Study

    out = console()
    if run is None:
        study = run_portraits(scale, storage, name, settings or (), image, address=address, console=out)
    else:
        if name or settings or address:
            raise InputError("--run draws a study as it is: leave out --name, --set and --address")
        study = Study.open(find_run(run, storage))
    with _interruptible(study), working(out, "encoding the images"):
        portraits = read_portraits(study, image, IMAGES[scale])
    path = study.path / "fig6.png"
    write_png(portraits_figure(portraits, f"Fig. 6 on {study.facts['dataset']['name']} ({study.name})"), path)
    _tell_failures(out, study)
    out.print(f"Fig. 6: {path}", soft_wrap=True)


def _tell_failures(out: Console, study: Study) -> None:
    for label, reason in _failures(study).items():
        out.print(f"{label} failed: {reason}", soft_wrap=True, markup=False)


def _failures(study: Study) -> dict[str, str | None]:
    """What has no score in a figure, and why; a control that failed and was run again has."""
    latest = {record.label: record for record in (*study.controls, *study.trials)}
    return {label: record.reason for label, record in latest.items() if record.state == "failed"}


@contextmanager
def _interruptible(study: Study) -> Iterator[None]:
    from bvae_tune.experiments.reproduction import SAME_COMMAND
    from bvae_tune.search.runner import SearchInterrupted

    try:
        yield
    except KeyboardInterrupt:
        raise SearchInterrupted(study.path, SAME_COMMAND) from None
