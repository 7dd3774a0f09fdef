"""data build, data info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bvae_tune.cli.arguments import Json
from bvae_tune.cli.printing import console, output_file, print_json

app = typer.Typer(no_args_is_help=True, help="Images: build the store of a dataset, and look at it.")

Source = Annotated[
    str,
    typer.Argument(
        metavar="[shapes|PATH]",
        help="The 2D shapes; a folder of images, or CelebA's; an .npz file; a .parquet, .feather or .arrow table with a"
        " column image; an .arrow store.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="dataset.size: cut the square in an image's middle (folder, CelebA, table) and scale it."
    ),
]
Channels = Annotated[
    int | None, typer.Option(metavar="1|3", help="dataset.channels: make images grey (1) or of colour (3).")
]
Pattern = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="dataset.pattern: read factors from a folder's file names, by named groups."),
]


@app.command()
def build(source: Source = "shapes", size: Size = None, channels: Channels = None, pattern: Pattern = None) -> None:
    """Build a dataset's store in the cache, where it is not there yet or damaged."""
    from bvae_tune.data.image_store import DamagedStoreError
    from bvae_tune.data.sources import dataset_at, open_dataset
    from bvae_tune.search.building import building

    out, dataset = console(), dataset_at(source, size, channels, pattern)
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
    size: Size = None,
    channels: Channels = None,
    pattern: Pattern = None,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG; beside the store if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Check a dataset and print its facts; draw a sheet of samples."""
    from bvae_tune.data.facts import read_facts
    from bvae_tune.data.sources import dataset_at, open_dataset
    from bvae_tune.reporting.figures import write_png
    from bvae_tune.reporting.sheets import sample_sheet
    from bvae_tune.reporting.tables import data_info
    from bvae_tune.search.building import building

    out = console()
    with building(None if as_json else out) as progress:
        store = open_dataset(dataset_at(source, size, channels, pattern), progress)
    path = output_file(sheet or store.path.with_suffix(".png"), "--sheet", ".png")
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
