"""The commands that read a home: `status`, `ledger`, `why`, `letter`, `export-site`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from assets.exceptions import RegistryError
from assets.home import Home
from pipelines.commands.options import Json, to_as_of
from pipelines.output import result, say, show

__all__ = ["export_site", "ledger", "letter", "status", "why"]


def status(as_json: Json = False) -> None:
    """Show the champion, the challenger, the records, the last run and the last decision."""
    from pipelines.summary import status as current

    _show(current(Home.from_environment()), as_json)


def ledger(
    at: Annotated[
        str | None,
        typer.Option(callback=to_as_of, metavar="YYYY-MM-DD", help="Show only who was champion then, and why."),
    ] = None,
    verified: Annotated[
        bool, typer.Option("--verify", help="Check for entries that were edited, removed or forged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show every verdict, approval, alias move and decision, oldest first."""
    from assets.registry.registry import Registry
    from assets.registry.verification import verify

    registry = Registry(Home.from_environment())
    verification = verify(registry) if verified else None
    if verification and verification.problem:
        say(f"evergreen: ledger {registry.ledger}: {verification.problem}")
        raise typer.Exit(1)
    champion = registry.ledger.champion_at(at) if at else None
    entries = ([champion] if champion else []) if at else registry.ledger.entries()
    if as_json:
        show(json.dumps([entry.as_dict() for entry in entries]))
    for entry in () if as_json else entries:
        show(f"{entry.seq:>5}  {entry.as_of}  {entry.kind:<11} {_headline(entry.body)}")
    if verification:
        (say if as_json else show)(verification.sentence)
    if at and not champion:
        say(f"there was no champion on {at}")


def _headline(body: dict[str, Any]) -> str:
    """An entry on one line: the decision, the version it is about, and why."""
    what = " ".join(str(body[name]) for name in ("action", "decision", "job", "key") if name in body)
    training = f" ({body['training_id'][:8]})" if "training_id" in body else ""
    version = f"version {body['version']}{training}" if "version" in body else ""
    why = "; ".join(body.get("reasons", [])) or body.get("reason", "") or body.get("error", "")
    return " ".join(part for part in (what, version) if part) + f": {why}"


def why(
    version: Annotated[str, typer.Argument(help="A version that the gate has judged.")], as_json: Json = False
) -> None:
    """Explain the verdict on a version: each rule, and the nearest change of a threshold that would have turned it."""
    from assets.front.history import History
    from assets.front.why import lines
    from assets.front.why import why as tell

    home = Home.from_environment()
    story = tell(home, History.of(home), version)
    if story is None:
        raise RegistryError(f"no version {version!r} was judged; `evergreen ledger` shows every verdict")
    result(asdict(story), "\n".join(lines(story)), as_json=as_json)


def letter(
    folder: Annotated[
        Path | None, typer.Option("--output", help="A folder; by default letters, in the home's reports.")
    ] = None,
) -> None:
    """Write a letter about last night as HTML and as Markdown, for mail or chat, and print the Markdown."""
    from pipelines.letters import write

    written = write(Home.from_environment(), folder)
    show(written.markdown.read_text().rstrip("\n"))
    say(f"written: {written.markdown}, {written.page}")


def export_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier export.")],
    texts: Annotated[bool, typer.Option("--texts", help="Include texts, if configs/front.yaml shows them.")] = False,
    reports: Annotated[bool, typer.Option(help="Include the last night's report by Evidently, and Data Docs.")] = True,
) -> None:
    """Write the front door as static files, which also work from a folder."""
    from pipelines.letters import copy_site

    site = copy_site(Home.from_environment(), folder, texts=texts, reports=reports)
    show(f"{site.pages:,} pages, {site.bytes / 1e6:.1f} MB: {site.folder / 'index.html'}")


def _show(values: dict[str, Any], as_json: bool) -> None:
    lines = [f"{name.replace('_', ' '):<14}{_plain(value)}" for name, value in values.items()]
    result(values, "\n".join(lines), as_json=as_json)


def _plain(value: Any) -> str:
    if value is None:
        return "none yet"
    if not isinstance(value, dict):
        return str(value)
    if "reason" in value:
        return f"{value['decision']}: {value['reason']}"
    return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in value.items())
