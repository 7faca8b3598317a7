import numpy as np
import pandas as pd
import pytest

from assets.monitoring.columns import (
    calm_psi,
    describe,
    fit_binning,
    prediction_limit,
    psi,
    sample_positions,
    spread,
    stretches,
    vocabulary,
)


def test_a_sample_does_not_depend_on_the_order_of_rows() -> None:
    ids = pd.Series([f"id-{n}" for n in range(500)])
    drawn = set(ids.iloc[sample_positions(ids, 50)])
    shuffled = ids.sample(frac=1, random_state=1, ignore_index=True)
    assert set(shuffled.iloc[sample_positions(shuffled, 50)]) == drawn
    assert len(drawn) == 50
    assert sample_positions(ids[:3], 50) == [0, 1, 2]


def test_what_a_text_is_described_by() -> None:
    known = vocabulary(["The bank CHARGED me"])
    assert known == {"the", "bank", "charged"}
    found = describe(pd.Series(["the bank XXXX glorped", "", "XX/XX/2023 12 me"]), known)
    assert found["text_words"].tolist() == [4, 0, 3]
    assert found["text_unknown_share"].tolist() == [pytest.approx(1 / 3), 0.0, 0.0]
    assert found["text_redacted_share"].tolist() == [0.25, 0.0, pytest.approx(1 / 3)]


def test_numbers_are_cut_at_the_quantiles_of_the_reference() -> None:
    reference = pd.Series(np.arange(1000.0))
    binning = fit_binning(reference, 10, 1000)
    codes = binning.codes(pd.Series([-5.0, 50.0, 999.0, 5000.0, np.nan]))
    assert codes[0] == codes[1]
    assert codes[2] == codes[3]
    assert binning.names[codes[4]] == "(missing)"
    assert (binning.names[0], binning.names[-2]) == ("up to 99", "over 899")
    assert all(90 <= count <= 110 for count in np.bincount(binning.codes(reference)))


def test_bins_of_large_numbers_are_named_without_exponents() -> None:
    names = fit_binning(pd.Series([0.12345, 1234.5, 2e6, 3e6]), 4, 1000).names
    assert names == ("up to 0.123", "0.123 to 1,234", "1,234 to 2,000,000", "over 2,000,000", "(missing)")


def test_a_value_beyond_a_constant_reference_is_seen() -> None:
    reference, current = pd.Series(np.zeros(500)), pd.Series(np.ones(500))
    binning = fit_binning(reference, 10, 500)
    assert psi(binning.codes(reference), binning.codes(current)) > 5


def test_rare_categories_are_pooled() -> None:
    reference = pd.Series(["a"] * 500 + ["b"] * 490 + [f"rare {n}" for n in range(10)])
    assert fit_binning(reference, 10, 1000).kept == {"a", "b"}
    assert fit_binning(reference, 10, 15).kept == frozenset()
    binning = fit_binning(reference, 10, 1000)
    found = [binning.names[code] for code in binning.codes(pd.Series(["a", "rare 1", "new", None]))]
    assert found == ["a", "(other)", "(other)", "(missing)"]


@pytest.mark.parametrize("rows", [100, 300, 2000])
def test_resamples_of_the_same_data_do_not_alarm(rows: int) -> None:
    alarms, trials = 0, 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        for draw in (
            lambda n, rng=rng: pd.Series(rng.lognormal(2, 2, n).round()),
            lambda n, rng=rng: pd.Series(rng.standard_cauchy(n)),
            lambda n, rng=rng: pd.Series(rng.zipf(1.6, n).astype(str)),
            lambda n, rng=rng: pd.Series(rng.choice(list("abcdefghi"), n)),
            lambda n, rng=rng: pd.Series(np.where(rng.random(n) < 0.05, rng.random(n), 0.0)),
        ):
            reference, current = draw(2000), draw(rows)
            binning = fit_binning(reference, 10, rows)
            left, right = binning.codes(reference), binning.codes(current)
            alarms += psi(left, right) >= max(0.25, calm_psi(left, rows, 0.95, left, 5))
            trials += 1
    assert alarms <= trials * 0.02


def test_a_column_that_grows_is_compared_with_its_own_growth() -> None:
    reference = pd.Series(np.arange(2000.0))
    binning = fit_binning(reference, 10, 1000)
    left, right = binning.codes(reference), binning.codes(pd.Series(np.arange(2000.0, 2300.0)))
    assert psi(left, right) > 1
    assert calm_psi(left, 300, 0.95, left, 5) > psi(left, right)


def test_a_lively_column_seldom_alarms() -> None:
    """Its level is another one in every stretch: the largest of five stretches alone is exceeded one time in six."""
    rng, trials, beyond, beyond_largest = np.random.default_rng(0), 600, 0, 0
    for _ in range(trials):
        levels = np.repeat(rng.normal(0, 0.7, 6), 300)
        values = pd.Series(levels + rng.normal(0, 1, 1800))
        binning = fit_binning(values[:1500], 10, 300)
        left, right = binning.codes(values[:1500]), binning.codes(values[1500:])
        found = psi(left, right)
        beyond += found >= calm_psi(left, 300, 0.98, left, 5)
        beyond_largest += found >= calm_psi(left, 300, 0.51, left, 5)
    assert beyond_largest > trials * 0.12
    assert beyond < trials * 0.09


def test_a_column_that_is_known_for_long_says_how_lively_a_short_one_is() -> None:
    rng = np.random.default_rng(2)
    months = [rng.choice(3, 500, p=mix) for mix in ((0.2, 0.3, 0.5), (0.4, 0.3, 0.3), (0.3, 0.5, 0.2), (0.3, 0.2, 0.5))]
    short, window = rng.choice(3, 500, p=(0.2, 0.4, 0.4)), rng.choice(3, 500, p=(0.4, 0.2, 0.4))
    assert psi(short, window) > calm_psi(short, 500, 0.98, short, 5)
    assert psi(short, window) < calm_psi(short, 500, 0.98, np.concatenate(months), 4)


@pytest.mark.parametrize("size", [300, 2000])
def test_what_is_calm_does_not_rest_on_how_small_the_stretches_are(size: int) -> None:
    rng = np.random.default_rng(size)
    drawn = [rng.integers(0, 10, size) for _ in range(60)]
    found = [calm_psi(codes, 1500, 0.98, codes, 5) for codes in drawn]
    assert np.mean(found) < (0.25 if size == 300 else 0.06)


def test_the_prediction_limit_is_students() -> None:
    rng = np.random.default_rng(1)
    limits = [prediction_limit(rng.normal(0, 1, 30), 0.95) for _ in range(400)]
    assert np.mean([rng.normal(0, 1) > limit for limit in limits for _ in range(20)]) < 0.05
    assert prediction_limit(np.array([1.0, 1.0, 9.0]), 0.51) == 9.0


def test_what_is_spread_is_at_even_distances() -> None:
    assert spread(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert [part.tolist() for part in stretches(5, 2)] == [[0, 1, 2], [3, 4]]
