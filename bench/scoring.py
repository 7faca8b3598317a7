"""Texts scored per second, compared with `transformers.pipeline` and its defaults on the same model and texts.

Evergreen's time is that of `TextPredictor.predict_proba`: cleaning, tokenizing, hashed words, encoder and head. The
compilation, once per run, is printed separately. Both alternate on quarters of the texts. Goals: five times the
pipeline's throughput, and the same label for 999 of 1,000 texts. Records are simulated, or those of `--records FILE`
in the bureau's layout.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from assets.settings import load_domain

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

GOAL, WINDOWS, TURNS, LABELLED = 5, (64, 128), 4, 300


def simulated(folder: Path, texts: int) -> Path:
    from complaints.simulation import simulate

    simulate(folder, date(2024, 1, 1), date(2024, 1, 31), 10 + texts // 10, 7, "calm")
    return next(folder.glob("*.csv"))


def read(path: Path, texts: int) -> Any:
    """Records from all over a file that have a text, and a label that is known by their product."""
    import pandas as pd

    from assets.ingestion.reading import read_rows
    from assets.ingestion.records import Record
    from assets.settings import load_settings

    rows = read_rows(path, load_settings("quick").ingestion, DOMAIN, outcomes=True)
    found = [row.fields for row in rows if isinstance(row, Record)]
    needed = ("narrative", "company", "state", "product")
    whole = [fields for fields in found if all(fields[name] for name in needed)]
    drawn = [whole[place] for place in np.random.default_rng(0).permutation(len(whole))[:texts]]
    frame = pd.DataFrame(drawn)[["narrative", "company", "state"]].rename(columns={"narrative": "text"})
    labels = pd.factorize(np.array([fields["product"] for fields in drawn]))[0] % len(LABELS)
    return frame.assign(label=[LABELS[code] for code in labels])


def fitted(rows: Any, window: int) -> Any:
    """A predictor around the packaged encoder, its last layer a logistic regression, so that some answers are close."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer

    from assets.training.base_model import DEFAULT, resolve_base_model
    from assets.training.program.batches import token_batches
    from assets.training.tasks.classification.model import new_classifier
    from assets.training.tasks.classification.predictor import TextPredictor
    from assets.training.tasks.classification.preprocessing import fit_preprocessing

    base = resolve_base_model(DEFAULT).path
    preprocessing = fit_preprocessing(rows, (), DOMAIN, window, 65536, 10)
    classifier = new_classifier(base, preprocessing)
    classifier.train(False)
    predictor = TextPredictor(preprocessing, Tokenizer.from_file(str(base / "tokenizer.json")), classifier)
    kept: list[Any] = []
    hook = classifier.output.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    predictor.predict_proba(rows)
    hook.remove()
    lengths = preprocessing.encode(rows, predictor.tokenizer).lengths
    order = np.concatenate(token_batches(np.arange(len(rows)), lengths, 2048, rank=0, world_size=1))
    learned = LogisticRegression(C=10, max_iter=200).fit(torch.cat(kept).numpy(), rows["label"].to_numpy()[order])
    known = [LABELS.index(label) for label in learned.classes_]
    with torch.inference_mode():
        classifier.output.bias.fill_(-9.0)
        classifier.output.weight[known] = torch.from_numpy(learned.coef_).float()
        classifier.output.bias[known] = torch.from_numpy(learned.intercept_).float()
    return predictor


def stock(predictor: Any, window: int) -> Any:
    """`transformers.pipeline` around transformers' encoder and the classifier's last layer, without features."""
    from transformers import AutoModel, AutoTokenizer, PreTrainedModel, logging, pipeline
    from transformers.modeling_outputs import SequenceClassifierOutput

    from assets.training.base_model import DEFAULT, resolve_base_model
    from assets.training.tasks.classification.model import mean_pooling

    class TextClassifier(PreTrainedModel):
        _supports_sdpa = True

        def __init__(self, encoder: Any) -> None:
            super().__init__(encoder.config)
            self.encoder, self.last = encoder, predictor.classifier.output

        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return SequenceClassifierOutput(logits=self.last(mean_pooling(hidden, attention_mask)))

    logging.set_verbosity(logging.CRITICAL)  # it says that it does not know the class
    logging.disable_progress_bar()
    model = TextClassifier(AutoModel.from_pretrained(resolve_base_model(DEFAULT).path)).eval()
    model.config.id2label = dict(enumerate(LABELS))
    tokenizer = AutoTokenizer.from_pretrained(resolve_base_model(DEFAULT).path)
    return pipeline("text-classification", model=model, tokenizer=tokenizer, truncation=True, max_length=window)


def ways(predictor: Any, window: int) -> dict[str, Callable[[Any], list[str]]]:
    """From rows to labels."""
    from assets.settings import load_settings
    from assets.training.tasks.classification.inference import compile_classifier

    classify, tokens = stock(predictor, window), load_settings("quick").scoring.batch_tokens

    def piped(size: int) -> Callable[[Any], list[str]]:
        def run(rows: Any) -> list[str]:
            texts = predictor.preprocessing.read(rows, predictor.preprocessing.clean(rows))
            return [answer["label"] for answer in classify(texts, batch_size=size)]

        return run

    def ours(precision: Any) -> Callable[[Any], list[str]]:
        predictor.compile(precision)
        return lambda rows: [LABELS[best] for best in predictor.predict_proba(rows, tokens, precision).argmax(axis=1)]

    started = time.perf_counter()
    by = "OpenVINO" if compile_classifier(predictor.classifier, "float32") is not predictor.classifier else "torch"
    print(f"compiled in {time.perf_counter() - started:.1f} s")
    return {
        "pipeline, batch 1 (stock)": piped(1),
        "pipeline, batch 32": piped(32),
        f"{by} float32": ours("float32"),
        f"{by} bfloat16": ours("bfloat16"),
    }


def measure(labelled: Any, rows: Any, window: int) -> None:
    print(f"\n{len(rows)} texts of at most {window} tokens")
    predictor = fitted(labelled, window)
    candidates = ways(predictor, window)
    wall, cores = dict.fromkeys(candidates, 0.0), dict.fromkeys(candidates, 0.0)
    answers: dict[str, list[str]] = {name: [] for name in candidates}
    for turn in np.array_split(np.arange(len(rows)), TURNS):
        for name, work in candidates.items():
            started, used = time.perf_counter(), time.process_time()
            answers[name] += work(rows.iloc[turn])
            wall[name] += time.perf_counter() - started
            cores[name] += time.process_time() - used
    print(f"{'':<28}{'texts/s':>9}{'a core':>9}{'ratio':>7}{'goal':>7}{'other label':>13}")
    peer, right = wall["pipeline, batch 1 (stock)"], answers["pipeline, batch 1 (stock)"]
    for name in candidates:
        other = np.mean([found != known for found, known in zip(answers[name], right, strict=True)])
        speed, ratio = len(rows) / wall[name], peer / wall[name]
        line = f"{name:<28}{speed:>9.1f}{len(rows) / cores[name]:>9.1f}{ratio:>7.2f}{ratio / GOAL:>7.2f}{other:>13.4f}"
        print(line, flush=True)


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--records", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.records or simulated(Path(folder), arguments.texts + LABELLED)
        rows = read(path, arguments.texts + LABELLED)
    for window in WINDOWS:
        measure(rows[:LABELLED], rows[LABELLED:], window)


if __name__ == "__main__":
    main()
