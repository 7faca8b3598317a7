"""`evergreen init` and `evergreen check`: getting started with one's own records."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from assets.as_of import at, instant, shifted
from assets.exceptions import SettingsError
from assets.settings import domain_folder, load_domain, load_hints, load_settings
from pipelines.commands.options import Json, SourcesOrConfigured
from pipelines.output import result, say, show

__all__ = ["check", "init"]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the new domain.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A file of your records: CSV with a header, JSON Lines or Parquet.")
    ] = None,
) -> None:
    """Write the folder of a working domain, drafted from your file's columns if you name one."""
    from assets.onboarding.draft import draft, write_draft
    from assets.onboarding.example import EXAMPLE
    from assets.onboarding.guess import guess
    from assets.onboarding.sample import read_sample

    say(f"Reading the beginning of {source}" if source else "No --from FILE: writing an example for you to change")
    sample = read_sample(source) if source else EXAMPLE
    drafted = draft(folder.absolute().name, sample, guess(sample, load_hints()))
    write_draft(folder, drafted)
    for name in drafted.files:
        show(f"  {folder / name}")
    for doubt in drafted.doubts:
        show(f"Confirm {doubt}")
    checked = f" --source {shlex.quote(str(source))}" if source else " --source FILE"
    say(f"Open next: {folder / 'configs' / 'domain.yaml'}, then run")
    say(f"  evergreen --domain {shlex.quote(str(folder))} check{checked}")


def check(
    source: SourcesOrConfigured = None,
    profile: Annotated[str, typer.Option(help="A file in configs/profiles, without its ending.")] = "quick",
    as_json: Json = False,
) -> None:
    """Read a sample of a source through the domain, and show the result and what to check before a run."""
    from assets.ingestion.sources import configured_sources
    from assets.onboarding.check import SAMPLE_ROWS, check_source
    from assets.onboarding.report import report

    domain, sources = load_domain(), source or configured_sources()
    if not sources:
        raise SettingsError("no source: give --source, or set EVERGREEN_SOURCES")
    say(f"Reading at most {SAMPLE_ROWS:,} {domain.record.many}, and building their tables with dbt (some ten seconds)")
    checked = check_source(sources, domain, load_settings(profile))
    result(asdict(checked), "\n".join(report(checked, domain)), as_json=as_json)
    if checked.newest:
        after = at(instant(shifted(checked.newest, 1)), domain.cadence)
        named = "".join(f" --source {shlex.quote(one)}" for one in sources)
        say(f"Open next: evergreen --domain {shlex.quote(str(domain_folder()))} run{named} --as-of {after}")
