"""Is the world still the one that the champion was trained in? Measured with Evidently and scikit-learn.

Five groups of columns are compared: `features` and `text` of the scored window with a sample of the champion's
training rows, the `wording` of both by a domain classifier, `predictions` with the champion's evaluation, and the
`labels` that have arrived with those of the training (`assets.monitoring.sides`). A sixth, `answers`, is the evidence
that the champion errs more than promised (`assets.monitoring.answers`); it is taken from the published performance.

A column has drifted when its statistic reaches both a configured bound and what one block of the champion's own
training period shows against the rest: statistics that grow or warm up by construction are compared with their own
movement. There is drift when more than `share_threshold` of any group's columns have drifted: changed text moves few
columns, which would be lost among forty statistics.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from assets.hashing import hash_json
from assets.home import Home
from assets.lake import Lake
from assets.monitoring.comparison import Column, judge, measure_columns
from assets.monitoring.distributions import bin_columns, write_distributions
from assets.monitoring.performance import Performance, load_performance
from assets.monitoring.report import DriftReport, Earlier, earlier_windows, load_drift
from assets.monitoring.sides import Compared, TrainingSide, read_reference, read_window
from assets.monitoring.widgets import by_evidently
from assets.monitoring.wording import hash_words, measure_wording, wording_rows
from assets.registry.registry import RegisteredVersion
from assets.scoring.predictions import load_manifest
from assets.settings import Domain, DriftSettings

__all__ = ["measure_drift"]

_EVIDENTLY = "report.html"


def measure_drift(home: Home, as_of: str, champion: RegisteredVersion | None, settings: DriftSettings) -> DriftReport:
    """Compare the champion's window with its training, and publish numbers and distributions as `drift/<as_of>`.

    Evidently's report is `reports/evidently/<as_of>.html`. Without a champion, its predictions or enough rows the
    report says so. The version is a function of the predictions, the settings, the champion's earlier windows and its
    performance; an existing one is reused.
    """
    lake, table = home.lake, f"drift/{as_of}"
    earlier = earlier_windows(lake, as_of, champion.training_id if champion else None)
    performance = _performance(lake, as_of, champion)
    windows = [[window.as_of, sorted(window.drifted)] for window in earlier]
    others = [windows, lake.version(f"performance/{as_of}"), champion and champion.training_id]
    path = lake.path(table, hash_json([as_of, _scored_version(lake, as_of), others, settings.model_dump()])[:16])
    if path.exists():
        lake.publish(table, path.name, path)
    else:
        with lake.staging(table) as staged:
            report = _report(home, as_of, champion, earlier, performance, settings, staged)
            (staged / "drift.json").write_text(json.dumps(asdict(report), indent=1))
            lake.publish(table, path.name, staged)
    _show(home, path / _EVIDENTLY, home.reports / "evidently" / f"{as_of}.html")
    return load_drift(lake, as_of)


def _show(home: Home, page: Path, served: Path) -> None:
    """Serve a page as a hard link, since it is large. One that `evergreen prune` has removed is not recreated."""
    if page.exists():
        served.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{served.name}-", dir=served.parent) as temporary:
            (Path(temporary) / "page").hardlink_to(page)
            (Path(temporary) / "page").replace(served)
        home.pages.put(served)


def _scored_version(lake: Lake, as_of: str) -> str | None:
    return lake.version(f"predictions/{as_of}")


def _performance(lake: Lake, as_of: str, champion: RegisteredVersion | None) -> Performance | None:
    if champion is None or lake.version(f"performance/{as_of}") is None:
        return None
    performance = load_performance(lake, as_of)
    return performance if performance.training_id == champion.training_id else None


def _report(
    home: Home,
    as_of: str,
    champion: RegisteredVersion | None,
    earlier: tuple[Earlier, ...],
    performance: Performance | None,
    settings: DriftSettings,
    folder: Path,
) -> DriftReport:
    """The report; distributions and Evidently's report are written to the folder if anything was measured."""
    lake, domain = home.lake, home.domain
    why = _unmeasurable(lake, as_of, champion)
    if why is not None or champion is None:
        return _unmeasured(as_of, champion, why or "", 0)
    reference = read_reference(lake, champion, settings)
    current = read_window(lake, as_of, reference, settings)
    rows = reference.side.rows, current.side.rows
    if rows[1] < settings.min_rows:
        why = f"the window has {rows[1]} scored {domain.record.many} that the champion was not trained on"
        return _unmeasured(as_of, champion, f"{why}, fewer than {settings.min_rows}", rows[1])
    if rows[0] < settings.min_rows:
        why = f"the champion's snapshot gives {rows[0]} reference rows, fewer than {settings.min_rows}"
        return _unmeasured(as_of, champion, why, rows[1])
    columns = _compare(reference, current, domain, settings, folder)
    columns = (*columns, *(performance.answers if performance else ()))
    left_out = _left_out({column.group for column in columns}, reference, current, performance, settings)
    finding = judge(columns, settings, left_out)
    since = {column.name: _since(column.name, as_of, earlier) for column in columns if column.drifted}
    verdict = (finding.detected, finding.share, finding.reason)
    training, bound = champion.training_id, settings.share_threshold
    return DriftReport(as_of, champion.version, *verdict, *rows, columns, since, left_out, training, bound)


def _compare(
    reference: TrainingSide, current: Compared, domain: Domain, settings: DriftSettings, folder: Path
) -> tuple[Column, ...]:
    """The measured columns, whose distributions and Evidently's report are written to the folder."""
    measured = measure_columns(reference.side, current.side, settings)
    binned = bin_columns(measured, reference.side, current.side, domain, settings)
    columns, page = by_evidently(measured, binned, settings.share_threshold)
    write_distributions(binned, folder)
    (folder / _EVIDENTLY).write_text(page)
    words = hash_words(reference.texts), hash_words(current.texts)
    wording = measure_wording(*words, reference.side.stretches, settings)
    return (*columns, wording) if wording else columns


def _left_out(
    measured: set[str],
    reference: TrainingSide,
    current: Compared,
    performance: Performance | None,
    settings: DriftSettings,
) -> dict[str, str]:
    sizes = {
        group: tuple(len(side.groups.get(group, ())) for side in (current.side, reference.side))
        for group in ("predictions", "labels")
    }
    texts = wording_rows(len(reference.texts), len(current.texts), settings)
    rows = {group: f"{window} rows of the window, {other} of the reference" for group, (window, other) in sizes.items()}
    rows["wording"] = f"{texts} texts to learn from on either side"
    tested, known = (performance.evaluated.rows, performance.realised.rows) if performance else (0, 0)
    rows["answers"] = f"{known} blind answers whose label is known, and {tested} evaluated ones"
    return {group: f"{few}, {settings.min_rows} are needed" for group, few in rows.items() if group not in measured}


def _since(name: str, as_of: str, earlier: tuple[Earlier, ...]) -> str:
    for window in reversed(earlier):
        if name not in window.drifted:
            break
        as_of = window.as_of
    return as_of


def _unmeasurable(lake: Lake, as_of: str, champion: RegisteredVersion | None) -> str | None:
    if champion is None:
        return "there is no champion yet"
    if _scored_version(lake, as_of) is None:
        return f"nothing was scored as of {as_of}"
    scored = load_manifest(lake.current(f"predictions/{as_of}"))
    if scored.training_id != champion.training_id:
        who = f"version {scored.model_version}, training {scored.training_id}"
        return f"the window was scored by {who}, not by the champion, version {champion.version}"
    if not lake.path("marts", scored.marts_version).exists():
        return (
            f"the marts that it was scored from, {scored.marts_version}, are gone (publications in "
            "configs/retention.yaml); materialize predictions again"
        )
    return None


def _unmeasured(as_of: str, champion: RegisteredVersion | None, why: str, rows: int) -> DriftReport:
    reason = f"drift cannot be measured: {why}"
    version, training = (champion.version, champion.training_id) if champion else (None, None)
    return DriftReport(as_of, version, None, None, reason, 0, rows, (), training_id=training)
