"""dbt's command with little garbage collection, which also writes dbt's results, and only those.

python -m assets.warehouse.command build ...

Arguments, output and exit status are dbt's. dbt itself writes its results only together with two copies of its
manifest, which nothing here reads: DBT_WRITE_JSON is false, and the results are written here.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from assets.lean import lean, look_for_garbage_rarely

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run dbt; returns its exit status."""
    look_for_garbage_rarely()
    with lean():
        from dbt.artifacts.schemas.run import RunExecutionResult
        from dbt.cli.exceptions import DbtUsageException
        from dbt.cli.main import dbtRunner

    outcome = dbtRunner().invoke(list(arguments))
    if isinstance(outcome.result, RunExecutionResult):
        outcome.result.write(str(Path(os.environ["DBT_TARGET_PATH"], "run_results.json")))
    if isinstance(outcome.exception, DbtUsageException):
        print(outcome.exception, file=sys.stderr)  # noqa: T201 - dbt itself prints every other failure
    return 2 if outcome.exception else int(not outcome.success)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
