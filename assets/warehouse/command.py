"""dbt's command without what it costs to look for garbage, and with a record of its results alone.

python -m assets.warehouse.command build ...

It takes dbt's arguments, prints what dbt prints and exits as dbt does. dbt itself writes its results only together with
two copies of its manifest, which nothing here reads: DBT_WRITE_JSON is false, and the results are written here.
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

    ended = dbtRunner().invoke(list(arguments))
    if isinstance(ended.result, RunExecutionResult):
        ended.result.write(str(Path(os.environ["DBT_TARGET_PATH"], "run_results.json")))
    if isinstance(ended.exception, DbtUsageException):
        print(ended.exception, file=sys.stderr)  # noqa: T201 - what else went wrong, dbt has said
    return 2 if ended.exception else int(not ended.success)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
