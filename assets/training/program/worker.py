"""The training program: `python -m assets.training.program.worker PLAN.json`, one process per rank.

Reads the plan, builds the engine, loops, writes the bundle. It runs under Dagster Pipes, under a launcher, and alone.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from assets import logs
from assets.exceptions import EvergreenError, Stopped
from assets.s3 import UnreachableError
from assets.training.plan import TrainingPlan
from assets.training.program.process import (
    die_with_parent,
    keep_memory,
    lean_imports,
    leave,
    silence_stdout,
    take_environment,
    use_cores,
)
from assets.training.program.progress import Phases, Report, reports
from assets.training.tasks import TASKS

__all__ = ["main", "train"]

_STATUSES: dict[type[EvergreenError], int] = {Stopped: 128 + signal.SIGTERM, UnreachableError: os.EX_TEMPFAIL}
"""Exit statuses of what ends a run that can go on."""


def main(path: Path) -> int:
    """Run one rank of a plan. Returns 0 when the bundle is written; otherwise `plan.failure` says why it is not.

    It is 143, like that of a process ended by SIGTERM, when the run was asked to stop and is saved, 75 (EX_TEMPFAIL)
    when S3 did not answer, and 1 otherwise.
    """
    die_with_parent()
    silence_stdout()
    keep_memory()
    take_environment(path.parent)
    logs.begin()
    plan = TrainingPlan.model_validate_json(path.read_text())
    threads = use_cores()
    lean_imports()
    with reports(int(os.environ.get("RANK", 0))) as (say, report):
        try:
            report({"training_id": plan.training_id, "as_of": plan.as_of})
            train(plan, threads, say, report)
        except EvergreenError as error:
            plan.failure.write_text(str(error))
            say(str(error))
            return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 1)
    return 0


def train(plan: TrainingPlan, threads: int, say: Callable[[str], None], report: Report) -> None:
    """Fine-tune according to the plan, and write the bundle. Raises TrainingError, BaseModelError or SettingsError."""
    phases, task = Phases(), TASKS[plan.task]
    from assets.training.program.checkpoints import Checkpoints
    from assets.training.program.engine import join_processes, make_model, seed_everything, start_engine
    from assets.training.program.loop import run_steps
    from assets.training.program.mirror import Mirror, Uploads
    from assets.training.program.output import usage, write_bundle
    from assets.training.program.saving import Saver
    from assets.training.program.usage import matmul_peak

    phases.end("imports")
    join_processes(plan.world_size, threads)
    with _companions(plan):
        peak = matmul_peak(plan.settings.hardware.precision)
        phases.end("processes")
        data = task.data(plan)
        phases.end("data")
        seed_everything(plan.settings.optimizer.seed)
        engine = start_engine(task, make_model(task, plan, data), plan, rows=data.trained)
        phases.end("engine")
        say(str(phases))
        checkpoints = Checkpoints(plan.checkpoints, plan.settings.storage.checkpoints_kept)
        mirror = Mirror.of(plan)
        uploads = Uploads(mirror, say) if mirror else None
        apart = mirror if plan.apart else None
        saver = Saver(engine, checkpoints, plan.settings.storage.checkpoint_seconds, say, uploads, apart)
        progress = run_steps(engine, task, data, plan.settings, saver, say, report)
        started = {"start_seconds": phases.seconds, "threads": threads}
        used = usage(task, plan, engine, progress, peak)
        course = progress.summary() | started | used | {"resumed": saver.resumed}
        write_bundle(task, plan, engine, data, progress, saver.world_sizes, course)


def _companions(plan: TrainingPlan) -> AbstractContextManager[None]:
    """Across machines ranks watch each other; on one machine the launcher ends all of them if one ends."""
    if plan.settings.hardware.hostfile is None:
        return nullcontext()
    from assets.training.program.companions import together
    from assets.training.program.engine import tell_all

    def lost(rank: int) -> NoReturn:
        if not plan.failure.exists():
            plan.failure.write_text(f"rank {rank} ended early: what it said is in the log of the run")
        os._exit(1)

    return together(os.environ["MASTER_ADDR"], int(os.environ["RANK"]), tell_all, lost)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
