"""The how-tos of the README, run as they stand in a fresh folder, after what `make run` does there.

Not run here, for they need more than a test has: `make drift` and the rollback after it (run by
tests/pipelines/test_demonstration.py), the server (tests/serving/test_served.py), an approval
(tests/registry/test_succession.py), and runs on real records, of which the reading is run, from a folder and from a
bucket.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parent.parent
HOW_TO = (ROOT / "README.md").read_text().partition("## How to\n")[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", HOW_TO, re.S)
ELSEWHERE = ("rollback", "approve", "serve", "make stack")
LONG = ("reproduce", "evergreen run", "withdraw", "replay", "score", "why", "init")
"""Blocks that want a champion, or half a minute or more."""
SHORT = [block for block in BLOCKS if not any(name in block for name in (*ELSEWHERE, *LONG))]


def first_words(block: str) -> str:
    return " ".join(block.split()[:2])


def environment(desk: Path) -> dict[str, str]:
    """What a shell has in which nothing is set."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGREEN_", "AWS_"))}
    return own | {"VIRTUAL_ENV_DISABLE_PROMPT": "1", "PATH": f"{desk / '.venv' / 'bin'}:{os.environ['PATH']}"}


def shell(desk: Path, text: str, **variables: str) -> str:
    """What a script says on stdout. In the folder of a project the home is there; here it is named."""
    home = {} if "--domain" in text else {"EVERGREEN_HOME": str(desk / ".evergreen")}
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        command, cwd=desk, env=environment(desk) | home | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


def made(desk: Path, *arguments: str) -> list[str]:
    """The commands of Evergreen that a target of `make` runs."""
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=desk, env=environment(desk), capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if line.startswith(".venv/bin/evergreen ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's, with the records that `make run` simulates."""
    desk = tmp_path_factory.mktemp("desk")
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-uv.lock", ".venv"):
        (desk / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", desk / "examples", ignore=shutil.ignore_patterns(".evergreen"))
    simulate, _ = made(desk, "run")
    shell(desk, simulate)
    return desk


@pytest.fixture(scope="module")
def champion(desk: Path) -> str:
    """What the rest of `make run` says."""
    return shell(desk, made(desk, "run")[1])


def test_every_how_to_is_known() -> None:
    assert len(BLOCKS) > 10
    for name in (*ELSEWHERE, *LONG):
        assert any(name in block for block in BLOCKS), name
    demonstration = (ROOT / "tests" / "pipelines" / "test_demonstration.py").read_text()
    assert "rollback" in demonstration


@pytest.mark.parametrize("block", SHORT, ids=first_words)
def test_a_short_how_to_runs_as_it_stands(desk: Path, block: str) -> None:
    shell(desk, block)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if any(name in block for name in LONG)], ids=first_words)
def test_a_how_to_runs_as_it_stands_after_make_run(
    desk: Path, block: str, real: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if "--domain" not in block and "data/" not in block:
        assert "version 1" in request.getfixturevalue("champion")
    lines = []
    for line in block.splitlines():
        if line.startswith("make run"):
            domain = line.partition("DOMAIN=")[2]
            lines.append(f"EVERGREEN_DOMAIN={domain} {made(desk, 'run', f'DOMAIN={domain}')[0]}")
        elif "data/complaints" in line or "s3://" in line:
            lines.append(f"evergreen check --source {line.split()[3]}")
        else:
            lines.append(line)
    shell(desk, "\n".join(lines), **real)
    if "routed.parquet" in block:
        assert pq.read_metadata(desk / "routed.parquet").num_rows > 1000


@pytest.fixture(scope="module")
def real(desk: Path) -> Iterator[dict[str, str]]:
    """Records that lie where the README wants real ones, in a folder and in a bucket; the variables to reach them."""
    (desk / "data" / "complaints").mkdir(parents=True)
    file = shutil.copy(desk / ".evergreen" / "source" / "complaints-2024-06.csv", desk / "data" / "complaints")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    reach = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    reach |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    client = boto3.client(
        "s3",
        endpoint_url=reach["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="bucket")
    client.upload_file(str(file), "bucket", "complaints/complaints-2024-06.csv")
    yield reach
    server.stop()
