"""What every test gets: a home of its own, no network, no telemetry."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import settings
from markdown_it import MarkdownIt
from markdown_it.token import Token
from playwright.sync_api import Page, expect, sync_playwright

from assets.addresses import PORTS, address
from assets.home import Home
from pipelines import ui

os.environ |= {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}

# What a script starts with & ignores SIGINT, Dagster treats SIGTERM as it finds SIGINT, and children inherit both.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time and everywhere; how long one takes says more about the machine than about the code.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

PATIENCE = 120_000
"""Milliseconds that a page may take on a busy machine."""

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"


LONGEST = [
    "test_graph.py",
    "test_tickets_graph.py",
    "test_worker.py",
    "test_forget.py",
    "test_registry.py",
    "test_cli.py",
    "test_prune_on_s3.py",
    "test_warehouse.py",
    "test_domains.py",
    "test_evaluate.py",
    "test_audit.py",
    "test_mirror.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that none runs on alone at the end."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def objects_server() -> Iterator[str]:
    """The address of an S3 server without authentication, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def reach_objects(server: str, patch: pytest.MonkeyPatch) -> None:
    """Set the variables by which this process and its children reach an S3 server."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        patch.setenv(f"AWS_{name}", value)
    patch.setenv("AWS_ENDPOINT_URL", server)


def empty_bucket(name: str, server: str, patch: pytest.MonkeyPatch) -> Any:
    """A bucket of an S3 server, which this process and its children reach."""
    reach_objects(server, patch)
    bucket = boto3.resource("s3").Bucket(name)
    bucket.create()
    bucket.objects.delete()
    return bucket


@pytest.fixture
def bucket(objects_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its empty bucket `lake`, and the variables by which this process and its children reach it."""
    return empty_bucket("lake", objects_server, monkeypatch)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of the machine's Chromium. Tests ask for it first: where there is none, no server is started."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on the PATH")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield page


@pytest.fixture
def served() -> Callable[..., AbstractContextManager[dict[str, str]]]:
    """The addresses of some servers of a home, up, each on a port of its own."""

    @contextmanager
    def serve(home: Home, *names: str) -> Iterator[dict[str, str]]:
        with ui.serving(home, *names, wanted=dict.fromkeys(PORTS, 0)) as processes:
            ui.await_servers(home, processes)
            yield {name: address(home, name).rstrip("/") for name in names if name in PORTS}

    return serve


@pytest.fixture(scope="session")
def cfpb() -> Path:
    if not CFPB.is_dir():
        pytest.skip(f"the real records are not at {CFPB}")
    return CFPB


@pytest.fixture
def cells() -> Callable[[str], list[list[str]]]:
    """The cells that a reader of Markdown sees in all tables of a text, row by row."""

    def read(text: str) -> list[list[str]]:
        rows: list[list[str]] = []
        for token in MarkdownIt().enable(["table", "strikethrough"]).parse(text):
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline" and token.level > 3:
                rows[-1].append(_visible(token))
        return rows

    return read


@pytest.fixture
def shown() -> Callable[[Any], list[list[Any]]]:
    """The head and the rows of a table in an asset's metadata."""

    def read(table: Any) -> list[list[Any]]:
        names = [column.name for column in table.schema.columns]
        return [names, *([record.data[name] for name in names] for record in table.records)]

    return read


@pytest.fixture
def text_of() -> Callable[[str], str]:
    """The text that a reader of Markdown sees, a line for each block."""

    def read(text: str) -> str:
        tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(text)
        blocks = {"inline", "list_item_open", "list_item_close", "bullet_list_open", "bullet_list_close"}
        assert {token.type for token in tokens} <= {*blocks, "paragraph_open", "paragraph_close"}
        items = [token for token in tokens if token.type in ("inline", "list_item_open")]
        return "\n".join(_visible(token) for token in items if token.type == "inline")

    return read


def _visible(token: Token) -> str:
    inside = token.children or []
    assert {child.type for child in inside} <= {"text"}, [child.type for child in inside]
    return "".join(child.content for child in inside)
