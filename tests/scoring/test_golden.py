from typing import Any

import pytest

from assets.exceptions import RegistryError
from assets.home import Home
from assets.scoring.golden import GoldenAnswers, answer_golden_rows, require_agreement
from assets.settings import ScoringSettings

SETTINGS = ScoringSettings(window_days=30, batch_tokens=256, chunk_rows=1000, precision="bfloat16")


@pytest.mark.parametrize(
    ("rows", "others", "agree"),
    [(0, 0, False), (1, 0, True), (999, 1, False), (1000, 1, True), (1999, 2, False), (2000, 2, True)],
)
def test_one_row_in_a_thousand_may_have_another_label(rows: int, others: int, agree: bool) -> None:
    assert GoldenAnswers(rows, others).agree is agree


def test_golden_rows_are_answered_by_what_answers_records(home: Home, bundle: Any, champion: Any) -> None:
    answer_golden_rows(home.lake, champion, bundle, SETTINGS)
    assert bundle.compiled == "bfloat16"


def test_what_is_wrong_is_one_line(champion: Any) -> None:
    require_agreement(GoldenAnswers(32, 0), champion)
    with pytest.raises(RegistryError, match="version 3 gives 2 of 32 golden rows another label than"):
        require_agreement(GoldenAnswers(32, 2), champion)
    with pytest.raises(RegistryError, match="challenger_evaluation as of 2024-01-01 again"):
        require_agreement(GoldenAnswers(), champion)
