"""A training's driver on a Ray cluster: `python -m assets.training.launchers.driver s3://BUCKET/PREFIX`.

It starts the ranks on workers, and starts them again from the newest checkpoint when one of them is lost, until there
is a bundle. The rest of the program, other than `rank.py`, does not know Ray.
"""

import asyncio
import os
import secrets
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from assets.cluster.driver import FAILURE, driven, require_code
from assets.cluster.exchange import Exchange
from assets.exceptions import TrainingError
from assets.training.launchers.cluster import BUNDLE, PLAN
from assets.training.launchers.launch import hash_code
from assets.training.launchers.preparation import prepare_rows
from assets.training.launchers.rank import Rank, run_rank
from assets.training.plan import TrainingPlan
from assets.training.program.mirror import Mirror
from assets.training.program.progress import Report, reports

__all__ = ["main"]

_RESTARTS = 3
"""How often in a row ranks start again without a new checkpoint."""
_START_SECONDS, _FEWER_AFTER_SECONDS = 300, 60
"""How long the workers may take to start; where there are too few, Ray goes on waiting for them. Fewer will do in the
second case: Ray counts a node that was lost for a while, and would ask for its workers all that time."""


def main(address: str) -> int:
    """Train the plan of an exchange. Returns 0 when its bundle is there; otherwise it has a line that says why not."""
    exchange = Exchange(address)
    with reports(0) as (say, report):
        return driven(exchange, say, lambda: drive(exchange, say, report))


def drive(exchange: Exchange, say: Callable[[str], None], report: Report) -> None:
    """Start the ranks, again and again. Raises TrainingError when that does not help."""
    plan = TrainingPlan.model_validate_json(exchange.read(PLAN) or "")
    if exchange.has(BUNDLE):
        return
    require_code(plan.code, hash_code())
    _configure(plan)
    if plan.prepared is not None:
        prepare_rows(plan, exchange, say)
    with _reports(say, report) as reports:
        _start_until_done(plan, exchange, reports, say)


def _start_until_done(plan: TrainingPlan, exchange: Exchange, reports: Any, say: Callable[[str], None]) -> None:
    mirror, lost = Mirror.of(plan), 0
    assert mirror is not None
    newest = mirror.newest()
    while not _fit(plan, Rank(exchange.address, secrets.token_hex(4), reports)):
        if why := exchange.read(FAILURE):
            raise TrainingError(why)
        before, newest = newest, mirror.newest()
        lost = lost + 1 if newest == before else 0
        if lost > _RESTARTS:
            raise TrainingError(f"the ranks ended {lost} times in a row without a new checkpoint: see the run's log")
        say(f"ranks were lost; they start again from {newest or 'the beginning'}")


def _configure(plan: TrainingPlan) -> None:
    """Connect to the cluster; Ray Train reads its settings from variables, here and on the workers."""
    import ray

    silence, elastic = str(plan.settings.cluster.silence_seconds), plan.settings.cluster.fewest_ranks is not None
    variables = {
        **{"RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_METRICS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0"},
        **{"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": silence, "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": silence},
        **{"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(_FEWER_AFTER_SECONDS if elastic else _START_SECONDS)},
        "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "1",  # a rank takes the GPU of its number on its machine
    }
    os.environ |= variables
    ray.init(log_to_driver=False, runtime_env={"env_vars": variables})


def _fit(plan: TrainingPlan, rank: Rank) -> bool:
    """Start the ranks once; whether they have made the bundle."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    cluster, ranks = plan.settings.cluster, plan.world_size
    needs = {"CPU": cluster.rank_cpus, **({"GPU": cluster.rank_gpus} if cluster.rank_gpus else {})}
    fewest = cluster.fewest_ranks or ranks
    scaling = ScalingConfig(
        num_workers=ranks if fewest == ranks else (fewest, ranks),
        use_gpu=cluster.rank_gpus > 0,
        resources_per_worker=needs,
    )
    with tempfile.TemporaryDirectory(prefix="evergreen-") as unused:  # Ray's own checkpoints would be there
        run = RunConfig(name=plan.training_id, storage_path=unused, failure_config=FailureConfig(max_failures=0))
        config = vars(rank)
        trainer = DataParallelTrainer(run_rank, train_loop_config=config, scaling_config=scaling, run_config=run)
        try:
            trainer.fit()
        except TrainingFailedError:
            traceback.print_exc()  # in the job's log
            return False
    return True


_Said = str | dict[str, Any] | None
"""A line, a message about the curves, or None for the end."""


class _Reports:
    """What ranks say, in the cluster's memory until the driver takes it."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[_Said] = asyncio.Queue()

    async def tell(self, said: _Said) -> None:
        await self._said.put(said)

    async def take(self) -> _Said:
        return await self._said.get()


@contextmanager
def _reports(say: Callable[[str], None], report: Report) -> Iterator[Any]:
    """Inside, an actor takes what ranks say, which a thread of this process passes on."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On a worker's node it would end with it, and keep one that is to be taken away from being given up.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = ray.remote(num_cpus=0, scheduling_strategy=here)(_Reports).remote()

    def listen() -> None:
        while (said := ray.get(reports.take.remote())) is not None:
            say(said) if isinstance(said, str) else report(said)

    thread = Thread(target=listen)
    thread.start()
    try:
        yield reports
    finally:
        ray.get(reports.tell.remote(None))
        thread.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
