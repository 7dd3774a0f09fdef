"""What a person sees while a dataset is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels_file import check_labels_file
from bvae_tune.data.sources import open_dataset

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.space import StudyConfig

_PLAIN_LINES = 5


@contextmanager
def building(console: Console | None) -> Iterator[Callable[[int, int], None]]:
    """A function that takes (images done, images in all): a bar on a terminal, a few lines elsewhere.

    Nothing is shown where it is never called, or without a console.
    """
    what = "building the images"
    if console is not None and console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        return
    told = 0

    def line(done: int, total: int) -> None:
        nonlocal told
        if console is not None and done * _PLAIN_LINES // total > told:
            told = done * _PLAIN_LINES // total
            console.print(f"{what}: {100 * done // total}%")

    yield line


def open_images(config: StudyConfig, console: Console | None) -> ImageStore:
    """The images of a study, built where they are missing, which is shown; a wrong labels file is told before.

    Raises:
        InputError, RunError: see `check_labels_file` and `open_dataset`.
    """
    check_labels_file(config.labels.path)
    with building(console) as progress:
        return open_dataset(config.dataset, progress)
