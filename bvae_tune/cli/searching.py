"""search, resume, confirm, plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bvae_tune.cli.arguments import STORAGE, Address, Json, Run, Settings, Space, Storage, Trials, with_trials
from bvae_tune.cli.printing import console, draw_score_and_kl, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.search.study import Study


def search(
    space: Space,
    trials: Trials = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the study; one with the time if left out.")
    ] = None,
    storage: Storage = STORAGE,
    settings: Settings = None,
    address: Address = None,
) -> None:
    """Search the β, the M, and whatever else a search space names, that disentangle the images best."""
    from bvae_tune.search import runner

    out = console()
    study = runner.search(
        space, with_trials(settings, trials), name=name, storage=storage, address=address, console=out
    )
    _show(out, study)


def resume(
    run: Run,
    trials: Annotated[int, typer.Option(metavar="+N", help="So many trials more than the study was to have.")] = 0,
    storage: Storage = STORAGE,
    address: Address = None,
) -> None:
    """Go on with an interrupted study from its last checkpoints, or extend a finished one."""
    from bvae_tune.search import runner
    from bvae_tune.search.runs import find_run
    from bvae_tune.search.study import Study
    from bvae_tune.wording import command

    out, path = console(), find_run(run, storage)
    if trials == 0 and Study.open(path).finished:
        more = f"{command('resume', path)} --trials +10"
        out.print(f"Nothing is left to run; for ten trials more: {more}", markup=False, soft_wrap=True)
    _show(out, runner.resume(path, trials, address=address, console=out))


def confirm(
    run: Run,
    seeds: Annotated[int, typer.Option(metavar="N", help="Fresh seeds for each of the two.")] = 4,
    storage: Storage = STORAGE,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train the best configuration and β = 1 again on fresh seeds, in pairs: how lucky was the best?"""
    from bvae_tune.reporting.tables import confirmation
    from bvae_tune.search.confirm import confirm as run_confirmation
    from bvae_tune.search.runs import find_run
    from bvae_tune.search.study import Study
    from bvae_tune.wording import command

    out, path = console(), find_run(run, storage)
    found = run_confirmation(path, seeds, address=address, console=None if as_json else out)
    if as_json:
        print_json(found.to_dict())
    else:
        out.print(confirmation(found))
        more = f"{command('confirm', path)} --seeds {2 * (len(found.best) + found.failed)}"
        out.print(f"Twice the pairs tell more surely, and keep these: {more}", markup=False, soft_wrap=True)
    draw_score_and_kl(Study.open(path), None if as_json else out)


def plan(
    space: Space,
    trials: Trials = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Show the resolved search space and what it will take, before anything starts."""
    from bvae_tune.reporting.outcomes import plan_table
    from bvae_tune.search.building import open_images
    from bvae_tune.search.plan import make_plan
    from bvae_tune.space import load_space

    config = load_space(space, with_trials(settings, trials))
    out = console()
    open_images(config, None if as_json else out)
    if as_json:
        print_json({"space": config.to_dict(), "plan": make_plan(config).to_dict()})
        return
    with out.status("measuring a few steps"):
        found = make_plan(config)
    out.print(config.to_yaml(), markup=False, soft_wrap=True)
    out.print(plan_table(found))


def _show(out: Console, study: Study) -> None:
    from bvae_tune.reporting.tables import best
    from bvae_tune.search.confirm import read_confirmation

    out.print(best(study, read_confirmation(study)))
    draw_score_and_kl(study, out)
