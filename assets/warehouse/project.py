"""Runs the dbt project: its environment, its manifest, and what went wrong in a build.

Staging adds new objects to the warehouse of earlier builds. That is right only if the last build finished, used the
same project, and all of its objects come before the new ones. A note next to the warehouse says so; without it the
warehouse is rebuilt.
"""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow.parquet as pq

from assets.duck import connect
from assets.exceptions import AuditError, EvergreenError
from assets.home import Home
from assets.settings import domain_folder
from assets.shared import superseded
from assets.warehouse.composing import ENGINE, compose, fingerprint, project_folder
from assets.warehouse.marts import adopt, mart_names, seal
from assets.warehouse.staging import stage
from assets.writing import write_atomically

__all__ = [
    "DBT",
    "build_marts",
    "building",
    "built",
    "explain_failure",
    "keep_built",
    "manifest_path",
    "rebuild",
    "require_newest",
]

DBT = (sys.executable, "-P", "-m", "assets.warehouse.command")
"""dbt's command in this environment."""

_log = logging.getLogger("evergreen")


@contextmanager
def building(home: Home) -> Iterator[dict[str, str]]:
    """The environment variables to run dbt with, for one build at a time; the marts are staged and kept afterwards.

    They are staged only after a build whose tests all passed, as a version of `marts` that no reader sees before it is
    audited and published. Raises NotPublished when there are no raw records.
    """
    home.warehouse.mkdir(parents=True, exist_ok=True)
    with home.lake.staging("marts") as folder:
        adopt(home.lake)
        upon = home.lake.version("marts")  # before the records: whoever publishes later had them all, or more
        raw = home.lake.current("raw_records")
        note = _note(home, raw)
        if why := _unfit(home, note):
            rebuild(home, why)
        last = json.loads(_ended(home).read_text()) if _database(home).exists() else None
        _ended(home).unlink(missing_ok=True)
        _run_results(home).unlink(missing_ok=True)
        _raw(home).unlink(missing_ok=True)
        _raw(home).symlink_to(os.path.relpath(raw, home.warehouse))
        compose(home)
        yield _variables(home)
        if _passed(home):
            before = _last_built(home) if last else None
            days = [known_from for _, known_from, *_ in note["objects"][len(last["objects"]) if last else 0 :]]
            stage(home.domain, _database(home), folder, before, days)
            keep_built(home, folder)
            write_atomically(_upon(home), upon or "")
            write_atomically(_ended(home), json.dumps(note))


def require_newest(home: Home, folder: Path, published: str | None) -> None:
    """Raises Superseded if another machine has published other marts since this machine's build began.

    Its records may be newer. Within a machine, builds wait for each other, and the newest one is audited.
    """
    upon = (_upon(home).read_text() or None) if _upon(home).exists() else None
    if home.objects is not None and published not in (upon, folder.name):
        raise superseded("marts", upon, published)


def keep_built(home: Home, folder: Path) -> None:
    """Keep the marts in a folder, under the hash of their content, as those of the newest build."""
    version = home.lake.keep("marts", seal(folder, _last_built(home)), folder)
    write_atomically(_newest(home), version.name)


def built(home: Home) -> Path:
    """The marts of the newest build whose tests all passed. Raises AuditError without one."""
    if not _newest(home).exists():
        raise AuditError("no marts are staged; the warehouse has no build whose tests all passed")
    return home.lake.path("marts", _newest(home).read_text())


def build_marts(home: Home) -> None:
    """Build and test all models outside Dagster. Raises AuditError naming what failed."""
    with building(home) as variables:
        process = subprocess.run(
            [*DBT, "build", "--quiet"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise explain_failure(home, process.stdout + process.stderr)


def rebuild(home: Home, why: str) -> None:
    """Make the next build start with an empty warehouse: everything in it is in the lake."""
    _log.warning("rebuilding the warehouse from the lake: %s", why)
    for path in home.warehouse.glob(f"{_database(home).name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def manifest_path(home: Home) -> Path:
    """dbt's manifest of the current project, written by `dbt parse` when its files or dbt's version have changed.

    Raises EvergreenError when dbt cannot parse the project.
    """
    manifest = home.warehouse / "manifests" / f"{fingerprint(home.domain)}.json"
    if not manifest.exists():
        with home.in_use(f"evergreen-parse-{uuid4().hex}"):
            _parse(home, manifest)
    return manifest


def explain_failure(home: Home, printed: str) -> AuditError:
    """One line naming what failed in the last build: from dbt's results, else from what it printed."""
    failed = [_explain(result) for result in _results(home) if result["status"] in ("error", "fail")]
    return AuditError("; ".join(failed) or f"dbt: {_one_line(printed)}")


def _last_built(home: Home) -> Path | None:
    folder = built(home) if _newest(home).exists() else None
    return folder if folder and folder.is_dir() else None


def _note(home: Home, raw: Path) -> dict[str, Any]:
    """A build's project and its objects, in the order of their versions, with everything that decides its rows."""
    objects = pq.read_table(raw / "objects.parquet").sort_by("seq").to_pylist()
    what = [
        [row["object_id"], row["known_from"], row["withdrawn"], *filter(None, [row.get("forgotten")])]
        for row in objects
    ]
    return {"project": fingerprint(home.domain), "objects": what}


def _unfit(home: Home, note: dict[str, Any]) -> str | None:
    """Why a build cannot add to the warehouse; None when it can, or there is no warehouse.

    This is the only place besides dbt that opens it, after any dbt process that outlived its run has let go of it.
    """
    database = _database(home)
    if not database.exists():
        return None
    with database.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # as DuckDB locks it: a lock by flock, as in locks.py, does not see that
    if not _ended(home).exists():
        return "the last build did not finish"
    last = json.loads(_ended(home).read_text())
    if last["project"] != note["project"]:
        return "the SQL or the domain has changed"
    if last["objects"] != note["objects"][: len(last["objects"])]:
        return "new objects come before those it was built from, or those are no longer in the lake as they were"
    try:
        connect(database, read_only=True).close()
    except duckdb.Error as error:
        return f"{database} cannot be read: {_one_line(str(error))}"
    return None


def _passed(home: Home) -> bool:
    """Whether the last build built every mart and none of its tests failed."""
    results = _results(home)
    nodes = {result["unique_id"].split(".")[2] for result in results}
    return nodes.issuperset(mart_names(home.domain)) and all(
        result["status"] in ("success", "pass", "warn") for result in results
    )


def _database(home: Home) -> Path:
    return home.warehouse / "warehouse.duckdb"


def _ended(home: Home) -> Path:
    """The note of the last build, present only if it finished."""
    return home.warehouse / "built.json"


def _raw(home: Home) -> Path:
    """The raw records a build reads, at a fixed path: dbt parses files again when a variable they use changes."""
    return home.warehouse / "raw"


def _newest(home: Home) -> Path:
    return home.warehouse / "BUILT"


def _upon(home: Home) -> Path:
    """What was published when the newest build began."""
    return home.warehouse / "UPON"


def _run_results(home: Home) -> Path:
    return home.warehouse / "target" / "run_results.json"


def _results(home: Home) -> list[dict[str, Any]]:
    """dbt's results for the models and tests of the last build."""
    record = _run_results(home)
    results: list[dict[str, Any]] = json.loads(record.read_text())["results"] if record.exists() else []
    return results


def _explain(result: dict[str, str]) -> str:
    kind, _, name = result["unique_id"].split(".")[:3]
    return f"dbt {kind} {name}: {_one_line(result['message'])}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _parse(home: Home, manifest: Path) -> None:
    """Run `dbt parse` in a temporary folder, and move its output into place."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".parse-", dir=home.warehouse) as folder:
        here = {"DBT_TARGET_PATH": folder, "DBT_LOG_PATH": folder, "DBT_WRITE_JSON": "true"}
        compose(home)
        environment = os.environ | _variables(home) | here
        command = [*DBT, "--quiet", "parse"]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            raise EvergreenError(f"{domain_folder() / 'dbt'}: cannot be parsed: {_one_line(process.stdout)}")
        (home.warehouse / "target").mkdir(exist_ok=True)
        # So that the next build need not parse again.
        Path(folder, "partial_parse.msgpack").replace(home.warehouse / "target" / "partial_parse.msgpack")
        Path(folder, "manifest.json").replace(manifest)


def _variables(home: Home) -> dict[str, str]:
    return {
        "EVERGREEN_RAW": _quoted(str(_raw(home).absolute())),
        "EVERGREEN_WAREHOUSE": str(_database(home).absolute()),
        "DBT_TARGET_PATH": str((home.warehouse / "target").absolute()),
        "DBT_LOG_PATH": str((home.warehouse / "target").absolute()),
        "DBT_LOG_LEVEL_FILE": "none",
        "DBT_WRITE_JSON": "false",
        "DBT_PROJECT_DIR": str(project_folder(home).absolute()),
        "DBT_PROFILES_DIR": str(ENGINE),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


def _quoted(path: str) -> str:
    """A path escaped for an SQL string."""
    return path.replace("'", "''")
