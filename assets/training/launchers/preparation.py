"""The rows of a training as its task encodes them, made by all workers of a Ray cluster, once for all ranks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from assets.cluster.chunks import ANSWERS, Answer, Needs, answer_chunks, put_chunks
from assets.cluster.exchange import Exchange, files_under
from assets.training.launchers.cluster import BASE_MODEL, PREPARED, SNAPSHOT
from assets.training.plan import TrainingPlan
from assets.training.tasks import TASKS

__all__ = ["load_encoder", "prepare_rows"]

_ENCODER = "encoder"


def prepare_rows(plan: TrainingPlan, exchange: Exchange, say: Callable[[str], None]) -> None:
    """Encode the snapshot's rows, unless they are. Raises ClusterError when a chunk of them cannot be."""
    if exchange.has(PREPARED):
        return
    part = Exchange(f"{exchange.address}/{PREPARED}")
    say("the workers encode the rows")
    _distribute(plan, exchange, part)
    answer_chunks(part, partial(load_encoder, plan.task), Needs(plan.settings.cluster.rank_cpus), say)
    exchange.join(PREPARED, [_ENCODER, *(f"{ANSWERS}/{name}" for name in part.folders(ANSWERS))])


def load_encoder(task: str, part: Exchange) -> Answer:
    """A worker's encoder."""
    with TemporaryDirectory(prefix="evergreen-") as folder:
        part.get(_ENCODER, Path(folder))
        return TASKS[task].encoder(Path(folder))


def _distribute(plan: TrainingPlan, exchange: Exchange, part: Exchange) -> None:
    with TemporaryDirectory(prefix="evergreen-") as temporary:
        folder = Path(temporary)
        for name in (SNAPSHOT, BASE_MODEL):
            exchange.get(name, folder / name)
        here = plan.model_copy(update={"snapshot": folder / SNAPSHOT, "base_model": folder / BASE_MODEL})
        task, encoder = TASKS[plan.task], folder / _ENCODER
        encoder.mkdir()
        task.fit_encoder(here, encoder)
        part.put(_ENCODER, files_under(encoder))
        put_chunks(part, task.chunks(here), lambda chunk: chunk)
