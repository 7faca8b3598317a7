"""A tiny encoder and a small snapshot, so that a training run takes seconds, most of them imports."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import boto3
import numpy as np
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from assets.exceptions import TrainingError
from assets.features.snapshot import Snapshot, load_snapshot
from assets.hashing import hash_file
from assets.lake import Lake
from assets.settings import TrainingSettings, load_domain, load_settings
from assets.training.bundle import Bundle, load_bundle
from assets.training.launchers.interface import Run
from assets.training.launchers.launch import override, train
from assets.training.program.checkpoints import Checkpoints
from tests.conftest import reach_objects

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

AS_OF = "2024-01-01"
TOPICS = ("account", "card", "vehicle", "report", "collector", "transfer", "mortgage", "settlement", "student")
FEATURES = (
    "company_records_7d",
    "company_labels",
    *(f"company_share_{label}" for label in LABELS),
    "text_length",
)


def rows(count: int, seed: int) -> pd.DataFrame:
    """Records whose topic word tells their label, with history for most companies."""
    random = np.random.default_rng(seed)
    label = random.integers(len(LABELS), size=count)
    filler = np.array(["they", "never", "XXXX", "XX/XX/XXXX", "told", "me", "about", "{$12.00}"])
    texts = [" ".join([*random.choice(filler, random.integers(3, 30)), TOPICS[q]]) for q in label]
    frame = pd.DataFrame(
        {
            "record_id": [str(i) for i in range(count)],
            "known_at": pd.Timestamp("2023-01-01") + pd.to_timedelta(np.arange(count), "h"),
            "label": [LABELS[q] for q in label],
            "text": texts,
            "company": random.choice(["ACME BANK", "unknown", "LENDER, INC."], count),
            "state": random.choice(["CA", "unknown"], count),
            "zip_code": None,
            "tags": None,
            "channel": "Web",
        }
    )
    shares = random.dirichlet(np.ones(len(LABELS)), count)
    known = random.random(count) < 0.8
    frame["company_records_7d"] = np.where(known, random.poisson(30, count), np.nan)
    frame["company_labels"] = np.where(known, random.poisson(200, count), np.nan)
    for i, name in enumerate(LABELS):
        frame[f"company_share_{name}"] = np.where(known, shares[:, i], np.nan)
    return frame.assign(text_length=[float(len(text)) for text in texts])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with a vocabulary of the snapshot's words and the letters."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    letters = [chr(c) for c in range(97, 123)] + [str(d) for d in range(10)] + list(",.$")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *TOPICS, "they", "never", "xx"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def settings(encoder: Path) -> TrainingSettings:
    """Four passes over the snapshot on one rank, at rates that teach a tiny model something in 64 steps."""
    changes = {
        **{"base_model": str(encoder), "max_tokens": 32, "hashed_words": 512, "trainable_layers": None},
        **{"epochs": 4.0, "batch_rows": 16, "ranks": 1, "deepspeed": "zero-2", "validation_share": 0.0},
        **{"learning_rate": 2e-3, "head_learning_rate": 1e-2},
    }
    return override(load_settings("quick").training, changes)


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of the session with one published training set."""
    lake = Lake(tmp_path_factory.mktemp("home") / "lake")
    train_rows, test_rows = rows(256, seed=0), rows(48, seed=1)
    manifest = {
        "snapshot_id": "0123456789abcdef",
        "features": FEATURES,
        "domain": DOMAIN.model_dump(mode="json"),
        "train_rows": len(train_rows),
        "test_rows": len(test_rows),
        "reference_rows": 0,
    }
    with lake.staging(f"training_set/{AS_OF}") as staged:
        train_rows.to_parquet(staged / "train.parquet")
        test_rows.to_parquet(staged / "test.parquet")
        (staged / "manifest.json").write_text(json.dumps(manifest))
        lake.publish(f"training_set/{AS_OF}", "0123456789abcdef", staged)
    return lake


@pytest.fixture(scope="session")
def snapshot(lake: Lake) -> Snapshot:
    return load_snapshot(lake, AS_OF)


@pytest.fixture(scope="session")
def frame(snapshot: Snapshot) -> pd.DataFrame:
    """The training rows. Do not change them."""
    return snapshot.train()


@pytest.fixture(scope="session")
def run() -> Run:
    """Start a worker as a person would, without Dagster."""

    def start(command: list[str]) -> None:
        if subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True).returncode:
            raise TrainingError("the worker ended early")

    return start


@pytest.fixture(scope="session")
def bundle_path(lake: Lake, snapshot: Snapshot, settings: TrainingSettings, run: Run) -> Path:
    """The bundle of one training run under ZeRO-2. Do not change its files."""
    return train(lake, AS_OF, snapshot, settings, run).path


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="session")
def alone() -> None:
    """This process is the only rank of a run: engines can be started in it. Processes that it starts know nothing."""
    import torch

    from assets.training.program.engine import join_processes

    before, threads = dict(os.environ), torch.get_num_threads()
    join_processes(world_size=1, threads=threads)
    for name in {*os.environ} - {*before}:
        del os.environ[name]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An S3 of its own with the bucket `team`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    reach_objects(endpoint, monkeypatch)
    urlopen(f"{endpoint}/moto-api/reset", data=b"")  # a process has one set of buckets, whatever its servers
    boto3.client("s3").create_bucket(Bucket="team")
    yield server
    server.stop()


@pytest.fixture
def save_checkpoint() -> Callable[..., Path]:
    """Publishes three small files as the checkpoint of a step, and says where it is."""

    def save(checkpoints: Checkpoints, step: int) -> Path:
        folder, files = checkpoints.beside(step), ("model.pt", "optimizer.pt", "rank-0.pt")
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 100)
        checkpoints.publish(step, {name: hash_file(folder / name) for name in files})
        return checkpoints.path(step)

    return save
