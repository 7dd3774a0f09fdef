"""What is shown while a dataset is built. Seed: none."""

from __future__ import annotations

import io

from rich.console import Console

from bvae_tune.search.building import building


def shown(terminal: bool, calls: int) -> str:
    out = io.StringIO()
    with building(Console(file=out, force_terminal=terminal, width=80)) as progress:
        for done in range(calls):
            progress(done + 1, 100)
    return out.getvalue()


def test_plain_lines_where_no_terminal_is() -> None:
    assert shown(False, 100).splitlines() == [f"building the images: {share}%" for share in (20, 40, 60, 80, 100)]


def test_a_bar_on_a_terminal() -> None:
    assert "━" in shown(True, 100)


def test_nothing_where_nothing_is_built() -> None:
    assert shown(False, 0) == ""
    assert "building" not in shown(True, 0)
    with building(None) as progress:
        progress(1, 1)
