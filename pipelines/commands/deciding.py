"""The commands by which a person decides: `approve`, `reject`, `rollback`, `withdraw`, `forget`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from assets.exceptions import SettingsError, describe
from assets.home import Home
from assets.settings import load_domain
from pipelines.commands.options import Json
from pipelines.output import result, show

__all__ = ["approve", "forget", "reject", "rollback", "withdraw"]


By = Annotated[str, typer.Option(help="Who decides; recorded in the ledger.")]
Reason = Annotated[str, typer.Option(help="Why; recorded in the ledger.")]


def approve(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Approve a version that awaits approval: it becomes the champion."""
    _settle(version, "approve", by, reason)


def reject(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Reject a version that awaits approval: the champion stays."""
    _settle(version, "reject", by, reason)


def _settle(version: str, decision: Literal["approve", "reject"], by: str, reason: str) -> None:
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    champion = Succession(Registry(Home.from_environment())).settle(version, decision, by, reason)
    show(f"version {champion.version} is the champion" if champion else "there is no champion yet")


def rollback(
    version: Annotated[str, typer.Argument(help="A version that was champion before.")],
    reason: Reason,
) -> None:
    """Make an earlier version the champion again."""
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    Succession(Registry(Home.from_environment())).rollback(version, reason)
    show(f"version {version} is the champion")


def withdraw(
    name: Annotated[str, typer.Argument(metavar="OBJECT", help="A source object, by key or id.")],
    reason: Reason,
) -> None:
    """Remove a source object and all its records from the next marts and training sets."""
    from pipelines.withdrawal import withdraw as take_out

    done = take_out(Home.from_environment(), name, reason)
    show(
        f"{done.object.key}: {done.object.landed:,} {load_domain().record.many} are withdrawn: {done.object.withdrawn}"
    )
    if done.published:
        show("the published marts contain them until the next run")
    if done.snapshots:
        show(f"built from it, and left as they are: {', '.join(done.snapshots)}")
    if done.versions:
        show(f"trained on those: version {', '.join(done.versions)}")
    if done.unknown:
        gone = "its training set was removed (reproducible in configs/retention.yaml)"
        show(f"unknown for version {', '.join(done.unknown)}: {gone}")


def forget(
    record_ids: Annotated[
        list[str] | None, typer.Argument(metavar="RECORD_ID", help="The ids of the records, any number of them.")
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A file with an id on each line; - for stdin."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove every row of some records from the home, and keep them out; the ledger has no content of them."""
    from assets.retention.forget import forget as remove
    from assets.retention.forget import look

    home = Home.from_environment()
    done = (look if dry_run else remove)(home, [*(record_ids or []), *_lines(listed)])
    lines = [f"{found.rows:>8}  {found.path}" for found in done.found if not found.is_open]
    lines += [f"still in the source, and not Evergreen's to change: {key}" for key in done.sources]
    lines.append(f"{'would be: ' if dry_run else ''}{done.sentence}")
    result(asdict(done) | {"dry_run": dry_run}, "\n".join(lines), as_json=as_json)


def _lines(file: Path | None) -> list[str]:
    """The lines of a file, or of stdin, that are not blank. Raises SettingsError when it cannot be read as UTF-8."""
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--from {file}: {describe(error)}; give a text file with an id on each line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
