"""The commands that keep a home and its machine in order: `prune`, `rebuild-registry`, `doctor`, `ui`, `metrics`."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from assets.home import Home
from assets.settings import load_settings
from pipelines.commands.options import Json, Profile, SourcesOrConfigured
from pipelines.output import result, say, show

__all__ = ["doctor", "metrics", "prune", "rebuild_registry", "ui"]


class Process(StrEnum):
    """A process of `evergreen ui`."""

    CODE = "code"
    DAEMON = "daemon"
    FRONT = "front"
    DAGSTER = "dagster"
    MLFLOW = "mlflow"


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Remove at once what nothing needs, however lately it was marked.")
    ] = False,
    profile: Profile = "quick",
    as_json: Json = False,
) -> None:
    """Remove what nothing needs any more, by configs/retention.yaml, and record it in the ledger."""
    policy = load_settings(profile).retention
    from assets.retention.definitions import forget_runs
    from assets.retention.prune import preview, size
    from assets.retention.prune import prune as remove
    from pipelines.instance import open_instance

    home = Home.from_environment()
    pruned = (preview if dry_run else remove)(home, policy, now=now)
    forgotten = []
    if home.dagster.exists():
        with open_instance(home) as instance:
            forgotten = forget_runs(instance, home, policy.runs, dry_run=dry_run)
    lines = [f"{size(item.bytes):>10}  {item.path}: {item.why} ({item.setting})" for item in pruned.removed]
    lines += [f"{size(item.bytes):>10}  {item.path}: marked, {item.why} ({item.setting})" for item in pruned.marked]
    lines.append(f"{'would be: ' if dry_run else ''}{pruned.sentence}; {len(forgotten)} Dagster runs (runs)")
    value = asdict(pruned) | {"bytes": pruned.bytes, "runs": forgotten, "dry_run": dry_run}
    result(value, "\n".join(lines), as_json=as_json)


def rebuild_registry() -> None:
    """Register again what MLflow has lost, from the lake and the ledger."""
    from assets.registry.rebuild import rebuild_registry as rebuild

    rebuilt = rebuild(Home.from_environment())
    for version in rebuilt.versions:
        show(f"version {version.version}: training {version.training_id} of {version.as_of}")
    for what in rebuilt.left_out:
        show(f"left out: {what}")


def doctor(
    source: SourcesOrConfigured = None,
    profile: Profile = "quick",
    as_json: Json = False,
) -> None:
    """Look at the machine, the home, the settings and the sources; exit code 1 when something fails."""
    from assets.ingestion.sources import configured_sources
    from pipelines.doctor import examine
    from pipelines.doctor import show as show_finding

    findings = []
    for finding in examine(Home.from_environment, source or configured_sources(), profile):
        findings.append(finding)
        if not as_json:
            show_finding(finding)
    if as_json:
        show(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def ui(
    names: Annotated[
        list[Process] | None,
        typer.Argument(help="Only these processes, where machines share a home; without them all of this machine's."),
    ] = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the front door in the browser.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port of the front door; a free one is taken if it is in use."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen: 0.0.0.0 in a container that publishes on 127.0.0.1.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Serve the front door, Dagster and MLflow to this machine's browser until Ctrl-C.

    Where machines share a home, each can have some of the processes: `evergreen ui front dagster`.
    """
    from pipelines.ui import serve

    serve(Home.from_environment(), say, show, host, port, opens, [name.value for name in names or ()])


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; with 0 a free one is taken.")] = 9464,
    host: Annotated[str, typer.Option(help="Where to listen: 0.0.0.0 in a container.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token of a scrape; by default metrics-token, in the home.")
    ] = None,
) -> None:
    """Serve figures of the home to Prometheus, as /metrics, until Ctrl-C."""
    from pipelines.metrics import listening, serve
    from pipelines.metrics import token_file as file_of_token

    home = Home.from_environment()
    token = file_of_token(home, token_file)
    with listening(host, port) as found:
        show(f"http://{host}:{found.getsockname()[1]}/metrics")
        say(f"A scrape sends the token in {token}; Ctrl-C stops.")
        serve(home, found, token.read_text().strip())
