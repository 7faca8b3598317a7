"""What was asked and answered: on disk before it is acknowledged, in the lake, and a source of records."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pandas as pd
import pyarrow.parquet as pq
import pytest

from assets.home import Home
from assets.ingestion.landing import ingest
from assets.ingestion.served import land, served_events, served_sources, spool
from assets.serving.keys import add_key
from assets.serving.spool import Spool
from assets.settings import load_settings
from assets.warehouse.marts import partition_file

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings("quick")


def segments(home: Home) -> list[str]:
    return sorted(path.name for path in spool(home).glob("*"))


def written(writer: Spool, *events: dict[str, Any]) -> list[OSError | None]:
    done, faults = threading.Event(), list[OSError | None]()
    writer.append(events, lambda fault: (faults.append(fault), done.set()))  # type: ignore[func-returns-value]
    assert done.wait(30)
    return faults


def answer(record_id: str, text: str = "cards", **more: Any) -> dict[str, Any]:
    record = {"complaint_id": record_id, "narrative": text, "date_received": "2024-05-01"}
    return {
        "kind": "answer",
        "at": f"2024-05-01T00:00:0{len(record_id)}",
        "record_id": record_id,
        "record": record,
    } | more


@pytest.fixture
def writer(home: Home) -> Spool:
    writer = Spool(home, seconds=3600, size=10_000, closed=lambda: None)
    writer.start()
    return writer


def test_an_event_is_in_the_file_when_it_is_acknowledged(home: Home, writer: Spool) -> None:
    assert written(writer, answer("1"), answer("2")) == [None]
    (segment,) = spool(home).glob("*.open.jsonl")
    assert [json.loads(line)["record_id"] for line in segment.read_text().splitlines()] == ["1", "2"]
    assert land(home) == [], "a server still writes it"
    writer.close()
    assert land(home) == [segment.name.removesuffix(".open.jsonl")]
    assert segments(home) == []
    assert land(home) == []


def test_a_segment_is_closed_by_its_size_and_by_its_age(home: Home) -> None:
    closed = threading.Semaphore(0)
    for seconds, size in ((3600.0, 1), (0.01, 1 << 20)):
        writer = Spool(home, seconds, size, closed.release)
        writer.start()
        assert written(writer, answer("1")) == [None]
        assert closed.acquire(timeout=30)
        writer.close()
    assert len(land(home)) == 2


def test_a_disk_that_refuses_is_said_and_leaves_no_half_line(
    home: Home, writer: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(writer, answer("1")) == [None]

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("assets.serving.spool.os.fdatasync", refuse)
        (fault,) = written(writer, answer("2"))
        assert fault is not None
    assert written(writer, answer("3")) == [None]
    writer.close()
    land(home)
    assert rows(home) == [("answer", "1"), ("answer", "3")]


def rows(home: Home) -> list[tuple[Any, ...]]:
    found = duckdb.sql(f"select kind, record_id from read_parquet({served_events(home.lake)}) order by all")
    return found.fetchall()


def test_what_a_killed_server_did_not_finish_is_left_out_and_the_rest_is_kept(home: Home) -> None:
    spool(home).mkdir(parents=True)
    lines = json.dumps(answer("1")) + "\n" + json.dumps(answer("2"))
    (spool(home) / "2024-05-01T00-00-00-000000-aa.open.jsonl").write_text(lines)
    assert land(home) == ["2024-05-01T00-00-00-000000-aa"]
    assert rows(home) == [("answer", "1")]


@pytest.mark.parametrize("killed_at", ["publish", "move", "unlink"])
def test_a_landing_that_is_killed_is_finished_by_the_next(
    home: Home, writer: Spool, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(writer, answer("1"), {"kind": "feedback", "at": "2024-05-02", "record_id": "1", "label": "cards"})
    writer.close()

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    steps = {"publish": "assets.lake.Lake.publish", "move": "assets.lake._Folder.move", "unlink": "pathlib.Path.unlink"}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(steps[killed_at], kill)
        land(home)
    assert len(land(home)) == 1
    assert rows(home) == [("answer", "1"), ("feedback", "1")]
    assert len(landed(home)) == 1


def landed(home: Home, as_of: str = "2024-06-01") -> pd.DataFrame:
    """The records that ingestion reads of what was served."""
    found = ingest(served_sources(home), home.lake, SETTINGS.ingestion, home.domain, as_of)
    assert found.rejects == 0
    return pq.ParquetDataset(found.path / "records").read().to_pandas().sort_values(["object_id", "line"])


def test_ingestion_reads_what_was_asked_and_feedback_with_outcomes_as_a_version(home: Home, writer: Spool) -> None:
    told = {"kind": "feedback", "record_id": "1", "label": "mortgage", "at": "2024-05-02"}
    outcomes = {"product": "Mortgage", "date_sent_to_company": "2024-05-02"}
    written(writer, answer("1", "my\n“house”"), answer("22", "x"), told | {"record": None, "record_id": "22"})
    written(writer, told | {"record": outcomes})
    writer.close()
    assert served_sources(home) == []
    land(home)
    found = landed(home)
    assert found["complaint_id"].tolist() == ["1", "22", "1"]
    assert found["narrative"].tolist() == ["my\n“house”", "x", "my\n“house”"]
    assert [value if isinstance(value, str) else None for value in found["product"]] == [None, None, "Mortgage"]


def test_feedback_finds_a_record_of_an_earlier_segment(home: Home) -> None:
    told = {"kind": "feedback", "record_id": "1", "label": "mortgage", "at": "2024-05-02"}
    for event in (
        answer("1", "my house"),
        told | {"record": {"product": "Mortgage"}},
        told | {"record_id": "nobody's"},
    ):
        writer = Spool(home, 3600, 10_000, lambda: None)
        writer.start()
        written(writer, event)
        writer.close()
        land(home)
    found = landed(home)
    assert sorted(found["narrative"]) == ["my house", "my house"]
    assert [row[1] for row in rows(home)] == ["1", "1", "nobody's"]


def test_a_record_that_another_source_has_is_left_to_it(home: Home, writer: Spool, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    line = {name: None for field in home.domain.source.fields for name in home.domain.source.names(field)[:1]}
    line |= {"Complaint ID": "1", "Date received": "2024-05-01", "Product": "Mortgage"}
    (tmp_path / "source" / "a.jsonl").write_text(json.dumps(line) + "\n")
    found = ingest([str(tmp_path / "source")], home.lake, SETTINGS.ingestion, home.domain, "2024-05-01")
    marts = pd.DataFrame({"record_id": ["1"], "object_id": [found.objects[0].object_id]})
    with home.lake.staging("marts") as staged:
        path = partition_file(staged, "fct_records", "all")
        path.parent.mkdir(parents=True, exist_ok=True)
        marts.to_parquet(path)
        home.lake.publish("marts", "m1", staged)
    written(writer, answer("1", "asked again"), answer("2"))
    writer.close()
    land(home)
    assert rows(home) == [("answer", "1"), ("answer", "2")]
    (source,) = Path(served_sources(home)[0]).rglob("*.jsonl")
    assert [json.loads(text)["Complaint ID"] for text in source.read_text().splitlines()] == ["2"]


PROGRAM = """
import sys
from pathlib import Path
import pytest
from tests.serving import conftest
from assets.home import Home
from assets.settings import load_serving_settings, load_settings
from pipelines.answering import listen

patch = pytest.MonkeyPatch()
conftest.patch_store(patch)
conftest.patch_models(patch)
settings = load_serving_settings().model_copy(update={"segment_bytes": 4000, "drain_seconds": 20})
listen(Home(Path(sys.argv[1])), load_settings("quick"), settings, "127.0.0.1", 0, print)
"""


@pytest.fixture
def program(home: Home, judged: Callable[..., Any]) -> Any:
    """A server in a process of its own: the process, its address and a key."""
    judged("first-1")
    key = add_key(home.root / "serving" / "keys", "tests")
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "EVERGREEN_HOME": str(home.root)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(home.root)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    address = re.search(r"http://\S+", process.stdout.readline())
    assert address
    http = httpx.Client(base_url=address[0], headers={"Authorization": f"Bearer {key}"}, timeout=60)
    while http.get("/readyz").status_code != 200:
        assert process.poll() is None
    yield process, http
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_no_acknowledged_request_is_lost_when_the_server_is_killed_or_stopped(
    home: Home, program: tuple[subprocess.Popen[str], httpx.Client], number: signal.Signals
) -> None:
    process, http = program
    acknowledged, refused = list[str](), list[str]()

    def ask(client: int) -> None:
        for turn in range(10_000):
            record_id = f"{client}-{turn}"
            try:
                done = http.post("/v1/predict", json={"records": [{"complaint_id": record_id, "narrative": "cards"}]})
            except httpx.HTTPError:
                return
            if done.status_code != 200:
                refused.append(record_id)
                return
            acknowledged.append(record_id)
            if len(acknowledged) == 200:
                process.send_signal(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    process.wait(60)
    assert len(acknowledged) >= 200
    land(home)
    kept = {record_id for _, record_id in rows(home)}
    assert set(acknowledged) <= kept
    assert segments(home) == []
    if number is signal.SIGTERM:
        assert len(kept) == len(acknowledged) + len(kept & set(refused)), "what was accepted was answered"


def test_its_log_is_json_and_has_neither_a_text_nor_an_id(home: Home, judged: Callable[..., Any]) -> None:
    judged("first-1")
    program = PROGRAM.split("settings = ")[0].replace("from pipelines.answering import listen\n", "")
    program += "from pipelines.cli import main\nsys.argv = ['evergreen', 'serve', '--port', '0']\nsys.exit(main())\n"
    environment = os.environ | {"EVERGREEN_HOME": str(home.root), "EVERGREEN_LOGS": "json"}
    command, pipes = [sys.executable, "-c", program], {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout) == (2, "")
    assert "a log is no place for one" in json.loads(first.stderr)["message"]
    key = add_key(home.root / "serving" / "keys", "tests")
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
        lines = []
        while not (address := re.search(r"http://[0-9.:]+", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1]
        with httpx.Client(base_url=address[0], headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            while http.get("/readyz").status_code != 200:
                assert process.poll() is None
            for text in ("Ottoline asked", "poison"):
                http.post("/v1/predict", json={"records": [{"complaint_id": "ada-70041", "narrative": text}]})
        (spool(home) / "2024-05-01T00-00-00-000000-aa.jsonl").write_text('{"ada-70041": "Ottoline asked"}\n')
        process.send_signal(signal.SIGTERM)
        said, printed = process.communicate(timeout=60)[::-1]
    told = [json.loads(line) for line in [*lines, *said.splitlines(), *printed.splitlines()]]
    messages = " ".join(line["message"] for line in told)
    assert re.search("request .* failed: FloatingPointError", messages)
    assert "what was served could not go to the lake: KeyError" in messages
    assert not re.search("ada-70041|Ottoline|poison", "".join([*lines, said, printed]))
