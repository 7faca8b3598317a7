"""Rows to numbers: redactions, imputation, priors, hashed words."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from assets.features.snapshot import Snapshot
from assets.settings import load_domain
from assets.training.tasks.classification.preprocessing import (
    Preprocessing,
    fit_preprocessing,
    load_preprocessing,
)

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)


@pytest.fixture(scope="module")
def tokenizer(encoder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(encoder / "tokenizer.json"))


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame, snapshot: Snapshot) -> Preprocessing:
    return fit_preprocessing(frame, snapshot.features, DOMAIN, max_tokens=32, hashed_words=512, prior_labels=10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("On XX/XX/XXXX I called", "On xx I called"),
        ("XXXX XXXX, XXXX wrote", "xx wrote"),
        ("on XX/XX/2019 and 12/03/XXXX", "on xx and xx"),
        ("paid {$500.00} twice", "paid $500.00 twice"),
        ("two\n\n lines\t", "two lines"),
        ("XXL shirts and AXXA stay", "XXL shirts and AXXA stay"),
    ],
)
def test_redactions_amounts_and_space_collapse(fitted: Preprocessing, text: str, expected: str) -> None:
    assert fitted.clean({"text": [text]}) == [expected]


def test_the_company_comes_before_the_text_so_that_it_is_never_cut(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    rows = {"company": ["ACME", None], "state": ["CA", "NY"]}
    assert fitted.read(rows, ["told me", "lied"]) == ["ACME, CA. told me", "unknown, NY. lied"]
    assert replace(fitted, before=()).read(rows, ["told me", "lied"]) == ["told me", "lied"]
    long = frame.iloc[:1].assign(text="never " * 500)
    assert fitted.encode(long, tokenizer).lengths.tolist() == [32]


def test_missing_features_take_the_training_median_and_are_marked(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    name = "company_records_7d"
    median = float(np.expm1(np.median(np.log1p(frame[name].dropna()))))
    absent = frame.iloc[[0, 0]].assign(**{name: [np.nan, median]})
    encoded = fitted.encode(absent, tokenizer).features
    column, mark = fitted.features.index(name), len(fitted.features) + fitted.missing.index(name)
    assert encoded[0, column] == pytest.approx(encoded[1, column], abs=1e-6)
    assert encoded[:, mark].tolist() == [1.0, 0.0]
    assert "text_length" not in fitted.missing


def test_features_are_standardised_over_the_training_rows(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    scaled = fitted.encode(frame, tokenizer).features[:, : len(fitted.features)]
    assert np.abs(scaled.mean(axis=0)).max() < 0.05
    assert np.abs(scaled.std(axis=0) - 1).max() < 0.05


def test_the_prior_is_the_label_mix_smoothed_by_the_overall_one(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    shares = {f"company_share_{label}": float(label == "mortgage") for label in LABELS}
    known = frame.iloc[[0]].assign(company_labels=30.0, **shares)
    unknown = frame.iloc[[0]].assign(company_labels=np.nan, **dict.fromkeys(shares, np.nan))
    priors = np.exp(fitted.encode(pd.concat([known, unknown]), tokenizer).priors[:, 0].astype(float))
    base, mortgage = np.array(fitted.frequencies), LABELS.index("mortgage")
    assert priors.sum(axis=1) == pytest.approx([1, 1])
    assert priors[0, mortgage] == pytest.approx((30 + 10 * base[mortgage]) / 40)
    assert priors[1] == pytest.approx(base)


def test_only_a_whole_label_mix_makes_a_prior(fitted: Preprocessing) -> None:
    assert fitted.entities == ["company"]
    assert replace(fitted, features=(*fitted.features, "state_labels", "state_share_cards")).entities == ["company"]


def test_hashed_words_are_the_same_in_every_process(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    encoded = fitted.encode(frame.iloc[[0]].assign(text="me me card", company="A", state="B"), tokenizer)
    # crc32 of me, card and of the pairs (me, me), (me, card), then of company=A, modulo 512.
    assert encoded.buckets.tolist() == [194, 211, 290, 477, 406]
    assert float(np.linalg.norm(encoded.weights[:-1])) == pytest.approx(1)
    assert encoded.weights[-1] == 1


def test_a_row_reads_the_same_alone_as_among_others(
    fitted: Preprocessing, tokenizer: Tokenizer, frame: pd.DataFrame
) -> None:
    together = fitted.encode(frame.iloc[:20], tokenizer).take(np.array([7, 3]))
    alone = [fitted.encode(frame.iloc[[row]], tokenizer) for row in (7, 3)]
    for field in fields(together):
        parts = [getattr(encoded, field.name) for encoded in alone]
        assert np.array_equal(getattr(together, field.name), np.concatenate(parts)), field.name


def test_it_is_read_as_it_was_saved(fitted: Preprocessing, tmp_path: Path) -> None:
    fitted.save(tmp_path / "preprocessing.json")
    assert load_preprocessing(tmp_path / "preprocessing.json") == fitted
