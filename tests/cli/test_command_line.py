"""The command line is a promise: what it offers is frozen here, word for word. Seed: none."""

from __future__ import annotations

import subprocess
import sys

import typer.main

from bvae_tune.cli.main import app

COMMAND_LINE = {
    "search --space --trials --name --storage --set --address",
    "resume RUN --trials --storage --address",
    "confirm RUN --seeds --storage --address --json",
    "plan --space --trials --set --json",
    "status RUN --storage --json",
    "best RUN --storage --json",
    "trials RUN --storage --json --parquet",
    "evaluate RUN --trial --set --storage --json",
    "traverse RUN --trial --image --image-seed --latents --output --storage",
    "tensorboard RUN --port --storage",
    "data build [shapes|PATH] --size --channels --pattern",
    "data info [shapes|PATH] --size --channels --pattern --sheet --json",
    "reproduce fig5-left --scale --name --storage --set --address --json",
    "reproduce fig5-right --scale --name --storage --set --address --json",
    "reproduce fig6 --scale --run --image --name --storage --set --address",
}


def commands(group: object, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= commands(command, f"{name} ")
        else:
            parts = [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in command.params]
            found.add(prefix + " ".join([name, *(part for part in parts if part != "--help")]))
    return found


def test_the_command_line_is_what_it_was() -> None:
    assert commands(typer.main.get_command(app)) == COMMAND_LINE


def test_help_loads_no_library_of_the_work() -> None:
    heavy = ("torch", "ray", "optuna", "pyarrow", "matplotlib", "pydantic", "numpy", "yaml")
    script = (
        "import sys\nfrom bvae_tune.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "traverse" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
