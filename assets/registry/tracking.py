"""The MLflow side of a training: one run and one logged model, both found again and completed after a crash.

The files of a logged model, as MLflow can load them:

    MLmodel     names Evergreen's loader (assets/registry/mlmodel.py)
    bundle/     the bundle (assets/training/bundle.py)
"""

import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from assets.addresses import HOST, PORTS
from assets.evaluation.report import Evaluation
from assets.hashing import hash_file
from assets.registry.connection import answered, connect, unless_made
from assets.registry.mlmodel import BUNDLE, MLMODEL_HASH, lay_out
from assets.registry.model_card import NOTE, flatten, model_card, shortened
from assets.settings import Domain
from assets.training.bundle import read_json, verify_bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run

__all__ = ["ADDRESSES", "CURVES", "MODEL", "Course", "TrackedTraining", "Tracking", "artifacts", "database"]

MODEL = "text-classifier"
ADDRESSES = "mlflow-artifacts:/"
"""Begins the addresses of files in the folder itself, wherever it is: MLflow's server knows the folder."""

_DATABASE = "mlflow.db"
_ABSOLUTE = "SELECT artifact_location FROM experiments WHERE name = ? AND artifact_location LIKE 'file:%'"
_MADE_RELATIVE = [
    f"UPDATE {table} SET {column} = replace(replace({column}, :inside, :relative), :absolute, :relative)"  # noqa: S608
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
    )
]
CURVES = ("loss", "validation_loss", "tokens_per_second")
"""The curves of a training; in MLflow's names they come after `training/`."""

_MEASURES = ("accuracy", "macro_f1", "log_loss", "ece")
_PARAMS_AT_ONCE = 100  # MLflow's limit for one call
_OLDEST = ["attributes.start_time ASC", "attributes.run_id ASC"]
"""Of two that were made at the same time, all use the same one."""


def database(folder: Path) -> str:
    """The URL of MLflow's database in a folder. A missing one is created elsewhere and moved into place.

    MLflow creates it in steps, and cannot continue after a kill. Absolute addresses, of an earlier Evergreen, become
    relative.
    """
    path = folder / _DATABASE
    if not path.exists():
        from mlflow.db import upgrade

        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{_DATABASE}-", dir=folder) as temporary:
            created = Path(temporary) / _DATABASE
            assert upgrade.callback is not None
            upgrade.callback(f"sqlite:///{created}")
            with suppress(FileExistsError):  # another process was faster
                path.hardlink_to(created)
    _make_relative(path)
    return f"sqlite:///{path}"


def artifacts(folder: Path) -> Path:
    """Where the files that MLflow's database in a folder addresses are."""
    return folder / "artifacts"


def _make_relative(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for (absolute,) in connection.execute(_ABSOLUTE, (MODEL,)).fetchall():
            about = {"inside": f"{absolute}/", "absolute": absolute, "relative": ADDRESSES}
            for change in _MADE_RELATIVE:
                connection.execute(change, about)


@dataclass(frozen=True)
class TrackedTraining:
    """A training in MLflow: its run, its files and its model card."""

    run_id: str
    location: str
    card: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Tracking:
    """MLflow on a server, or its database and artifacts in a folder, created on first use."""

    folder: Path
    domain: Domain
    runs: str = f"http://{HOST}:{PORTS['dagster']}/runs"
    """Where Dagster shows its runs."""
    server: str | None = None
    """The address of a server, which keeps all files; None for the folder."""

    @property
    def exists(self) -> bool:
        return self.server is not None or (self.folder / _DATABASE).exists()

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, which raises RegistryError for a server that does not answer."""
        return connect(self.uri)

    @cached_property
    def uri(self) -> str:
        return self.server or database(self.folder)

    def local(self, location: str) -> Path | None:
        """The folder of an artifact location on this machine; None for files that a server keeps."""
        return None if self.server else _local_path(self.folder, location)

    def download(self, location: str, folder: Path) -> Path:
        """Download the files of a location to a folder. Raises RegistryError."""
        folder.mkdir(parents=True, exist_ok=True)
        with answered(self.uri):
            from mlflow.artifacts import download_artifacts

            return Path(download_artifacts(artifact_uri=location, dst_path=str(folder), tracking_uri=self.uri))

    def files(self, ending: str) -> list[str]:
        """The addresses of files of runs, as <run>/<path>, that a server keeps; of a folder, none."""
        if self.server is None or (known := self.client.get_experiment_by_name(MODEL)) is None:
            return []
        found: list[Run] = []
        token: str | None = None
        while token != "":
            page = self.client.search_runs([known.experiment_id], page_token=token)
            found, token = [*found, *page], page.token or ""
        listed = ((run.info.run_id, path) for run in found for path in self._listed(run.info.run_id, None))
        return [f"{ADDRESSES}{run_id}/{path}" for run_id, path in listed if path.endswith(ending)]

    @contextmanager
    def opened(self, address: str) -> Iterator[Path]:
        """A copy of such a file, for a moment."""
        run_id, _, path = address.removeprefix(ADDRESSES).partition("/")
        with TemporaryDirectory(prefix="evergreen-file-") as folder:
            yield Path(self.client.download_artifacts(run_id, path, folder))

    def replace(self, address: str, path: Path) -> None:
        """Write such a file again, from one of the same name."""
        run_id, _, name = address.removeprefix(ADDRESSES).partition("/")
        self.client.log_artifact(run_id, str(path), name.rpartition("/")[0] or None)

    def _listed(self, run_id: str, folder: str | None) -> Iterator[str]:
        for entry in self.client.list_artifacts(run_id, folder):
            if entry.is_dir:
                yield from self._listed(run_id, entry.path)
            else:
                yield entry.path

    def record(self, bundle: Path, evaluation: Evaluation, pictures: Path, dagster_run: str | None) -> TrackedTraining:
        """Update the run and the logged model of a bundle with an evaluation of it.

        `pictures` is the evaluation's folder; its files become the run's artifacts. The remains of a killed call are
        found by training id and completed. Raises BundleError when the copy is not intact.
        """
        provenance, training = read_json(bundle / "provenance.json"), read_json(bundle / "training.json")
        span = _Span.of(bundle, training)
        run_id = self._run(evaluation.training_id, evaluation.as_of, span.start)
        model = self._keep_files(self._model(run_id, evaluation, provenance), bundle)
        run_url = dagster_run and f"{self.runs}/{dagster_run}"
        card = model_card(self.domain, evaluation, provenance, training, run_url, run_id)
        metrics = _metrics(evaluation, span, model.model_id, self._place(run_id, evaluation))
        logged = self._logged(run_id)
        metrics += [point for point in _curves(training, span) if (point.key, point.step) not in logged]
        self._log(run_id, model, evaluation, provenance, metrics, card, dagster_run)
        if (folder := self.local(self.client.get_run(run_id).info.artifact_uri)) is None:
            self.client.log_artifacts(run_id, str(pictures), "evaluation")
        else:
            shutil.copytree(pictures, folder / "evaluation", dirs_exist_ok=True)
        self._end(run_id, span)
        return TrackedTraining(run_id, model.artifact_location, card, _tags(evaluation, bundle, model))

    @cached_property
    def _experiment(self) -> str:
        if (known := self.client.get_experiment_by_name(MODEL)) is None:
            # A server derives from the location whose files they are, so there it chooses the location.
            with unless_made():
                self.client.create_experiment(MODEL, artifact_location=None if self.server else ADDRESSES)
            known = self.client.get_experiment_by_name(MODEL)
        assert known is not None
        return str(known.experiment_id)

    def follow(self, training_id: str, as_of: str, dagster_run: str) -> "Course":
        """The run of a training that goes on, found again or created."""
        run_id = self._run(training_id, as_of, round(time.time() * 1000))
        self.client.set_tag(run_id, "dagster_run", dagster_run)
        self.client.update_run(run_id, status="RUNNING")
        return Course(self.client, run_id, self._logged(run_id))

    def _run(self, training_id: str, as_of: str, start: int) -> str:
        wanted = f"tags.training_id = '{training_id}'"
        if runs := self.client.search_runs([self._experiment], wanted, max_results=1, order_by=_OLDEST):
            return str(runs[0].info.run_id)
        tags = {"training_id": training_id}
        return str(self.client.create_run(self._experiment, start, tags, f"{as_of} {training_id[:8]}").info.run_id)

    def _logged(self, run_id: str) -> set[tuple[str, int]]:
        """The steps of the training that each of its curves has in MLflow."""
        histories = (self.client.get_metric_history(run_id, f"training/{name}") for name in CURVES)
        return {(metric.key, metric.step) for history in histories for metric in history}

    def _end(self, run_id: str, span: "_Span") -> None:
        """With the training's end; a run of an earlier Evergreen began after it."""
        start = self.client.get_run(run_id).info.start_time
        self.client.set_terminated(run_id, "FINISHED", max(start, span.end))

    def _model(self, run_id: str, evaluation: Evaluation, provenance: Mapping[str, Any]) -> "LoggedModel":
        wanted = f"tags.training_id = '{evaluation.training_id}'"
        oldest = [{"field_name": "creation_timestamp", "ascending": True}]
        if models := self.client.search_logged_models([self._experiment], wanted, max_results=1, order_by=oldest):
            return models[0]
        return self.client.create_logged_model(
            self._experiment,
            name=f"{MODEL}-{evaluation.training_id}",
            source_run_id=run_id,
            tags={"training_id": evaluation.training_id},
            params={name: str(value) for name, value in flatten(provenance["settings"]).items()},
            model_type="text classifier",
        )

    def _keep_files(self, model: "LoggedModel", bundle: Path) -> "LoggedModel":
        from mlflow.entities import LoggedModelStatus

        if model.status == LoggedModelStatus.READY:
            return model
        if (copy := self.local(model.artifact_location)) is None:
            with TemporaryDirectory(prefix="evergreen-model-") as folder:
                mlmodel = lay_out(bundle, Path(folder), self.domain)
                self.client.log_model_artifacts(model.model_id, folder)
        else:
            mlmodel = lay_out(bundle, copy, self.domain)
            verify_bundle(copy / BUNDLE)
        self.client.set_logged_model_tags(model.model_id, {MLMODEL_HASH: mlmodel})
        return self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _log(
        self,
        run_id: str,
        model: "LoggedModel",
        evaluation: Evaluation,
        provenance: Mapping[str, Any],
        metrics: list["Metric"],
        card: str,
        dagster_run: str | None,
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Param, RunTag

        data = evaluation.snapshot
        dataset = Dataset(_dataset(evaluation), data.id, "lake", data.model_dump_json())
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        outputs = self.client.get_run(run_id).outputs
        if outputs is None or not outputs.model_outputs:  # MLflow refuses a second one
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        params = [Param(name, str(value)) for name, value in flatten(provenance).items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
        tags = {"mlflow.note.content": shortened(card, NOTE), "snapshot_id": data.id, "evaluation": evaluation.id}
        tags |= {"dagster_run": dagster_run} if dagster_run else {}
        self.client.log_batch(run_id, metrics, tags=[RunTag(name, value) for name, value in tags.items()])

    def _place(self, run_id: str, evaluation: Evaluation) -> int:
        """The number of this evaluation of the training, from 0: MLflow keeps one value per metric and step."""
        tags = self.client.get_run(run_id).data.tags
        known = tags.get("evaluations", tags.get("evaluation", "")).split()
        if evaluation.id not in known:
            known.append(evaluation.id)
            self.client.set_tag(run_id, "evaluations", " ".join(known))
        return int(known.index(evaluation.id))


def _local_path(folder: Path, location: str) -> Path | None:
    """The folder of an artifact location on this machine, None for a remote one; `folder` is MLflow's."""
    parts = urlsplit(location)
    if location.startswith(ADDRESSES):
        return artifacts(folder) / unquote(parts.path).lstrip("/")
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


@dataclass(frozen=True)
class _Span:
    """When a training ran, in milliseconds since 1970, as MLflow counts."""

    start: int
    end: int

    @classmethod
    def of(cls, bundle: Path, training: Mapping[str, Any]) -> "_Span":
        """By training.json, and for a bundle of an earlier Evergreen by the time of the file."""
        written = (bundle / "training.json").stat().st_mtime
        end = datetime.fromisoformat(training["ended"]).timestamp() if training.get("ended") else written
        return cls(round((end - training["seconds"]) * 1000), round(end * 1000))

    def after(self, seconds: float) -> int:
        return self.start + round(seconds * 1000)


@dataclass
class Course:
    """The run of a training that goes on."""

    client: "MlflowClient"
    run_id: str
    logged: set[tuple[str, int]]
    """What is there, also of an earlier process of the training: a resumed one repeats some steps."""

    def add(self, points: Iterable[Mapping[str, Any]]) -> None:
        """Log what is not there of some points: each a step, when it ended in seconds since 1970, and its values."""
        from mlflow.entities import Metric

        metrics = [
            Metric(f"training/{name}", value, round(point["at"] * 1000), point["step"])
            for point in points
            for name, value in point["values"].items()
        ]
        new = {(metric.key, metric.step): metric for metric in metrics if (metric.key, metric.step) not in self.logged}
        if new:
            self.client.log_batch(self.run_id, list(new.values()))
        self.logged |= set(new)

    def fail(self) -> None:
        self.client.set_terminated(self.run_id, "FAILED")


def _metrics(evaluation: Evaluation, span: _Span, model_id: str, place: int) -> list["Metric"]:
    """The challenger's metrics, which are the model's own. Baseline and champion are in the card's table.

    `place` is the number of the evaluation of the training. The time is the training's end, so that logging them again
    after a crash adds nothing.
    """
    from mlflow.entities import Metric

    measured, about = evaluation.challenger, (model_id, _dataset(evaluation), evaluation.snapshot.id)
    names = (*_MEASURES, *measured.others)
    return [Metric(_key(name), measured.value(name), span.end, place, *about) for name in names]


def _curves(training: Mapping[str, Any], span: _Span) -> Iterator["Metric"]:
    """Every point of a training's curves, at its time."""
    from mlflow.entities import Metric

    steps, seconds = max(training.get("steps", 0), 1), training["seconds"]
    times = dict(training.get("step_seconds", ()))
    tokens = [(step, count / times[step]) for step, count in training.get("step_tokens", ()) if times.get(step)]
    curves = {
        "loss": training["loss_curve"],
        "validation_loss": training.get("validation_loss", ()),
        "tokens_per_second": tokens or [(steps, training["tokens_per_second"])],
    }
    for name in CURVES:
        for step, value in curves[name]:
            # A bundle of an earlier Evergreen has no times of steps: they took about as long as each other.
            yield Metric(f"training/{name}", value, span.after(times.get(step, seconds * step / steps)), step)


def _dataset(evaluation: Evaluation) -> str:
    return f"training_set/{evaluation.as_of}"


def _key(name: str) -> str:
    """A metric's name in MLflow, which does not always allow a colon."""
    return name.replace(":", ".")


def _tags(evaluation: Evaluation, bundle: Path, model: "LoggedModel") -> dict[str, str]:
    """The tags that a version needs to be served: its training, its evaluation and the hashes of its files."""
    measured = evaluation.challenger
    return {
        "training_id": evaluation.training_id,
        "snapshot_id": evaluation.snapshot.id,
        "as_of": evaluation.as_of,
        "model_id": model.model_id,
        "manifest_sha256": hash_file(bundle / "MANIFEST.json"),
        **({MLMODEL_HASH: model.tags[MLMODEL_HASH]} if MLMODEL_HASH in model.tags else {}),
        "accuracy": f"{measured.accuracy:.4f}",
        "macro_f1": f"{measured.macro_f1:.4f}",
        **{_key(name): f"{value:.4f}" for name, value in measured.others.items()},
        **({"refit_of": evaluation.refit_of} if evaluation.refit_of else {}),
        "evaluation": evaluation.id,
    }
