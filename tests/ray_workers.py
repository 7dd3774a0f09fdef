"""Ray's workers below this process, by what they do."""

from __future__ import annotations

from contextlib import suppress

import psutil


def workers(title: str) -> list[psutil.Process]:
    """Those whose title begins so, as in "ray::BetaVAETrainable.train"; none of another study of this machine."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
    return found
