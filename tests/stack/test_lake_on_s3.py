"""Many writers, kills and faults of a network between them and S3: publications are whole, and in one order."""

import json
import random
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from assets.exceptions import ObjectsError, Superseded
from assets.hashing import hash_bytes
from assets.lake import Lake
from tests.stack.conftest import home_on
from tests.stack.servers import Proxy

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
WRITERS = 16


@pytest.fixture
def machine(seaweed: Any, tmp_path: Path) -> Callable[[], Lake]:
    """Another machine's lake, of the one prefix: a folder of its own."""

    def make() -> Lake:
        return home_on(tmp_path / secrets.token_hex(4), f"{seaweed.url}/evergreen").lake

    return make


def pointer(seaweed: Any, table: str = "table") -> Any:
    answer = seaweed.client().get_object(Bucket=seaweed.name, Key=f"evergreen/lake/{table}/CURRENT")
    return json.loads(answer["Body"].read())


def is_whole(lake: Lake, version: str) -> bool:
    """Whether every file of a version has the content that names it."""
    folder = lake.path("table", version)
    return hash_bytes(b"".join(path.read_bytes() for path in sorted(folder.iterdir())))[:16] == version


def names(lake: Lake) -> list[str]:
    return [version for _, version in lake.versions("table")]


def publish(lake: Lake, files: int = 3) -> str:
    """Publish some random bytes as a version that is named by them."""
    contents = [secrets.token_bytes(20_000) for _ in range(files)]
    version = hash_bytes(b"".join(contents))[:16]
    with lake.staging("table") as staged:
        for number, content in enumerate(contents):
            (staged / f"{number:02}").write_bytes(content)
        lake.publish("table", version, staged)
    return version


def test_of_writers_at_the_same_time_one_wins_each_time_and_no_version_is_lost(
    machine: Callable[[], Lake], seaweed: Any
) -> None:
    lakes, rounds = [machine() for _ in range(WRITERS)], 2
    won: list[str] = []

    def write(lake: Lake) -> None:
        """Publish as often as there are rounds, and begin again after each defeat."""
        mine = 0
        while mine < rounds:
            with suppress(Superseded):
                won.append(publish(lake, files=2))
                mine += 1

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, lakes))
    content = pointer(seaweed)
    assert content["generation"] == len(won) == WRITERS * rounds
    assert {version for version, _ in content["moves"]} <= set(won)
    reader = machine()
    assert set(won) <= set(names(reader))
    assert all(is_whole(reader, version) for version in names(reader))


def test_exactly_one_of_those_who_build_on_a_publication_replaces_it(machine: Callable[[], Lake], seaweed: Any) -> None:
    publish(machine())
    for generation in range(2, 6):
        start = threading.Barrier(WRITERS)

        def build(number: int, start: threading.Barrier = start) -> str | None:
            lake = machine()
            with lake.staging("table") as staged:
                content = secrets.token_bytes(100)
                (staged / "data").write_bytes(content)
                start.wait()
                with suppress(Superseded):
                    lake.publish("table", hash_bytes(content)[:16], staged)
                    return hash_bytes(content)[:16]
            return None

        with ThreadPoolExecutor(WRITERS) as pool:
            (winner,) = filter(None, pool.map(build, range(WRITERS)))
        assert pointer(seaweed)["generation"] == generation
        assert machine().version("table") == winner


WRITER = """
import secrets, sys
from pathlib import Path
from assets.exceptions import Superseded
from assets.hashing import hash_bytes
from tests.stack.conftest import home_on
lake = home_on(Path(sys.argv[1]), sys.argv[2]).lake
while True:
    contents = [secrets.token_bytes(200_000) for _ in range(20)]
    version = hash_bytes(b"".join(contents))[:16]
    with lake.staging("table") as staged:
        for number, content in enumerate(contents):
            (staged / f"{number:02}").write_bytes(content)
        print("staged", version, flush=True)
        lake.publish("table", version, staged)
    print("published", version, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_the_last_publication_whole(
    machine: Callable[[], Lake], seaweed: Any, tmp_path: Path
) -> None:
    chance, last = random.Random(17), publish(machine())
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "killed"), f"{seaweed.url}/evergreen"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [process.stdout.readline().split() for _ in range(1 + chance.randrange(3))]
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.3)
            process.kill()
            told += [line.split() for line in process.stdout]
        assert process.returncode == -signal.SIGKILL
        published = [version for what, version in told if what == "published"]
        staged = [version for what, version in told if what == "staged"]
        reader = machine()
        current = reader.version("table")
        assert current in (published or [last])[-1:] + staged[-1:]
        last = str(current)
        assert is_whole(reader, last)
    assert is_whole(machine(), publish(home_on(tmp_path / "killed", f"{seaweed.url}/evergreen").lake))


@pytest.fixture
def proxy(seaweed: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(seaweed.endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server
        server.shutdown()
        thread.join()


def test_a_publication_through_a_faulty_network_happens_wholly_or_not_at_all(
    machine: Callable[[], Lake], proxy: Proxy, seaweed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.objects._ATTEMPTS", 3)
    won, tried = [publish(machine())], 30
    proxy.faulty = 0.4
    for _ in range(tried):
        with suppress(ObjectsError):
            won.append(publish(machine()))
    proxy.faulty = 0.0
    refused = tried + 1 - len(won)
    assert 0 < refused < tried
    content = pointer(seaweed)
    moved = [version for version, _ in content["moves"]]
    assert [version for version in moved if version in won] == won  # in this order, and none twice
    assert len(moved) - len(won) <= refused  # whoever was refused may have moved the pointer, wholly
    reader = machine()
    assert all(is_whole(reader, version) for version in names(reader))
    assert moved[-1] == reader.version("table")


def test_what_s3_says_is_one_line_that_names_object_and_endpoint(
    machine: Callable[[], Lake], proxy: Proxy, seaweed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.objects._ATTEMPTS", 2)
    lake = machine()
    proxy.faulty = 1.0
    with pytest.raises(ObjectsError, match=rf"evergreen/lake/table/CURRENT: .* \(S3 endpoint {proxy.endpoint}\)"):
        lake.version("table")
    proxy.faulty = 0.0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ObjectsError, match=r"lake/table/CURRENT: The request signature.*\(S3 endpoint http") as error:
        lake.version("table")
    assert "\n" not in str(error.value)
    assert "another" not in str(error.value)
