"""The `evergreen` command: its subcommands, and what each of them begins with and may end with."""

import os
import sys
from contextlib import nullcontext
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from typer.core import TyperCommand

from assets import logs
from assets.exceptions import SettingsError
from assets.home import Home
from pipelines import output
from pipelines.commands import deciding, graph, onboarding, reading, serving, upkeep
from pipelines.examples import epilog

__all__ = ["app", "main"]

app = typer.Typer(
    name="evergreen",
    help="Keeps a text model fresh: from dirty records to a registered, gated, scoring model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_COMMANDS = (
    *(onboarding.init, onboarding.check),
    *(graph.run, graph.score, serving.serve),
    *(reading.status, reading.ledger, reading.why, reading.letter, reading.export_site),
    *(deciding.approve, deciding.reject, deciding.rollback, deciding.withdraw, deciding.forget),
    *(upkeep.prune, upkeep.rebuild_registry),
    *(graph.reproduce, graph.replay, graph.demonstrate, graph.simulate),
    *(upkeep.doctor, upkeep.ui, upkeep.metrics),
)
"""In the order of the help."""
_AT_WORK = (
    *("score", "status", "approve", "reject", "rollback", "withdraw", "rebuild-registry", "reproduce", "replay"),
    "export-site",
)
"""Commands that read the home; `run` marks the home as in use itself, like every run of the graph."""
_ANYWHERE = ("doctor",)
"""Commands that do not need a home which can be used."""


def main() -> int:
    """Run the command; returns its exit code.

    0 done, 1 the graph stopped or cannot do it, 2 wrong usage or settings. Raises Stopped on SIGINT or SIGTERM.
    """
    os.umask(0o077)  # the home contains what people have written
    for switch in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "DAGSTER_DISABLE_TELEMETRY"):
        os.environ.setdefault(switch, "true")
    # Threads that spin while waiting make a busy machine several times slower; torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        logs.begin("evergreen")
        sys.exit(app())
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except Exception as error:
        from pipelines.faults import explain

        if (line := explain(error)) is None:
            raise
        output.say(f"evergreen: {line}")
        return 2 if isinstance(error, SettingsError) else 1


def _version(asked: bool) -> None:
    if asked:
        output.show(f"evergreen {version_of('evergreen')}")
        raise typer.Exit


@app.callback()
def _enter(
    domain: Annotated[
        Path | None,
        typer.Option(envvar="EVERGREEN_DOMAIN", help="The folder of a domain; by default the project itself."),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if domain is not None:
        os.environ["EVERGREEN_DOMAIN"] = str(domain.absolute())


class _Command(TyperCommand):
    """A command that looks at its home first, once it is known what is asked: help needs no home."""

    def invoke(self, ctx: Any) -> Any:
        if self.name in _ANYWHERE:
            return super().invoke(ctx)
        home = Home.from_environment()
        home.require_known()
        marked = self.name in _AT_WORK and home.root.exists()
        with home.in_use(f"evergreen-{self.name}-{uuid4().hex[:8]}") if marked else nullcontext():
            return super().invoke(ctx)


for _each in _COMMANDS:
    _name = _each.__name__.replace("_", "-")
    app.command(_name, cls=_Command, epilog=epilog(_name))(_each)
