"""`evergreen init` and `evergreen check`: what a newcomer with records of their own begins with."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from assets.as_of import at, instant, shifted
from assets.exceptions import SettingsError
from assets.settings import domain_folder, load_domain, load_hints, load_settings

__all__ = ["check", "init"]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the new domain.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A file of your records: CSV with a header, JSON Lines or Parquet.")
    ] = None,
) -> None:
    """Write the folder of a domain that runs, with a guess at your file's columns where one is named."""
    from assets.onboarding.draft import draft, write_draft
    from assets.onboarding.example import EXAMPLE
    from assets.onboarding.guess import guess
    from assets.onboarding.sample import read_sample

    _say(f"Reading the beginning of {source}" if source else "No --from FILE: writing an example for you to change")
    sample = read_sample(source) if source else EXAMPLE
    made = draft(folder.absolute().name, sample, guess(sample, load_hints()))
    write_draft(folder, made)
    for name in made.files:
        _say(f"  {folder / name}")
    for doubt in made.doubts:
        _say(f"Confirm {doubt}")
    checked = f" --source {shlex.quote(str(source))}" if source else " --source FILE"
    _say(f"Open next: {folder / 'configs' / 'domain.yaml'}, then run")
    _say(f"  evergreen --domain {shlex.quote(str(folder))} check{checked}")


def check(
    source: Annotated[
        list[str] | None,
        typer.Option(help="A file, a folder or s3://bucket/prefix; by default EVERGREEN_SOURCES. May be given again."),
    ] = None,
    profile: Annotated[str, typer.Option(help="A file in configs/profiles, without its ending.")] = "quick",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Read a sample of a source through the domain, and show what became of it and what to look at before a run."""
    from assets.ingestion.sources import configured_sources
    from assets.onboarding.check import SAMPLE_ROWS, check_source
    from assets.onboarding.report import report

    domain, sources = load_domain(), source or configured_sources()
    if not sources:
        raise SettingsError("no source: give --source, or set EVERGREEN_SOURCES")
    _say(f"Reading at most {SAMPLE_ROWS:,} {domain.record.many}, and building their tables with dbt (some ten seconds)")
    found = check_source(sources, domain, load_settings(profile))
    for line in report(found, domain):
        _say(line)
    if found.newest:
        after = at(instant(shifted(found.newest, 1)), domain.cadence)
        named = "".join(f" --source {shlex.quote(one)}" for one in sources)
        _say(f"Open next: evergreen --domain {shlex.quote(str(domain_folder()))} run{named} --as-of {after}")
    if as_json:
        typer.echo(json.dumps(asdict(found)))


def _say(line: str) -> None:
    typer.echo(line, err=True)
