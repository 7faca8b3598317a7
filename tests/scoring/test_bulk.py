"""Scoring on a cluster: the rows that this machine would write, whoever is killed, and each refusal in one line."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.cluster import chunks, jobs
from assets.cluster.chunks import Needs, Worker
from assets.cluster.jobs import Job
from assets.exceptions import ClusterError, RegistryError, SettingsError
from assets.home import Home
from assets.resources import Evergreen
from assets.scoring import bulk, driver
from assets.scoring.definitions import predictions
from assets.scoring.predictions import Predictions, predict
from assets.settings import EMBEDDED, ScoringSettings, Settings, load_settings
from assets.settings.serving import BulkSettings
from tests.scoring.conftest import FakeBundle

AS_OF = "2024-02-01"
HEAD = "http://head.example:8265"
HERE = ScoringSettings(window_days=30, batch_tokens=256, chunk_rows=2, precision="float32")
THERE = HERE.model_copy(update={"cluster": BulkSettings(bulk_rows=5, worker_cpus=2)})
TEXTS = {10: "cards stolen", 11: None, 12: "mortgage late", 13: "", 14: "other é", 15: "cards again", 16: "mortgage"}


@pytest.fixture
def home(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home on S3 whose environment has a cluster."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home", EMBEDDED.model_copy(update={"objects": "s3://lake/home", "ray": HEAD}))


@pytest.fixture
def marts(publish_marts: Callable[..., str]) -> None:
    publish_marts(*({"record_id": f"{n}", "known_at": f"2024-01-{n}", "text": text} for n, text in TEXTS.items()))


@pytest.fixture
def champion_bundle(bundle: FakeBundle, tmp_path: Path) -> FakeBundle:
    """The champion's bundle in the process of the run."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "MANIFEST.json").write_text("{}")
    bundle.path = folder  # type: ignore[attr-defined]
    return bundle


class Cluster:
    """A cluster in this process: two workers, the second of which is faster."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.needs: list[Needs] = []
        self.loaded: list[FakeBundle] = []
        self.fail_after: int | None = None
        """Chunks after which the process of the run is killed."""

    def run(self, job: Job) -> None:
        self.jobs.append(job)
        if driver.main(job.command[-1]):
            raise ClusterError("job ended as FAILED")

    def load(self, path: Path) -> FakeBundle:
        assert [file.name for file in path.iterdir()] == ["MANIFEST.json"]
        self.loaded.append(FakeBundle())
        return self.loaded[-1]

    def distribute(self, numbers: list[int], exchange: Any, make: Any, needs: Needs) -> Iterator[int]:
        self.needs.append(needs)
        workers = [Worker(exchange.address, make) for _ in range(2)]
        for count, number in enumerate(reversed(numbers)):
            if count == self.fail_after:
                raise KeyboardInterrupt
            try:
                yield from workers[number % 2]({"item": [number]})["item"]
            except Exception:
                raise ClusterError(str(exchange.read("failure.txt"))) from None

    @property
    def seen(self) -> list[str]:
        return sorted(text for bundle in self.loaded for text in bundle.seen)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: None))
    monkeypatch.setattr(jobs, "find_spec", lambda _: object())
    monkeypatch.setattr(chunks, "_distribute", found.distribute)
    monkeypatch.setattr(bulk, "load_bundle", found.load)
    return found


def rows_of(found: Predictions) -> pd.DataFrame:
    return pd.read_parquet(found.path / "predictions.parquet")


def exchanged(bucket: Any) -> list[str]:
    return [entry.key for entry in bucket.objects.filter(Prefix="home/scoring")]


@pytest.fixture
def score(home: Home, champion: Any, champion_bundle: FakeBundle, marts: None, cluster: Cluster) -> Any:
    def scored(settings: ScoringSettings = THERE, run: Any = cluster.run, champion: Any = champion) -> Predictions:
        return predict(home, AS_OF, champion, lambda: champion_bundle, settings, run)  # type: ignore[arg-type, return-value]

    return scored


def test_a_cluster_answers_as_this_machine_does(
    score: Any, home: Home, bucket: Any, cluster: Cluster, champion_bundle: FakeBundle
) -> None:
    there = score()
    rows = rows_of(there)
    assert champion_bundle.seen == []
    assert cluster.seen == sorted(text for text in TEXTS.values() if text)
    assert cluster.needs == [Needs(2, 0)]
    assert exchanged(bucket) == []
    assert home.lake.version(f"predictions/{AS_OF}") == there.version
    bucket.objects.filter(Prefix=f"home/lake/predictions/{AS_OF}/").delete()
    home.lake.trim(0)
    here = score(HERE)
    assert len(champion_bundle.seen) == 5
    assert not here.reused
    assert here.version == there.version
    pd.testing.assert_frame_equal(rows_of(here), rows)
    assert here.manifest == there.manifest


@pytest.mark.parametrize("many", [None, 8])
def test_few_records_are_scored_here(score: Any, cluster: Cluster, many: int | None) -> None:
    score(THERE.model_copy(update={"cluster": BulkSettings(bulk_rows=many)}))
    assert cluster.jobs == []


def test_without_a_cluster_all_are_scored_here(score: Any, home: Home, cluster: Cluster) -> None:
    object.__setattr__(home, "environment", home.environment.model_copy(update={"ray": None}))
    score()
    assert cluster.jobs == []


def test_a_killed_scoring_goes_on_where_it_stopped(
    score: Any, bucket: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        score()
    assert cluster.seen == ["cards again", "mortgage", "other é"]
    cluster.fail_after = None
    monkeypatch.setattr("assets.scoring.predictions.online_features", lambda *_: pytest.fail("read again"))
    found = score()
    assert found.manifest.each_record_once
    assert cluster.seen == sorted(text for text in TEXTS.values() if text)
    assert len({job.id for job in cluster.jobs}) == 1
    assert exchanged(bucket) == []


def test_what_a_scoring_left_that_was_killed_after_it_published_is_removed(score: Any, bucket: Any) -> None:
    score()
    for name in ("scoring/of-another-night/plan.json", "scoring-2/plan.json"):
        bucket.Object(f"home/{name}").put(Body=b"{}")
    assert score().reused
    assert exchanged(bucket) == ["home/scoring-2/plan.json"]


def test_a_worker_that_answers_otherwise_than_evaluated_answers_nothing(
    score: Any, home: Home, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeBundle.predict_proba

    def swapped(bundle: FakeBundle, *rows: Any, **how: Any) -> Any:
        answers = honest(bundle, *rows, **how)
        return answers[:, ::-1] if any(bundle is each for each in cluster.loaded) else answers

    monkeypatch.setattr(FakeBundle, "predict_proba", swapped)
    with pytest.raises(ClusterError, match=r"^a worker gives 1 of 1 golden rows another label than when version 3 was"):
        score()
    assert cluster.seen == []
    assert home.lake.version(f"predictions/{AS_OF}") is None


def test_a_champion_that_answers_otherwise_than_evaluated_starts_no_job(
    score: Any, champion_evaluated_as: Any, cluster: Cluster
) -> None:
    with pytest.raises(RegistryError, match="version 3 gives 1 of 1 golden rows another label"):
        score(champion=champion_evaluated_as("cards"))
    assert cluster.jobs == []


def test_another_version_of_the_code_is_one_line(score: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "hash_answering", lambda: "other")
    with pytest.raises(ClusterError, match=r"^the cluster has another version of Evergreen than the machine"):
        score()
    assert cluster.loaded == []


def test_without_ray_it_says_how_to_install_it(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "find_spec", lambda name: None if name == "dagster_ray" else object())
    with pytest.raises(SettingsError, match=rf"^ray: {HEAD}, but dagster_ray is not here: pip install"):
        score()


def test_another_champion_s_answers_are_not_taken(score: Any, cluster: Cluster, champion: Any) -> None:
    cluster.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        score()
    cluster.fail_after = None
    assert set(rows_of(score(champion=replace(champion, version="4")))["model_version"]) == {"4"}


def test_the_asset_runs_the_job_like_a_training_s(
    home: Home,
    champion: Any,
    champion_bundle: FakeBundle,
    marts: None,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = SimpleNamespace(champion=lambda _: champion, fetch=Path)
    settings = load_settings("quick").model_copy(update={"scoring": THERE})
    assert isinstance(settings, Settings)
    monkeypatch.setattr("assets.registry.registry.Registry", lambda _: registry)
    monkeypatch.setattr("assets.training.bundle.load_bundle", lambda _: champion_bundle)
    monkeypatch.setattr("assets.resources._run_job", lambda context, job, told: cluster.run(job))
    monkeypatch.setattr(Home, "from_environment", lambda: home)
    monkeypatch.setattr("assets.resources.load_settings", lambda _: settings)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        resources = {"evergreen": Evergreen()}
        assert dg.materialize([predictions], partition_key=AS_OF, resources=resources, instance=instance).success
    assert len(cluster.jobs) == 1
    assert home.lake.version(f"predictions/{AS_OF}")
