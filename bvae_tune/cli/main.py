"""`bvae-tune`: the commands by group, and what each kind of error exits with."""

from __future__ import annotations

import errno
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bvae_tune.cli import data, looking, reproducing, results, searching
from bvae_tune.errors import NO_SPACE, InputError, RunError

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Commands(TyperGroup):
    """Turns errors meant for a reader into a message and an exit code; anything else is a bug and keeps its trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            message, code = str(error), 2
        except RunError as error:
            message, code = str(error), 1
        except OSError as error:
            if error.errno in NO_SPACE:
                message, code = f"{error.filename or 'the disk'}: {error.strerror}; free some space and run it again", 1
            elif error.errno in _NOT_ALLOWED and error.filename:
                message, code = f"{error.filename}: {error.strerror}; give a place that you may write to", 2
            else:
                raise
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "interrupted", err=True)
            raise typer.Exit(130) from None
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(message, err=True)
        raise typer.Exit(code)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bvae-tune {metadata.version('bvae-tune')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the β and the latent size M with which a β-VAE disentangles your images."""


for panel, commands in {
    "Search": (searching.search, searching.resume, searching.confirm, searching.plan),
    "Results": (results.status, results.best, results.trials),
    "Look inside": (looking.evaluate, looking.traverse, looking.tensorboard),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel="Data")
app.add_typer(reproducing.app, name="reproduce", rich_help_panel="The paper")


def main() -> None:
    """The program's entry."""
    app(prog_name="bvae-tune")


if __name__ == "__main__":
    main()
