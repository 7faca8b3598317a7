"""Scoring on the workers of the environment's Ray cluster: the same chunks, answered in the same way as here.

<objects>/scoring/<version>/plan.json    how to answer
.../champion/...                         the champion's bundle
.../golden/rows.parquet                  its golden rows, which each worker answers first
.../inputs/..., .../answers/...          the window's records with their features (assets/cluster/chunks.py)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from assets.cluster.chunks import Answer, answers, put_chunks
from assets.cluster.driver import run_driver
from assets.cluster.exchange import Exchange, files_under
from assets.cluster.jobs import RunJob, require_ray
from assets.exceptions import ObjectsError, RegistryError
from assets.hashing import hash_file, hash_json
from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.scoring import score
from assets.scoring.golden import compare, golden_rows
from assets.scoring.score import answer_rows
from assets.settings import ScoringSettings
from assets.training.bundle import Bundle, load_bundle
from assets.training.launchers.launch import hash_code

__all__ = ["Bulk", "Plan", "hash_answering", "load_answer", "read_plan"]

_PLAN, _CHAMPION, _GOLDEN, _ROWS = "plan.json", "champion", "golden", "rows.parquet"


class Plan(BaseModel):
    """How a worker answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """Hash of the code that answers."""
    as_of: str
    model_version: str
    settings: ScoringSettings


@dataclass(frozen=True)
class Bulk:
    """The scoring of one version of the predictions as of a date, by jobs that `run` runs."""

    home: Home
    as_of: str
    version: str
    run: RunJob

    def wanted(self, settings: ScoringSettings, count: Callable[[], int]) -> bool:
        """Whether the cluster is to score as many records as `count` finds. Raises SettingsError without Ray here."""
        cluster, many = self.home.environment.ray, settings.cluster.bulk_rows
        if cluster is None or many is None or count() < many:
            return False
        require_ray(cluster)
        return True

    def answer(
        self,
        champion: RegisteredVersion,
        bundle: Bundle,
        settings: ScoringSettings,
        chunks: Iterable[pd.DataFrame],
        with_features: Callable[[pd.DataFrame], pd.DataFrame],
    ) -> Iterator[pa.Table]:
        """The answers to the chunks of the window, in order; after a kill the same call goes on.

        The champion's golden rows are in this home. Raises ClusterError and ObjectsError.
        """
        cluster, exchange = self.home.environment.ray, Exchange(f"{self._address}/{self.version}")
        golden = golden_rows(self.home.lake, champion)
        assert cluster is not None
        assert golden is not None
        _put(exchange, bundle, golden)
        put_chunks(exchange, chunks, lambda chunk: pa.Table.from_pandas(with_features(chunk), preserve_index=False))
        plan = Plan(code=hash_answering(), as_of=self.as_of, model_version=champion.version, settings=settings)
        exchange.write(_PLAN, plan.model_dump_json())
        run_driver("assets.scoring.driver", f"scoring-{self.version}", exchange, cluster, self.run)
        return (pq.read_table(folder / _ROWS) for folder in answers(exchange))

    def clear(self) -> None:
        """Remove what this and all earlier scorings have exchanged with a cluster, as far as possible.

        One at a time scores in a home. So what one that was given up has left, records among it, does not stay.
        """
        if self.home.environment.ray is not None:
            with suppress(ObjectsError):
                Exchange(self._address).clear()

    @property
    def _address(self) -> str:
        return f"{self.home.objects}/scoring"


def read_plan(exchange: Exchange) -> Plan:
    """The plan of an exchange."""
    return Plan.model_validate_json(exchange.read(_PLAN) or "")


def load_answer(exchange: Exchange) -> Answer:
    """How a worker answers. Raises RegistryError when it would answer otherwise than the champion was evaluated."""
    plan = read_plan(exchange)
    with TemporaryDirectory(prefix="evergreen-") as temporary:
        folder = Path(temporary)
        for name in (_CHAMPION, _GOLDEN):
            exchange.get(name, folder / name)
        bundle, golden = load_bundle(folder / _CHAMPION), pd.read_parquet(folder / _GOLDEN / _ROWS)
    if not (found := compare(golden, bundle, plan.settings)).agree:
        raise RegistryError(
            f"a worker gives {found.others} of {found.rows} golden rows another label than when version "
            f"{plan.model_version} was evaluated; set scoring.precision to float32, or cluster.bulk_rows to null"
        )

    def answer(rows: pa.Table, folder: Path) -> None:
        answered = answer_rows(bundle, rows.to_pandas(), plan.as_of, plan.model_version, plan.settings)
        pq.write_table(answered, folder / _ROWS, compression="zstd")

    return answer


def hash_answering() -> str:
    """Hash of the code that answers."""
    return hash_json([hash_code(), *(hash_file(Path(file)) for file in (__file__, str(score.__file__)))])


def _put(exchange: Exchange, bundle: Bundle, golden: pd.DataFrame) -> None:
    if not exchange.has(_CHAMPION):
        exchange.put(_CHAMPION, files_under(bundle.path))
    if not exchange.has(_GOLDEN):
        with TemporaryDirectory(prefix="evergreen-") as folder:
            golden.to_parquet(file := Path(folder) / _ROWS, index=False)
            exchange.put(_GOLDEN, {_ROWS: file})
