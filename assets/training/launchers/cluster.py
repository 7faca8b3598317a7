"""Ranks on the workers of a Ray cluster, which exchange everything with this machine through S3."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets.cluster.driver import run_driver
from assets.cluster.exchange import Exchange, files_under
from assets.cluster.jobs import require_ray
from assets.exceptions import ClusterError, ObjectsError, SettingsError, SourceError, TrainingError
from assets.settings import TrainingSettings
from assets.training.launchers.compatibility import Machine, offloads
from assets.training.launchers.interface import Run
from assets.training.plan import TrainingPlan
from assets.training.program.mirror import Mirror

__all__ = ["BASE_MODEL", "BUNDLE", "PLAN", "PREPARED", "SNAPSHOT", "Cluster"]

PLAN, SNAPSHOT, BASE_MODEL = "plan.json", "snapshot", "base_model"
"""What a training takes."""
PREPARED, BUNDLE = "prepared", "bundle"
"""What it makes: of many rows what the program reads of them, and a bundle."""


@dataclass(frozen=True)
class Cluster:
    """The launcher `ray`: `address` is the cluster's dashboard, `objects` the s3://bucket/prefix of the home."""

    address: str
    objects: str

    def world_size(self, settings: TrainingSettings) -> int:
        require_ray(self.address)
        ranks, fewest = settings.hardware.ranks or 1, settings.cluster.fewest_ranks
        if settings.hardware.hostfile is not None:
            raise SettingsError("training.hardware.hostfile: the environment trains on a Ray cluster; set it to null")
        if fewest is not None and fewest > ranks:
            raise SettingsError(f"training.cluster.fewest_ranks: {fewest}, of {ranks} ranks (training.hardware.ranks)")
        return ranks

    def machine(self, settings: TrainingSettings, deepspeed: Mapping[str, Any]) -> Machine:
        """Workers without GPUs are taken to be like this machine, those with to compute in bf16."""
        if "nvme" in offloads(deepspeed).values():
            name = settings.hardware.deepspeed
            raise SettingsError(f"training.hardware.deepspeed: {name} saves no checkpoints, which a Ray cluster needs")
        gpus = settings.cluster.rank_gpus * self.world_size(settings)
        return Machine(gpus, bool(gpus) or Machine.here(0, deepspeed).bf16, libaio=False, compiler=True)

    def start(self, plan: TrainingPlan, folder: Path, run: Run) -> None:  # noqa: ARG002 - the interface's
        exchange = self._exchange(plan)
        try:
            if not exchange.has(BUNDLE):
                _put(exchange, plan)
                run_driver("assets.training.launchers.driver", plan.training_id, exchange, self.address, run)
            exchange.get(BUNDLE, plan.output)
        except ClusterError as error:
            raise TrainingError(str(error)) from None
        except ObjectsError as error:
            raise TrainingError(f"what the cluster needs, or has made, is out of reach: {error}") from None

    def clear(self, plan: TrainingPlan) -> None:
        mirror = Mirror.of(plan)
        assert mirror is not None
        with suppress(SourceError, ObjectsError):
            mirror.clear()
            self._exchange(plan).clear()

    def _exchange(self, plan: TrainingPlan) -> Exchange:
        return Exchange(f"{self.objects}/training/{plan.training_id}")


def _put(exchange: Exchange, plan: TrainingPlan) -> None:
    exchange.put(SNAPSHOT, {"train.parquet": plan.snapshot / "train.parquet"})
    exchange.put(BASE_MODEL, files_under(plan.base_model))
    there = {"apart": True, "prepared": Path(PREPARED) if _are_many(plan) else None}
    exchange.write(PLAN, plan.model_copy(update=there).model_dump_json())


def _are_many(plan: TrainingPlan) -> bool:
    """Whether the training rows are enough for workers to encode them."""
    many = plan.settings.cluster.bulk_rows
    return many is not None and pq.read_metadata(plan.snapshot / "train.parquet").num_rows >= many
