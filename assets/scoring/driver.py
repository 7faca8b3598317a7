"""A scoring's driver on a Ray cluster: `python -m assets.scoring.driver s3://BUCKET/PREFIX`."""

import sys
from collections.abc import Callable

from assets.cluster.chunks import Needs, answer_chunks
from assets.cluster.driver import driven, require_code
from assets.cluster.exchange import Exchange
from assets.scoring.bulk import hash_answering, load_answer, read_plan
from assets.training.program.progress import reports

__all__ = ["drive", "main"]


def main(address: str) -> int:
    """Have the chunks of an exchange answered. Returns 0 when they are; otherwise it has a line that says why not."""
    exchange = Exchange(address)
    with reports(0) as (say, _):
        return driven(exchange, say, lambda: drive(exchange, say))


def drive(exchange: Exchange, say: Callable[[str], None]) -> None:
    """Connect to the cluster, and have its workers answer. Raises ClusterError when they cannot."""
    plan = read_plan(exchange)
    require_code(plan.code, hash_answering())
    import ray

    ray.init(log_to_driver=False)
    needs = plan.settings.cluster
    answer_chunks(exchange, load_answer, Needs(needs.worker_cpus, needs.worker_gpus), say)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
