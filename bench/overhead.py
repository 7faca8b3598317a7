"""The overhead of a run of the whole graph, in seconds: Dagster, process starts and imports.

The limit is 45 s. Imports are measured in one new process in the graph's order, so that a shared dependency counts
once. Process starts are those of dbt, which parses the project before the graph is loaded and builds it later, and of
the training worker until its first step. What dbt does after its start is not overhead.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 45.0
EVERGREEN = Path(sys.executable).with_name("evergreen")
LOAD = "import pipelines.definitions"
IMPORTS = {
    "dagster and the definitions": "import pipelines.definitions, pipelines.cli",
    "great-expectations": "import great_expectations",
    "feast": "from assets.features.store import feast_imports\nwith feast_imports(): import feast",
    "torch and transformers": "import torch; from transformers import AutoModel, PreTrainedModel",
    "scikit-learn and matplotlib": "import sklearn.linear_model, matplotlib.figure",
    "mlflow": "import mlflow",
    "evidently": "import evidently",
}


def timed_imports() -> dict[str, float]:
    code = ["import gc, json, time", "gc.set_threshold(100_000, 50, 1000)", "found = {}"]
    for name, statement in IMPORTS.items():
        code += ["t = time.perf_counter()", statement, f"found[{name!r}] = time.perf_counter() - t"]
    code.append("print(json.dumps(found))")
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    return {f"import {name}": seconds for name, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def timed(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return time.perf_counter() - started


def timed_run(folder: str) -> tuple[float, float, float]:
    """Seconds of a run in a new home: in all, in its steps, and of its worker up to the first training step."""
    days = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
    subprocess.run([EVERGREEN, "simulate", "--output", f"{folder}/source", *days], check=True)
    started = time.perf_counter()
    command = [EVERGREEN, "run", "--source", f"{folder}/source", "--as-of", "2024-07-01", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - started
    training = next(Path(f"{folder}/run/lake/challenger").glob("*/*/training.json"))
    startup = json.loads(training.read_text())["start_seconds"]
    return wall, sum(json.loads(done.stdout)["seconds"].values()), sum(startup.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVERGREEN_HOME"] = f"{folder}/run"
        wall, steps, startup = timed_run(folder)
        split = timed_imports()
        start_dbt, again = timed("from dbt.cli.main import cli"), timed(LOAD)
        os.environ["EVERGREEN_HOME"] = f"{folder}/new"
        parse = timed(LOAD) - again - start_dbt
    split["start dbt, twice"] = 2 * start_dbt
    split["start the training worker, to its first step"] = startup
    split["dagster around the steps"] = wall - steps - split["import dagster and the definitions"] - parse - start_dbt
    for name, seconds in split.items():
        print(f"{seconds:8.1f} s  {name}")
    overhead = sum(split.values())
    print(f"{overhead:8.1f} s  of {wall:.1f} s is overhead: {overhead / LIMIT:.2f} of the limit of {LIMIT:.0f} s")


if __name__ == "__main__":
    main()
