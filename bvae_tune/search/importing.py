"""Importing libraries so large that a person waits for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Python's garbage collector off: it would look hundreds of times through what an import makes, all of which stays.

    A worker's imports of Ray Tune and torch take a seventh less.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
