"""What a run of the whole graph costs beside its work: Dagster, process starts and imports, in seconds.

The limit is 45 s. Imports are measured in one fresh process in the graph's order, so that what two libraries share is
counted once; process starts are those of dbt and of the training worker up to its first step.
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
IMPORTS = {
    "dagster and the definitions": "import pipelines.definitions, pipelines.cli",
    "great-expectations": "import great_expectations",
    "feast": "import feast",
    "torch and transformers": "import torch, transformers",
    "scikit-learn and matplotlib": "import sklearn.linear_model, matplotlib.figure",
    "mlflow": "import mlflow",
    "evidently": "import evidently",
}


def timed_imports() -> dict[str, float]:
    code = ["import json, time", "found = {}"]
    for name, statement in IMPORTS.items():
        code += ["t = time.perf_counter()", statement, f"found[{name!r}] = time.perf_counter() - t"]
    code.append("print(json.dumps(found))")
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    return {f"import {name}": seconds for name, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def timed_start(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"EVERGREEN_HOME": f"{folder}/home"}
        source = f"{folder}/source"
        days = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7"]
        subprocess.run([EVERGREEN, "simulate", "--output", source, *days], check=True, env=environment)
        started = time.perf_counter()
        command = [EVERGREEN, "run", "--source", source, "--as-of", "2024-07-01", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        wall = time.perf_counter() - started
        summary = json.loads(done.stdout)
        worker = next(Path(f"{folder}/home/lake/challenger").glob("*/*/training.json"))
        startup = sum(json.loads(worker.read_text())["start_seconds"].values())
    steps = sum(summary["seconds"].values())
    split = timed_imports()
    split["start dbt"] = timed_start("from dbt.cli.main import cli")
    split["start the training worker, to its first step"] = startup
    split["dagster around the steps"] = wall - steps - split["import dagster and the definitions"]
    for name, seconds in split.items():
        print(f"{seconds:8.1f} s  {name}")
    overhead = sum(split.values())
    print(f"{overhead:8.1f} s  of {wall:.1f} s is overhead: {overhead / LIMIT:.2f} of the limit of {LIMIT:.0f} s")


if __name__ == "__main__":
    main()
