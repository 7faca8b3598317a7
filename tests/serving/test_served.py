"""The server as its users run it: on a home after `make run`, with the real model and the real online store."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import httpx
import pandas as pd
import pytest

from assets.home import Home
from assets.ingestion.landing import ingest
from assets.ingestion.reading import read_rows
from assets.ingestion.records import Record
from assets.ingestion.served import land, served_sources
from assets.settings import load_domain, load_settings
from assets.validation.audit import audit, publish
from assets.warehouse.marts import mart
from assets.warehouse.project import build_marts

ROOT = Path(__file__).parents[2]
EVERGREEN = Path(sys.executable).with_name("evergreen")
SNIPPET = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S))
SETTINGS = load_settings("quick")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With a champion as of 2024-07-01."""
    root = Path(os.environ.get("EVERGREEN_SERVED_HOME") or tmp_path_factory.mktemp("served"))
    if not (root / "lake").exists():
        source = ("--output", str(root / "source"), "--from", "2024-01-01", "--to", "2024-06-30", "--seed", "7")
        evergreen(root, "simulate", *source)
        evergreen(root, "run", "--source", str(root / "source"), "--as-of", "2024-07-01")
    return Home(root)


def evergreen(root: Path, *arguments: str) -> str:
    environment = os.environ | {"EVERGREEN_HOME": str(root)}
    done = subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its address and a key."""
    key = evergreen(home.root, "serve", "--new-key", f"tests-{os.getpid()}").strip()
    environment = os.environ | {"EVERGREEN_HOME": str(home.root)}
    command = [EVERGREEN, "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    address = re.search(r"http://\S+", process.stderr.readline())
    assert address
    while httpx.get(f"{address[0]}/readyz").status_code != 200:
        assert process.poll() is None
    yield process, address[0], key
    process.kill()
    process.wait()


def test_what_the_documentation_does_works(server: tuple[subprocess.Popen[str], str, str]) -> None:
    _, address, key = server
    environment = os.environ | {"EVERGREEN_SERVER": address, "EVERGREEN_KEY": key}
    done = subprocess.run([sys.executable, "-c", SNIPPET], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    predicted, version, *reaches = done.stdout.split()
    assert predicted in load_domain().labels
    assert version == "1"
    assert "".join(reaches) == "['evidence','records']"


def test_answers_are_those_of_a_scored_file_row_by_row(
    home: Home, server: tuple[subprocess.Popen[str], str, str], tmp_path: Path
) -> None:
    _, address, key = server
    domain, source = load_domain(), home.root / "source" / "complaints-2024-06.csv"
    read = [row for row in read_rows(source, SETTINGS.ingestion, domain) if isinstance(row, Record)]
    counts = Counter((row.fields[domain.id] or "").strip() for row in read)
    rows = [row for row in read if counts[(row.fields[domain.id] or "").strip()] == 1][:300]
    known = [name for name in domain.source.fields if name not in domain.outcomes]
    evergreen(home.root, "score", "--input", str(source), "--output", str(tmp_path / "bulk.parquet"))
    bulk = pd.read_parquet(tmp_path / "bulk.parquet").drop_duplicates("record_id").set_index("record_id")

    def ask(first: int) -> list[dict[str, object]]:
        size = 3 + first % 5
        day = {"date_received": "2024-06-30"}
        records = [{name: row.fields[name] for name in known} | day for row in rows[first : first + size]]
        headers = {"Authorization": f"Bearer {key}"}
        done = httpx.post(f"{address}/v1/predict", json={"records": records}, headers=headers, timeout=60)
        assert done.status_code == 200, done.text
        return done.json()["answers"]

    with ThreadPoolExecutor(12) as pool:
        answers = [answer for part in pool.map(ask, range(0, len(rows), 3)) for answer in part]
    assert len({answer["record_id"] for answer in answers}) == len(rows) > 250
    for answer in answers:
        right = bulk.loc[answer["record_id"]]
        assert (answer["predicted"], answer["reason"]) == (right["predicted"], right["reason"])
        if answer["predicted"]:
            assert answer["confidence"] == pytest.approx(right["confidence"], abs=0.02)
        assert answer["features"] == "online"


def test_after_a_kill_the_next_run_knows_all_of_it(
    home: Home, server: tuple[subprocess.Popen[str], str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, *_ = server
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("EVERGREEN_HOME", str(home.root))
    assert land(home)
    sources = [str(home.root / "source"), *served_sources(home)]
    ingest(sources, home.lake, SETTINGS.ingestion, home.domain, "2024-08-02")
    build_marts(home)
    publish(home, audit(home, "2024-08-02", SETTINGS.warehouse), SETTINGS.warehouse)
    query = "select label, text from read_parquet($files) where record_id = '9900000001' order by known_at"
    records = mart(home.lake.current("marts"), "fct_records")
    versions = duckdb.execute(query, {"files": records}).fetchall()
    assert versions[-1][0] == "bank_account"
    assert "overdraft" in versions[-1][1]
