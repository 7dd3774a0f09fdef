"""data build, data info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bvae_tune.cli.arguments import Json
from bvae_tune.cli.printing import console, output_file, print_json
from bvae_tune.errors import InputError

if TYPE_CHECKING:
    from bvae_tune.data.sources import DatasetConfig

app = typer.Typer(no_args_is_help=True, help="Images: build the store of a dataset, and look at it.")

Source = Annotated[str, typer.Argument(metavar="[shapes|FILE]", help="The 2D shapes, an .npz file or an .arrow store.")]


@app.command()
def build(source: Source = "shapes") -> None:
    """Build a dataset's store in the cache, where it is not there yet or damaged."""
    from bvae_tune.data.image_store import DamagedStoreError
    from bvae_tune.data.sources import open_dataset
    from bvae_tune.search.building import building

    out, dataset = console(), _dataset(source)
    with building(out) as progress:
        store = open_dataset(dataset, progress)
        try:
            store.verify()
        except DamagedStoreError:
            if dataset.source == "arrow":
                raise
            out.print(f"{store.path}: damaged; built anew", soft_wrap=True)
            store.path.unlink()
            store = open_dataset(dataset, progress)
    out.print(f"{store.count:,} images in {store.path}", soft_wrap=True)


@app.command()
def info(
    source: Source = "shapes",
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG; beside the store if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Check a dataset and print its facts; draw a sheet of samples."""
    from bvae_tune.data.facts import read_facts
    from bvae_tune.data.sources import open_dataset
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.sheets import sample_sheet
    from bvae_tune.reporting.tables import data_info
    from bvae_tune.search.building import building

    out = console()
    with building(None if as_json else out) as progress:
        store = open_dataset(_dataset(source), progress)
    path = output_file(sheet or store.path.with_suffix(".png"), "--sheet")
    facts = read_facts(store)
    write_png(sample_sheet(store), path)
    if as_json:
        print_json({**facts.to_dict(), "sheet": str(path)})
    else:
        words = {"mean pixel": f"{facts.mean_pixel:.4f}", "checksum": facts.damage or "matches the content"}
        out.print(data_info(store, words, facts.equal))
        out.print(f"samples: {path}", soft_wrap=True)
    if facts.damage:
        raise typer.Exit(2)


def _dataset(source: str) -> DatasetConfig:
    from bvae_tune.data.sources import DatasetConfig

    if source == "shapes":
        return DatasetConfig()
    match Path(source).suffix:
        case ".npz":
            return DatasetConfig("npz", source)
        case ".arrow":
            return DatasetConfig("arrow", source)
    raise InputError(f"{source}: give shapes, an .npz file or an .arrow store")
