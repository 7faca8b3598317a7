"""The `evergreen` command, a thin layer over the graph's job and the stages' functions."""

import json
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import asdict
from datetime import date
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import typer
from typer.core import TyperCommand

from assets.as_of import Cadence, parse
from assets.exceptions import RegistryError, SettingsError
from assets.lake import Home
from assets.settings import load_domain, load_policy, load_settings
from pipelines import onboarding, output
from pipelines.examples import epilog

__all__ = ["app", "main"]

app = typer.Typer(
    name="evergreen",
    help="Keeps a text model fresh: from dirty records to a registered, gated, scoring model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_AT_WORK = (
    *("score", "status", "approve", "reject", "rollback", "withdraw", "rebuild-registry", "reproduce", "replay"),
    "export-site",
)
"""Commands that read the home; `run` marks the home as in use itself, like every run of the graph."""
_ANYWHERE = ("doctor",)
"""Commands that do not need a home which can be used."""
_POLICIES = ("never", "every-step", "monthly", "on-drift", "cost-aware", "probe")

_say = output.say

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


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
        sys.exit(app())
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except Exception as error:
        from pipelines.faults import explain

        if (line := explain(error)) is None:
            raise
        _say(f"evergreen: {line}")
        return 2 if isinstance(error, SettingsError) else 1


app.command()(onboarding.init)
app.command()(onboarding.check)


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


def _date(text: str) -> str:
    return _parsed(text, "day")


def _as_of(text: str | None) -> str | None:
    return None if text is None else _parsed(text, load_domain().cadence)


def _parsed(text: str, cadence: Cadence) -> str:
    try:
        return parse(text, cadence)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _days(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*d", text):
        raise typer.BadParameter(f"{text!r} is not a number of days; write 7d")
    return text


@app.command()
def run(
    source: Annotated[list[str], typer.Option(help="A file, a folder or s3://bucket/prefix. May be given again.")],
    as_of: Annotated[
        str,
        typer.Option(
            callback=_as_of,
            metavar="YYYY-MM-DD",
            help="The as-of date of the run; YYYY-MM-DDTHH, in UTC, if the domain's cadence is an hour.",
        ),
    ],
    profile: Annotated[str, typer.Option(help="A file in configs/profiles, without its ending.")] = "quick",
    history: Annotated[
        bool,
        typer.Option("--history", help="Treat the sources' objects as history, known by their records' dates."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the whole graph: ingest, train, evaluate, gate, score and decide."""
    load_settings(profile)
    _say("Loading the graph")
    from pipelines.faults import explain_run
    from pipelines.progress import progress_on_stderr
    from pipelines.runs import run_graph
    from pipelines.summary import summarize, table

    home, sources = Home.from_environment(), [_absolute(s) for s in source]
    with progress_on_stderr() as progress:
        outcome = run_graph(home, sources, as_of, profile, progress, history=history)
    if outcome.failure:
        _say(f"evergreen: {explain_run(outcome.failure, home)} (log: {home.root / 'logs' / outcome.run_id}.log)")
        raise typer.Exit(1)
    summary = summarize(home, as_of, outcome)
    _say("")
    output.result(summary, table(summary, home.domain), as_json=as_json)


def _absolute(source: str) -> str:
    return source if source.startswith("s3://") else str(Path(source).absolute())


@app.command()
def score(
    source: Annotated[Path, typer.Option("--input", help="A file like the domain's sources; labels are not needed.")],
    answers: Annotated[Path, typer.Option("--output", help="The file to write, with the ending .parquet or .csv.")],
    profile: Annotated[
        str, typer.Option(envvar="EVERGREEN_PROFILE", help="A file in configs/profiles, without its ending.")
    ] = "quick",
) -> None:
    """Score the records of a file with the champion: one output row per input row."""
    settings, home = load_settings(profile), Home.from_environment()
    from assets.scoring.request import look

    look(source, answers, settings.ingestion, home.domain)
    from assets.scoring.files import score_file

    scored = score_file(home, source, answers, settings)
    output.show(f"{scored.rows:,} rows, {scored.scored:,} scored by version {scored.model_version}: {answers}")
    if scored.unscored:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in scored.unscored.items())
        output.show(f"{sum(scored.unscored.values()):,} not scored: {reasons}")


@app.command()
def status(as_json: Json = False) -> None:
    """Show the champion, the challenger, the records, the last run and the last decision."""
    from pipelines.summary import status as current

    _show(current(Home.from_environment()), as_json)


@app.command()
def ledger(
    at: Annotated[
        str | None,
        typer.Option(callback=_as_of, metavar="YYYY-MM-DD", help="Show only who was champion then, and why."),
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
        _say(f"evergreen: ledger {registry.home.ledger}: {verification.problem}")
        raise typer.Exit(1)
    champion = registry.ledger.champion_at(at) if at else None
    entries = ([champion] if champion else []) if at else registry.ledger.entries()
    if as_json:
        output.show(json.dumps([entry.as_dict() for entry in entries]))
    for entry in () if as_json else entries:
        output.show(f"{entry.seq:>5}  {entry.as_of}  {entry.kind:<11} {_headline(entry.body)}")
    if verification:
        (_say if as_json else output.show)(verification.sentence)
    if at and not champion:
        _say(f"there was no champion on {at}")


def _headline(body: dict[str, Any]) -> str:
    """An entry on one line: the decision, the version it is about, and why."""
    what = " ".join(str(body[name]) for name in ("action", "decision", "job", "key") if name in body)
    training = f" ({body['training_id'][:8]})" if "training_id" in body else ""
    version = f"version {body['version']}{training}" if "version" in body else ""
    why = "; ".join(body.get("reasons", [])) or body.get("reason", "") or body.get("error", "")
    return " ".join(part for part in (what, version) if part) + f": {why}"


@app.command()
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
    output.result(asdict(story), "\n".join(lines(story)), as_json=as_json)


@app.command()
def letter(
    folder: Annotated[
        Path | None, typer.Option("--output", help="A folder; by default letters, in the home's reports.")
    ] = None,
) -> None:
    """Write a letter about last night as HTML and as Markdown, for mail or chat, and print the Markdown."""
    from pipelines.letters import write

    written = write(Home.from_environment(), folder)
    output.show(written.markdown.read_text().rstrip("\n"))
    _say(f"written: {written.markdown}, {written.page}")


@app.command()
def export_site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier export.")],
    texts: Annotated[bool, typer.Option("--texts", help="Include texts, if configs/front.yaml shows them.")] = False,
    reports: Annotated[bool, typer.Option(help="Include the last night's report by Evidently, and Data Docs.")] = True,
) -> None:
    """Write the front door as static files, which also work from a folder."""
    from pipelines.letters import copy_site

    site = copy_site(Home.from_environment(), folder, texts=texts, reports=reports)
    output.show(f"{site.pages:,} pages, {site.bytes / 1e6:.1f} MB: {site.folder / 'index.html'}")


By = Annotated[str, typer.Option(help="Who decides; recorded in the ledger.")]
Reason = Annotated[str, typer.Option(help="Why; recorded in the ledger.")]


@app.command()
def approve(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Approve a version that awaits approval: it becomes the champion."""
    _settle(version, "approve", by, reason)


@app.command()
def reject(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Reject a version that awaits approval: the champion stays."""
    _settle(version, "reject", by, reason)


def _settle(version: str, decision: Literal["approve", "reject"], by: str, reason: str) -> None:
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    champion = Succession(Registry(Home.from_environment())).settle(version, decision, by, reason)
    output.show(f"version {champion.version} is the champion" if champion else "there is no champion yet")


@app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="A version that was champion before.")],
    reason: Reason,
) -> None:
    """Make an earlier version the champion again."""
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    Succession(Registry(Home.from_environment())).rollback(version, reason)
    output.show(f"version {version} is the champion")


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(metavar="OBJECT", help="A source object, by key or id.")],
    reason: Reason,
) -> None:
    """Remove a source object and all its records from the next marts and training sets."""
    from pipelines.withdrawal import withdraw as take_out

    done = take_out(Home.from_environment(), name, reason)
    output.show(
        f"{done.object.key}: {done.object.landed:,} {load_domain().record.many} are withdrawn: {done.object.withdrawn}"
    )
    if done.published:
        output.show("the published marts contain them until the next run")
    if done.snapshots:
        output.show(f"built from it, and left as they are: {', '.join(done.snapshots)}")
    if done.versions:
        output.show(f"trained on those: version {', '.join(done.versions)}")
    if done.unknown:
        gone = "its training set was removed (reproducible in configs/retention.yaml)"
        output.show(f"unknown for version {', '.join(done.unknown)}: {gone}")


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    profile: Annotated[
        str, typer.Option(envvar="EVERGREEN_PROFILE", help="A file in configs/profiles, without its ending.")
    ] = "quick",
    as_json: Json = False,
) -> None:
    """Remove what nothing needs any more, by configs/retention.yaml, and record it in the ledger."""
    policy = load_settings(profile).retention
    from assets.retention.definitions import forget_runs
    from assets.retention.prune import Pruned, plan, size
    from assets.retention.prune import prune as remove
    from pipelines.instance import open_instance

    home = Home.from_environment()
    pruned = Pruned(tuple(plan(home, policy))) if dry_run else remove(home, policy)
    forgotten = []
    if home.dagster.exists():
        with open_instance(home) as instance:
            forgotten = forget_runs(instance, home, policy.runs, dry_run=dry_run)
    lines = [f"{size(item.bytes):>10}  {item.path}: {item.why} ({item.setting})" for item in pruned.removed]
    lines.append(f"{'would be: ' if dry_run else ''}{pruned.sentence}; {len(forgotten)} Dagster runs (runs)")
    value = asdict(pruned) | {"bytes": pruned.bytes, "runs": forgotten, "dry_run": dry_run}
    output.result(value, "\n".join(lines), as_json=as_json)


@app.command()
def rebuild_registry() -> None:
    """Register again what MLflow has lost, from the lake and the ledger."""
    from assets.registry.rebuild import rebuild_registry as rebuild

    rebuilt = rebuild(Home.from_environment())
    for version in rebuilt.versions:
        output.show(f"version {version.version}: training {version.training_id} of {version.as_of}")
    for what in rebuilt.left_out:
        output.show(f"left out: {what}")


@app.command()
def reproduce(
    version: Annotated[str, typer.Argument(help="A version of the registry.")], as_json: Json = False
) -> None:
    """Train a version again from its recorded inputs, and say whether it is the same.

    Exit code 0 for bitwise and equivalent, 1 for changed and impossible.
    """
    from assets.registry.reproduction import reproduce as make_again
    from pipelines.runs import run_worker

    reproduction = make_again(Home.from_environment(), version, run_worker)
    line = f"version {reproduction.version}: {reproduction.verdict}: {reproduction.reason}"
    output.result(asdict(reproduction), line, as_json=as_json)
    if not reproduction.succeeded:
        raise typer.Exit(1)


@app.command()
def replay(
    source: Annotated[list[str], typer.Option(help="A file, a folder or s3://bucket/prefix. May be given again.")],
    start: Annotated[str, typer.Option("--from", callback=_as_of, metavar="YYYY-MM-DD", help="The first step.")],
    end: Annotated[str, typer.Option("--to", callback=_as_of, metavar="YYYY-MM-DD", help="The end of the history.")],
    every: Annotated[str, typer.Option(callback=_days, metavar="DAYSd", help="The time between steps.")] = "7d",
    policy: Annotated[
        list[str], typer.Option(help="A YAML file, or a name in configs/policies. May be given again.")
    ] = list(_POLICIES),  # noqa: B006 - typer's way
    profile: Annotated[str, typer.Option(help="How to train: a file in configs/profiles.")] = "replay",
    as_json: Json = False,
) -> None:
    """Compare retraining policies on history, with real trainings and the real gate at every step."""
    from assets.replay.history import steps
    from assets.replay.picture import draw
    from assets.replay.replay import replay as go_back
    from assets.replay.replay import table
    from pipelines.runs import run_worker

    home, policies = Home.from_environment(), {Path(name).stem: load_policy(name) for name in policy}
    days, sources = steps(start, end, int(every.removesuffix("d"))), [_absolute(one) for one in source]
    replayed = go_back(home, sources, days, policies, load_settings(profile), run_worker, _say)
    picture = draw(replayed, home.reports / "replay" / f"{start}_{end}.png")
    _say("")
    output.result(replayed.body(), table(replayed, home.domain), as_json=as_json)
    _say(f"Plot: {picture}")


@app.command()
def demonstrate() -> None:
    """Show how a change of the world is detected, learned and overcome, in `<EVERGREEN_HOME>/demonstration`."""
    from pipelines.demonstration import demonstrate as show

    show(Home.from_environment(), _say, output.show)


@app.command()
def simulate(
    folder: Annotated[Path, typer.Option("--output", help="The folder to write one file per month into.")],
    start: Annotated[str, typer.Option("--from", parser=_date, metavar="YYYY-MM-DD", help="First day.")],
    end: Annotated[str, typer.Option("--to", parser=_date, metavar="YYYY-MM-DD", help="Last day.")],
    rate: Annotated[int, typer.Option(help="Records a day.")] = 50,
    seed: Annotated[int, typer.Option(help="The same seed writes the same files.")] = 0,
    scenario: Annotated[str, typer.Option(help="A scenario of the domain's simulator.")] = "calm",
    daily: Annotated[bool, typer.Option("--daily", help="Write one file per day.")] = False,
) -> None:
    """Write simulated files like the domain's sources, with dirty records."""
    from pipelines.simulating import simulator

    domain = load_domain()
    write = simulator(domain)
    done = write(folder, date.fromisoformat(start), date.fromisoformat(end), rate, seed, scenario, daily=daily)
    output.show(f"{done.records} {domain.record.many} in {len(done.files)} files: {folder}")


@app.command()
def doctor(
    source: Annotated[
        list[str] | None,
        typer.Option(help="A file, a folder or s3://bucket/prefix; by default EVERGREEN_SOURCES. May be given again."),
    ] = None,
    profile: Annotated[
        str, typer.Option(envvar="EVERGREEN_PROFILE", help="A file in configs/profiles, without its ending.")
    ] = "quick",
    as_json: Json = False,
) -> None:
    """Look at the machine, the home, the settings and the sources; exit code 1 when something fails."""
    from assets.ingestion.sources import configured_sources
    from pipelines.doctor import examine, show

    findings = []
    for finding in examine(Home.from_environment, source or configured_sources(), profile):
        findings.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        output.show(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command()
def ui(
    opens: Annotated[bool, typer.Option("--open", help="Open the front door in the browser.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port of the front door; a free one is taken if it is in use."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen: 0.0.0.0 in a container that publishes on 127.0.0.1.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Serve the front door, Dagster and MLflow to this machine's browser until Ctrl-C."""
    from pipelines.ui import serve

    serve(Home.from_environment(), _say, output.show, host, port, opens)


def _show(values: dict[str, Any], as_json: bool) -> None:
    lines = [f"{name.replace('_', ' '):<14}{_plain(value)}" for name, value in values.items()]
    output.result(values, "\n".join(lines), as_json=as_json)


def _plain(value: Any) -> str:
    if value is None:
        return "none yet"
    if not isinstance(value, dict):
        return str(value)
    if "reason" in value:
        return f"{value['decision']}: {value['reason']}"
    return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in value.items())


for _each in app.registered_commands:
    _name = _each.name or getattr(_each.callback, "__name__", "").replace("_", "-")
    _each.cls, _each.epilog = _Command, epilog(_name)
