"""What is audited is what is published, and nothing else is."""

import re
from collections.abc import Callable
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from assets.exceptions import AuditError
from assets.home import Home
from assets.settings import WarehouseSettings, load_domain
from assets.settings.domain import Words
from assets.validation.audit import Audit, audit, load_audit, publish
from assets.validation.figures import measure
from assets.validation.suites import columns
from assets.warehouse.marts import partition_file
from assets.warehouse.project import built, keep_built

LABELS = tuple(load_domain().labels)
COLUMNS = columns(load_domain())

AS_OF = "2024-02-01"
SECRET = "my mother lost her savings"
POLICY = WarehouseSettings(
    max_unmapped_share=0.1, max_quarantined_share=0.5, max_staleness_days=30, max_mix_shift=0.3, min_object_rows=15
)

Frames = dict[str, pd.DataFrame]


def marts(labels: list[str] = [*LABELS, *LABELS]) -> Frames:  # noqa: B006 - never changed
    rows = len(labels)
    records = pd.DataFrame(
        {
            "record_id": [str(number) for number in range(rows)],
            "known_at": pd.to_datetime(["2024-01-20"] * rows),
            "known_until": pd.to_datetime([None] * rows),
            "received_at": pd.to_datetime(["2024-01-20"] * rows),
            "text": [SECRET if number % 2 else None for number in range(rows)],
            **{column: ["CA"] * rows for column in ("company", "state", "zip_code", "tags")},
            "channel": ["Web"] * rows,
            "label": labels,
            "label_known_at": pd.to_datetime(["2024-01-21"] * rows),
            "label_reason": pd.Series([None] * rows, dtype="string"),
            "object_id": ["a" * 16] * rows,
            "line": range(rows),
        }
    )
    counts = {"landed": [rows + 1], "valid": [rows], "quarantined": [1], "duplicate": [0], "withdrawn": [0]}
    counts["error"] = pd.Series([None], dtype="string")
    rejected = {"object_key": ["a.csv"], "line": [9], "reason": ["broken-quote"], "raw_text": [SECRET]}
    rejected |= {"known_from": pd.array([None], dtype="datetime64[us]")}
    return {
        "fct_records": records,
        "labels": records[list(COLUMNS["labels"])],
        "company_daily": _daily("company"),
        "state_daily": _daily("state"),
        "quarantined_records": pd.DataFrame(rejected),
        "record_counts": pd.DataFrame({"object_id": ["a" * 16], "object_key": ["a.csv"], **counts}),
    }


def _daily(entity: str) -> pd.DataFrame:
    values = dict.fromkeys(COLUMNS[f"{entity}_daily"], 0.0)
    days = pd.to_datetime(["2024-01-21", "2024-01-28"])
    return pd.DataFrame(values | {entity: "CA", f"{entity}_text_share": 0.5}, index=range(2)).assign(
        event_timestamp=days, **{f"{entity}_labels": 1}
    )


def stage(home: Home, frames: Frames) -> None:
    with home.lake.staging("marts") as folder:
        for mart, frame in frames.items():
            frame.to_parquet(partition_file(folder, mart, "all"), index=False)
        keep_built(home, folder)


def publish_unaudited(home: Home, frames: Frames, version: str) -> None:
    """A publication of earlier, without the seconds that its audit would take."""
    with home.lake.staging("marts") as folder:
        for mart, frame in frames.items():
            frame.to_parquet(partition_file(folder, mart, "all"), index=False)
        home.lake.publish("marts", version, folder)


def audited(home: Home, frames: Frames) -> Audit:
    stage(home, frames)
    return audit(home, AS_OF, POLICY)


def test_good_marts_are_published_as_they_were_audited(home: Home) -> None:
    verdict = audited(home, marts())
    assert verdict.failures == ()
    assert (verdict.figures.known, verdict.figures.staleness_days, verdict.figures.mix_shift) == (18, 12, None)
    assert load_audit(home, AS_OF) == verdict
    assert home.lake.version("marts") is None
    assert publish(home, verdict, POLICY) == verdict
    published = home.lake.current("marts")
    assert published == built(home)
    assert {path.name for path in published.iterdir() if path.is_dir()} == COLUMNS.keys()


def test_publishing_twice_changes_nothing(home: Home) -> None:
    first = publish(home, audited(home, marts()), POLICY)
    assert first.previous is None
    written = home.lake.current("marts").stat().st_mtime_ns
    again = audit(home, "2024-02-02", POLICY)
    assert again.figures.mix_shift == 0
    assert publish(home, again, POLICY).content == again.previous == first.content
    assert home.lake.current("marts").stat().st_mtime_ns == written


def spoil(mart: str, column: str, value: object) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        frames[mart] = frames[mart].copy()
        frames[mart].loc[0, column] = value

    return change


def _repeat_a_record(frames: Frames) -> None:
    frames["fct_records"] = pd.concat([frames["fct_records"], frames["fct_records"].head(1)])


def _tell_an_outcome(frames: Frames) -> None:
    frames["fct_records"] = frames["fct_records"].assign(issue="Late fees")


def _lose_a_column(frames: Frames) -> None:
    frames["fct_records"] = frames["fct_records"].drop(columns="company")


FAULTS = {
    "a lost record": (spoil("record_counts", "valid", 3), "landed = valid + quarantined + duplicate"),
    "an unknown label": (spoil("labels", "label", "lottery"), "one of the known ones"),
    "no company": (spoil("fct_records", "company", None), "company is always filled"),
    "a label from before": (spoil("labels", "label_known_at", datetime(2024, 1, 1)), "before its record"),
    "a share above one": (spoil("company_daily", "company_share_other", 1.5), "company_share_other is a share"),
    "known before it came": (spoil("fct_records", "received_at", datetime(2024, 1, 21)), "before it was received"),
    "windows that do not nest": (spoil("state_daily", "state_records_7d", 9), "at least the records of 7"),
    "a record twice": (_repeat_a_record, "One row per record_id and known_at"),
    "a column that is gone": (_lose_a_column, "company is always filled (could not be measured)"),
    "an outcome": (_tell_an_outcome, "no others"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_critical_failure_keeps_the_previous_publication(home: Home, fault: str) -> None:
    change, sentence = FAULTS[fault]
    publish_unaudited(home, marts(), "before")
    frames = marts()
    change(frames)
    verdict = audited(home, frames)
    assert not verdict.passed
    assert any(sentence in failure.expectation for failure in verdict.critical), verdict.critical
    with pytest.raises(AuditError, match="previous publication stays"):
        publish(home, verdict, POLICY)
    assert home.lake.version("marts") == "before"
    assert len(pd.read_parquet(home.lake.current("marts") / "labels")) == 18


def test_old_data_and_no_data_are_not_fresh(home: Home) -> None:
    stage(home, marts())
    stale = audit(home, "2024-06-01", POLICY)
    unknown = audit(home, "2023-06-01", POLICY)
    assert [failure.expectation for failure in stale.critical] == ["The newest known record is at most 30 days old"]
    assert unknown.figures.staleness_days is None
    assert not unknown.passed


def test_the_label_mix_is_compared_with_the_previous_publication(home: Home) -> None:
    publish_unaudited(home, marts(), "before")
    verdict = audited(home, marts(["mortgage"] * 9 + list(LABELS)))
    assert verdict.figures.mix_shift == pytest.approx(4 / 9)
    assert [failure.suite for failure in verdict.critical] == ["publication"]
    assert "0.3 from the previous" in verdict.critical[0].expectation


def with_object(key: str, **counts: object) -> Frames:
    """Marts with one more object, of which no record was taken."""
    frames = marts()
    row = {"object_id": key, "object_key": key, "valid": 0, "duplicate": 0, "withdrawn": 0, "error": None} | counts
    frames["record_counts"] = pd.concat([frames["record_counts"], pd.DataFrame([row])], ignore_index=True)
    return frames


def test_a_bad_object_is_named_and_stops_what_its_share_of_all_would_let_pass(home: Home) -> None:
    publish_unaudited(home, marts(), "before")
    bad = with_object("bad|night.csv", landed=18, quarantined=18)
    whole = POLICY.model_copy(update={"max_quarantined_share": 0.6})
    stage(home, bad)
    verdict = audit(home, AS_OF, whole)
    assert verdict.figures.quarantined / verdict.figures.landed < 0.6
    told = "Of no new object more than 60% is quarantined: bad|night.csv (18 of 18)"
    assert [(f.suite, f.expectation, f.severity) for f in verdict.failures] == [("publication", told, "critical")]
    stage(home, with_object("bad|night.csv", landed=0, quarantined=0, withdrawn=18))
    assert audit(home, AS_OF, whole).failures == ()


def test_an_object_that_is_refused_as_a_whole_is_critical_however_small(home: Home) -> None:
    publish_unaudited(home, marts(), "before")
    verdict = audited(home, with_object("b.csv", landed=1, quarantined=1, error="unknown-column: my mother"))
    told = "No new object is refused as a whole: b.csv (unknown-column)"
    assert [(f.expectation, f.severity) for f in verdict.failures] == [(told, "critical")]


def test_a_warning_is_reported_and_stops_nothing(home: Home) -> None:
    frames = marts()
    spoil("fct_records", "channel", "Pigeon")(frames)
    verdict = audited(home, frames)
    assert [(failure.suite, failure.severity) for failure in verdict.failures] == [("fct_records", "warning")]
    assert publish(home, verdict, POLICY) == verdict


def test_only_the_audited_files_can_be_published(home: Home) -> None:
    verdict = audited(home, marts())
    marts(list(LABELS))["labels"].to_parquet(partition_file(built(home), "labels", "all"), index=False)
    with pytest.raises(AuditError, match="not the audited ones"):
        publish(home, verdict, POLICY)
    assert home.lake.version("marts") is None


def test_who_finds_another_publication_audits_the_newest_build_beside_it(home: Home) -> None:
    """Two runs at once: the one that built first publishes last, and takes nothing back."""
    first = audited(home, marts())
    second = audited(home, marts(["mortgage"] * 18))
    assert publish(home, second, POLICY) == second
    found = publish(home, first, POLICY)
    assert (found.content, found.previous, found.figures.mix_shift) == (second.content, second.content, 0)
    assert home.lake.version("marts") == second.content


def test_nothing_staged_and_nothing_audited_are_said(home: Home) -> None:
    with pytest.raises(AuditError, match="no marts are staged"):
        audit(home, AS_OF, POLICY)
    with pytest.raises(AuditError, match="no audit as of 2024-02-01"):
        load_audit(home, AS_OF)


def test_reports_hold_no_text_of_people_and_load_nothing(home: Home) -> None:
    frames = marts()
    spoil("fct_records", "label", SECRET)(frames)
    verdict = audited(home, frames)
    assert not verdict.passed
    files = [path for path in home.root.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    pages = [path for path in files if path.suffix == ".html"]
    assert len(pages) == 15
    for path in files:
        assert SECRET not in path.read_text(errors="replace"), path
    for path in pages:
        assert _loads(path) == []


def test_the_words_of_a_domain_are_text(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    markup = "<script>alert(1)</script> & <b>"
    domain = load_domain()
    labels = dict.fromkeys(domain.labels, markup)
    named = domain.model_copy(update={"title": markup, "labels": labels, "record": Words(one=markup, many=markup)})
    monkeypatch.setattr(Home, "domain", named)
    assert audited(home, marts()).passed
    index = (home.reports / "data-docs" / "index.html").read_text()
    assert _loads(home.reports / "data-docs" / "index.html") == []
    assert "<b>" not in index
    assert index.count("&lt;b&gt;") > len(LABELS)


def test_a_page_says_how_its_suite_went_and_names_no_data_asset(home: Home) -> None:
    frames = marts()
    spoil("fct_records", "label", "lottery")(frames)
    audited(home, frames)
    pages = {path.parts[-4]: path.read_text() for path in (home.reports / "data-docs").rglob("validations/**/*.html")}
    assert {suite for suite, page in pages.items() if "Failed" in page} == {"fct_records"}
    assert {suite for suite, page in pages.items() if "Succeeded" in page} == {*pages} - {"fct_records"}
    for suite, page in pages.items():
        assert f'<body class="suite {suite}">' in page
        assert f"<title>Validations / {suite} / {AS_OF}" in page
        assert "Data asset" not in page


class _Loads(HTMLParser):
    """Collects what a browser would fetch or run for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name == "src" or (tag == "link" and name == "href")]
        self.found += [tag] * (tag in ("script", "img", "iframe", "object"))


def _loads(path: Path) -> list[str]:
    parser = _Loads()
    parser.feed(path.read_text())
    return parser.found + re.findall(r"url\([^)]*\)|@import[^;]*", path.read_text())


def test_a_page_is_written_once_and_nothing_that_no_page_uses(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(path: str, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "w" in mode and "data-docs" in str(path):
            written.append(Path(path))
        return open(path, mode, *args, **more)  # noqa: PTH123

    stage(home, marts())
    monkeypatch.setattr("great_expectations.data_context.store.tuple_store_backend.open", write, raising=False)
    audit(home, AS_OF, POLICY)
    pages = [path for path in (home.reports / "data-docs").rglob("*") if path.is_file() and path.name != "index.html"]
    assert len(written) == len(pages) == 14
    assert {path.suffix for path in [*written, *pages]} == {".html"}


def test_links_between_the_pages_lead_somewhere(home: Home) -> None:
    audited(home, marts())
    site = home.reports / "data-docs"
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"#]+)"', page.read_text()):
            assert (page.parent / link).exists(), (page, link)


def test_the_distance_of_two_mixes(home: Home, tmp_path: Path) -> None:
    stage(home, marts(["mortgage", "mortgage", "cards", "other"]))
    other = Home(tmp_path / "other")
    stage(other, marts(["mortgage", "cards", "cards", "student_loan"]))
    figures = measure(built(home), built(other), AS_OF)
    assert figures.mix_shift == pytest.approx(0.5)
    assert figures.label_mix == {"cards": 0.25, "mortgage": 0.5, "other": 0.25}


def stage_weeks(home: Home, frames: Frames, weeks: list[pd.DataFrame]) -> None:
    """Marts whose labels are those of several weeks, a file each."""
    with home.lake.staging("marts") as folder:
        for mart, frame in frames.items():
            for number, part in enumerate(weeks if mart == "labels" else [frame]):
                part.to_parquet(partition_file(folder, mart, str(number)), index=False)
        keep_built(home, folder)


def labels_failures(home: Home) -> list[str]:
    return [failure.expectation for failure in audit(home, AS_OF, POLICY).critical if failure.suite == "labels"]


def test_a_file_that_is_not_read_again_is_judged_as_if_it_were(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = marts()
    old, new = frames["labels"].iloc[:9], frames["labels"].iloc[9:]
    stage_weeks(home, frames, [old, new])
    assert publish(home, audit(home, AS_OF, POLICY), POLICY).passed
    stage_weeks(home, frames, [old, new.assign(label="lottery")])
    told = "A label is one of the known ones (9 of 18 rows, as row 1 of labels/1.parquet)"
    assert labels_failures(home) == [told]
    stage_weeks(home, frames, [old.assign(label="lottery"), new])
    told = "A label is one of the known ones (9 of 18 rows, as row 1 of labels/0.parquet)"
    for _ in range(2):
        assert labels_failures(home) == [told]
    stage_weeks(home, frames, [old, new])
    fewer = {label: label for label in LABELS[1:]}
    monkeypatch.setattr(Home, "domain", load_domain().model_copy(update={"labels": fewer}))
    told = "A label is one of the known ones (2 of 18 rows, as row 1 of labels/0.parquet)"
    assert labels_failures(home) == [told]


def test_a_row_in_two_files_and_a_mart_that_cannot_be_measured_are_critical(home: Home) -> None:
    frames = marts()
    old, new = frames["labels"].iloc[:9], frames["labels"].iloc[8:]
    frames["fct_records"] = frames["fct_records"].assign(label=1)
    stage_weeks(home, frames, [old, new])
    found = {failure.suite: failure.expectation for failure in audit(home, AS_OF, POLICY).critical}
    assert found["labels"].startswith("One row per record_id and known_at (2 of 19 rows, as row ")
    assert found["fct_records"].endswith("(could not be measured)")
