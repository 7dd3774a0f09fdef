"""The paper's figures, run as studies."""

from __future__ import annotations

from enum import StrEnum


class Scale(StrEnum):
    """How much of a figure is run: `smoke` shows that it works, `cpu` takes an hour on 2 cores, `paper` wants GPUs.

    `hours` is for some hours on 2 cores: longer trainings and the whole `fc` network.
    """

    SMOKE = "smoke"
    CPU = "cpu"
    HOURS = "hours"
    PAPER = "paper"
