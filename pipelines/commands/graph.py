"""The commands that run the graph, or parts of it: `run`, `score`, `replay`, `reproduce`, `demonstrate`, `simulate`."""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from assets.home import Home
from assets.settings import load_domain, load_policy, load_settings
from pipelines.commands.options import Json, Profile, Sources, absolute, to_as_of, to_date, to_days
from pipelines.output import result, say, show

__all__ = ["demonstrate", "replay", "reproduce", "run", "score", "simulate"]

_POLICIES = ("never", "every-step", "monthly", "on-drift", "cost-aware", "probe")


def run(
    source: Sources,
    as_of: Annotated[
        str,
        typer.Option(
            callback=to_as_of,
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
    say("Loading the graph")
    from pipelines.faults import explain_run
    from pipelines.progress import progress_on_stderr
    from pipelines.runs import run_graph
    from pipelines.summary import summarize, table

    home, sources = Home.from_environment(), [absolute(s) for s in source]
    with progress_on_stderr() as progress:
        outcome = run_graph(home, sources, as_of, profile, progress, history=history)
    if outcome.failure:
        say(f"evergreen: {explain_run(outcome.failure, home)} (log: {home.root / 'logs' / outcome.run_id}.log)")
        raise typer.Exit(1)
    summary = summarize(home, as_of, outcome)
    say("")
    result(summary, table(summary, home.domain), as_json=as_json)


def score(
    source: Annotated[Path, typer.Option("--input", help="A file like the domain's sources; labels are not needed.")],
    answers: Annotated[Path, typer.Option("--output", help="The file to write, with the ending .parquet or .csv.")],
    profile: Profile = "quick",
) -> None:
    """Score the records of a file with the champion: one output row per input row."""
    settings, home = load_settings(profile), Home.from_environment()
    from assets.scoring.request import look

    look(source, answers, settings.ingestion, home.domain)
    from assets.scoring.files import score_file

    scored = score_file(home, source, answers, settings)
    show(f"{scored.rows:,} rows, {scored.scored:,} scored by version {scored.model_version}: {answers}")
    if scored.unscored:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in scored.unscored.items())
        show(f"{sum(scored.unscored.values()):,} not scored: {reasons}")


def replay(
    source: Sources,
    start: Annotated[str, typer.Option("--from", callback=to_as_of, metavar="YYYY-MM-DD", help="The first step.")],
    end: Annotated[str, typer.Option("--to", callback=to_as_of, metavar="YYYY-MM-DD", help="The end of the history.")],
    every: Annotated[str, typer.Option(callback=to_days, metavar="DAYSd", help="The time between steps.")] = "7d",
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
    days, sources = steps(start, end, int(every.removesuffix("d"))), [absolute(one) for one in source]
    replayed = go_back(home, sources, days, policies, load_settings(profile), run_worker, say)
    picture = draw(replayed, home.reports / "replay" / f"{start}_{end}.png")
    home.pages.put(picture)
    say("")
    result(replayed.body(), table(replayed, home.domain), as_json=as_json)
    say(f"Plot: {picture}")


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
    result(asdict(reproduction), line, as_json=as_json)
    if not reproduction.succeeded:
        raise typer.Exit(1)


def demonstrate() -> None:
    """Show how a change of the world is detected, learned and overcome, in `<EVERGREEN_HOME>/demonstration`."""
    from pipelines.demonstration import demonstrate as go_through

    go_through(Home.from_environment(), say, show)


def simulate(
    folder: Annotated[Path, typer.Option("--output", help="The folder to write one file per month into.")],
    start: Annotated[str, typer.Option("--from", parser=to_date, metavar="YYYY-MM-DD", help="First day.")],
    end: Annotated[str, typer.Option("--to", parser=to_date, metavar="YYYY-MM-DD", help="Last day.")],
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
    show(f"{done.records} {domain.record.many} in {len(done.files)} files: {folder}")
