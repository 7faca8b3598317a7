"""The dbt project: what it is told, its manifest, and what went wrong in a build.

Staging adds new objects to what earlier builds left in the warehouse. That is right only as long as the same project
built it, from objects that all come before the new ones, and ended. A note beside the warehouse says so; without it
the warehouse is built anew.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets.exceptions import AuditError, EvergreenError
from assets.lake import Home, hash_file, hash_json, write_atomically
from assets.settings import WarehouseSettings

__all__ = [
    "DBT",
    "MARTS",
    "PROJECT",
    "build_marts",
    "dbt_environment",
    "explain_failure",
    "finish_build",
    "manifest_path",
    "prepare_build",
    "staged",
]

PROJECT = Path(__file__).parents[2] / "dbt"

DBT = Path(sys.executable).with_name("dbt")
"""dbt's command in this environment, on the PATH or not."""

MARTS = ("fct_complaints", "labels", "company_daily", "state_daily", "quarantined_complaints", "record_counts")
"""The tables that are staged by a build, audited and published together."""


def staged(home: Home) -> Path:
    """Where a successful build leaves the marts, one Parquet file each, for the audit."""
    return home.warehouse / "staged"


def prepare_build(home: Home) -> None:
    """Forget what an earlier build left, its marts always, and the warehouse unless this build may add to it.

    Marts are staged only after a build whose tests all passed. Raises NotPublished when no raw complaints are there.
    """
    note = _note(home)
    if not _continues(home, note):
        for left in home.warehouse.glob("warehouse.duckdb*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    _built(home).unlink(missing_ok=True)
    write_atomically(_building(home), json.dumps(note))
    staged(home).mkdir(parents=True, exist_ok=True)
    for mart in MARTS:
        (staged(home) / f"{mart}.parquet").unlink(missing_ok=True)
    _run_results(home).unlink(missing_ok=True)


def finish_build(home: Home) -> None:
    """Note that the build ended, so that the next one may add to it."""
    _building(home).replace(_built(home))


def build_marts(home: Home, settings: WarehouseSettings) -> None:
    """Build and test all models outside of any graph. Raises AuditError naming what failed."""
    prepare_build(home)
    environment = os.environ | dbt_environment(home, settings)
    ended = subprocess.run(
        [DBT, "build", "--quiet"], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise explain_failure(home, ended.stdout + ended.stderr)
    finish_build(home)


def dbt_environment(home: Home, settings: WarehouseSettings) -> dict[str, str]:
    """The environment variables that dbt is run with. Raises NotPublished when no raw complaints are there."""
    return _folders(home, home.lake.current("raw_complaints")) | {
        "EVERGREEN_MAX_UNMAPPED_SHARE": str(settings.max_unmapped_share),
        "EVERGREEN_MAX_QUARANTINED_SHARE": str(settings.max_quarantined_share),
    }


def manifest_path(home: Home) -> Path:
    """dbt's manifest of the project as it is now, made by `dbt parse` when its files or dbt's version have changed.

    Raises EvergreenError when dbt cannot parse the project.
    """
    manifest = home.warehouse / "manifests" / f"{_fingerprint()}.json"
    if not manifest.exists():
        _parse(home, manifest)
    return manifest


def explain_failure(home: Home, printed: str) -> AuditError:
    """One line naming what failed in the build that just ended: from dbt's record of it, else from what it printed."""
    record = _run_results(home)
    results = json.loads(record.read_text())["results"] if record.exists() else []
    failed = [_explain(result) for result in results if result["status"] in ("error", "fail")]
    return AuditError("; ".join(failed) or f"dbt: {_one_line(printed)}")


def _note(home: Home) -> dict[str, Any]:
    """What a build is made by, and of which objects: in the order of their versions, with all that decides its rows."""
    table = pq.read_table(home.lake.current("raw_complaints") / "objects.parquet").sort_by("seq")
    return {
        "project": _fingerprint(),
        "objects": [[row["object_id"], row["known_from"], row["withdrawn"]] for row in table.to_pylist()],
    }


def _continues(home: Home, note: dict[str, Any]) -> bool:
    """Whether the last build ended, and was made by the same project of the first of the same objects."""
    if not _built(home).exists() or not _database(home).exists():
        return False
    last = json.loads(_built(home).read_text())
    return bool(last["project"] == note["project"] and last["objects"] == note["objects"][: len(last["objects"])])


def _built(home: Home) -> Path:
    return home.warehouse / "built.json"


def _building(home: Home) -> Path:
    return home.warehouse / "building.json"


def _database(home: Home) -> Path:
    return home.warehouse / "warehouse.duckdb"


def _run_results(home: Home) -> Path:
    return home.warehouse / "target" / "run_results.json"


def _explain(result: dict[str, str]) -> str:
    kind, _, name = result["unique_id"].split(".")[:3]
    return f"dbt {kind} {name}: {_one_line(result['message'])}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fingerprint() -> str:
    files = [p for p in PROJECT.rglob("*") if p.is_file() and p.suffix in (".sql", ".yml", ".csv")]
    hashes = {p.relative_to(PROJECT).as_posix(): hash_file(p) for p in files}
    return hash_json({"files": hashes, "dbt": [version("dbt-core"), version("dbt-duckdb")]})[:16]


def _parse(home: Home, manifest: Path) -> None:
    """Run `dbt parse` beside the target folder, and move what it wrote into place."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".parse-", dir=home.warehouse) as folder:
        environment = os.environ | _folders(home, Path("/none")) | {"DBT_TARGET_PATH": folder, "DBT_LOG_PATH": folder}
        command = [str(DBT), "--quiet", "parse", "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EvergreenError(f"dbt/: cannot be parsed: {_one_line(done.stdout)}")
        (home.warehouse / "target").mkdir(exist_ok=True)
        # A build that finds dbt's parsed state need not parse again.
        Path(folder, "partial_parse.msgpack").replace(home.warehouse / "target" / "partial_parse.msgpack")
        Path(folder, "manifest.json").replace(manifest)


def _folders(home: Home, raw: Path) -> dict[str, str]:
    return {
        "EVERGREEN_RAW": _quoted(str(raw.absolute())),
        "EVERGREEN_WAREHOUSE": str(_database(home).absolute()),
        "EVERGREEN_STAGED": _quoted(str(staged(home).absolute())),
        "DBT_TARGET_PATH": str((home.warehouse / "target").absolute()),
        "DBT_LOG_PATH": str((home.warehouse / "target").absolute()),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


def _quoted(path: str) -> str:
    """A path as it stands between the quotes of an SQL string."""
    return path.replace("'", "''")
