"""Texts scored in a second, against `transformers.pipeline` as it comes, on the same simulated complaints and encoder.

Ours is all that `Bundle.predict_proba` does: cleaning, tokens, hashed words, encoder, head. Compiling, once a run, is
shown beside. Answers are compared with torch's in float32. The goal: five times the pipeline, the same best queue on
999 of 1,000 rows. `--texts N` for another number.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

GOAL, WINDOWS, LABELLED = 5, (64, 128), 300


def simulated(folder: Path, texts: int) -> Any:
    """Complaints with a narrative, and a queue that is known by their product."""
    import pandas as pd

    from assets.ingestion.reading import read_rows
    from assets.ingestion.records import Record
    from assets.settings import QUEUES, load_settings
    from assets.simulation import simulate

    simulate(folder, date(2024, 1, 1), date(2024, 1, 31), 10 + texts // 10, 7, "calm")
    path = next(folder.glob("*.csv"))
    found = [row for row in read_rows(path, load_settings("quick").ingestion) if isinstance(row, Record)]
    whole = [row for row in found if row.narrative and row.company and row.state and row.product][:texts]
    frame = pd.DataFrame([{name: getattr(row, name) for name in ("narrative", "company", "state")} for row in whole])
    queues = pd.factorize(np.array([row.product for row in whole]))[0] % len(QUEUES)
    return frame.assign(queue=[QUEUES[code] for code in queues])


def fitted(rows: Any, window: int) -> Any:
    """A bundle around the packaged encoder, its last layer a logistic regression, so that some answers are close."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer

    from assets.settings import QUEUES
    from assets.training.base_model import DEFAULT, resolve_base_model
    from assets.training.bundle import Bundle
    from assets.training.model import new_router
    from assets.training.preprocessing import fit_preprocessing

    base = resolve_base_model(DEFAULT).path
    preprocessing = fit_preprocessing(rows, (), window, 65536, 10)
    router = new_router(base, preprocessing)
    router.train(False)
    bundle = Bundle(base, {}, preprocessing, Tokenizer.from_file(str(base / "tokenizer.json")), router)
    kept: list[Any] = []
    hook = router.output.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    few = rows.iloc[:LABELLED]
    bundle.predict_proba(few, batch_tokens=1)
    hook.remove()
    order = np.argsort(preprocessing.encode(few, bundle.tokenizer).lengths, kind="stable")
    learned = LogisticRegression(C=10, max_iter=200).fit(torch.cat(kept).numpy(), few["queue"].to_numpy()[order])
    known = [QUEUES.index(queue) for queue in learned.classes_]
    with torch.inference_mode():
        router.output.bias.fill_(-9.0)
        router.output.weight[known] = torch.from_numpy(learned.coef_).float()
        router.output.bias[known] = torch.from_numpy(learned.intercept_).float()
    return bundle


def stock(bundle: Any, rows: Any, window: int) -> Callable[[int], Any]:
    """`transformers.pipeline` on the texts that our encoder reads."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging, pipeline

    from assets.training.preprocessing import clean, text_of

    logging.set_verbosity_error()
    model = AutoModelForSequenceClassification.from_pretrained(bundle.path, num_labels=9, local_files_only=True)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(bundle.path))
    columns = zip(rows["company"], rows["state"], rows["narrative"], strict=True)
    texts = [text_of(company, state, clean(narrative)) for company, state, narrative in columns]
    return lambda size: classify(texts, batch_size=size, truncation=True, max_length=window)


def bfloat16(router: Any) -> Callable[..., Any]:
    import torch

    def run(**batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return router(**batch)

    return run


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, seconds on the clock, seconds of all cores."""
    started, used = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - started, time.process_time() - used


def measure(rows: Any, window: int) -> None:
    from assets.training.inference import compile_router

    bundle = fitted(rows, window)
    classify = stock(bundle, rows, window)
    torch32, torch16 = {"float32": bundle.router}, {"float32": bundle.router, "bfloat16": bfloat16(bundle.router)}
    fast32, seconds, _ = timed(lambda: compile_router(bundle.router, "float32"))
    fast16 = compile_router(bundle.router, "bfloat16")
    runs = "OpenVINO" if fast32 is not bundle.router else "torch"
    print(f"\n{len(rows)} texts of at most {window} tokens; compiled in {seconds:.1f} s")
    print(f"{'':<28}{'texts/s':>9}{'a core':>9}{'ratio':>7}{'goal':>7}{'difference':>12}{'other queue':>13}")
    ways = {
        "pipeline, batch 1 (stock)": partial(classify, 1),
        "pipeline, batch 32": partial(classify, 32),
        "torch float32": partial(replace(bundle, _compiled=torch32).predict_proba, rows),
        "torch bfloat16": partial(replace(bundle, _compiled=torch16).predict_proba, rows, precision="bfloat16"),
        f"{runs} float32": partial(replace(bundle, _compiled={"float32": fast32}).predict_proba, rows),
        f"{runs} bfloat16": partial(
            replace(bundle, _compiled={"float32": fast32, "bfloat16": fast16}).predict_proba, rows, precision="bfloat16"
        ),
    }
    exact, peer = None, None
    for name, work in ways.items():
        found, wall, cores = timed(work)
        peer = peer or wall
        line = (
            f"{name:<28}{len(rows) / wall:>9.1f}{len(rows) / cores:>9.1f}{peer / wall:>7.2f}{peer / wall / GOAL:>7.2f}"
        )
        if not name.startswith("pipeline"):
            exact = found if exact is None else exact
            other = (found.argmax(axis=1) != exact.argmax(axis=1)).mean()
            line += f"{np.abs(found - exact).max():>12.1e}{other:>13.4f}"
        print(line, flush=True)


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=500)
    with tempfile.TemporaryDirectory() as folder:
        rows = simulated(Path(folder), parser.parse_args().texts)
    for window in WINDOWS:
        measure(rows, window)


if __name__ == "__main__":
    main()
