"""The champion as MLflow loads it (assets/scoring/pyfunc.py)."""

import pandas as pd
import pytest

from assets.exceptions import SettingsError
from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.scoring.champion import Champion
from assets.scoring.pyfunc import RecordClassifier
from assets.settings import load_settings


@pytest.fixture
def classifier(home: Home, champion: RegisteredVersion, bundle: object) -> RecordClassifier:
    return RecordClassifier(Champion.of(home, champion, bundle, load_settings("quick").scoring))


def test_records_are_answered_in_order(classifier: RecordClassifier) -> None:
    text = classifier.champion.home.domain.text.fields[0]
    records = pd.DataFrame(
        {text: ["mortgage late", None, "cards", "cards\0", "student_loan"], "another column": 1}, index=[7, 3, 5, 2, 9]
    )
    answers = classifier.predict(records)
    answers = answers.astype(object).where(answers.notna(), None)
    assert answers.index.tolist() == [7, 3, 5, 2, 9]
    assert answers["predicted"].tolist() == ["mortgage", None, "cards", None, "student_loan"]
    assert answers["confidence"].tolist() == [0.6, None, 0.6, None, 0.6]
    assert answers["reason"].tolist() == [None, "no-text", None, "nul-byte", None]


def test_a_table_without_text_says_what_it_lacks(classifier: RecordClassifier) -> None:
    with pytest.raises(SettingsError, match=f"no column {classifier.champion.home.domain.text.fields[0]}"):
        classifier.predict(pd.DataFrame({"message": ["mortgage"]}))
