"""What is simulated can be learned, but not by a linear model over words alone."""

import random

import pytest

from assets.settings import load_domain
from complaints.simulation.grammar import Grammar
from complaints.simulation.settings import load_simulator_settings

LABELS = tuple(load_domain().labels)

ROWS, TEST_ROWS = 2500, 600


@pytest.fixture(scope="module")
def told() -> list[tuple[str, str]]:
    """Narratives with their queues, without label noise."""
    settings, draw = load_simulator_settings(), random.Random(3)
    grammar = Grammar(settings.text)
    queues = draw.choices(LABELS, [settings.queue_mix[queue] for queue in LABELS], k=ROWS)
    return [(grammar.narrative(queue, 2024, False, draw.random), queue) for queue in queues]


def test_a_linear_model_learns_but_does_not_solve_it(told: list[tuple[str, str]]) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, queues = zip(*told, strict=True)
    words = TfidfVectorizer(min_df=3, sublinear_tf=True).fit(texts[TEST_ROWS:])
    model = LogisticRegression(max_iter=60, tol=1e-2).fit(words.transform(texts[TEST_ROWS:]), queues[TEST_ROWS:])
    assert 0.68 < model.score(words.transform(texts[:TEST_ROWS]), queues[:TEST_ROWS]) < 0.87


def test_every_queues_words_occur_in_every_queue(told: list[tuple[str, str]]) -> None:
    for word in ("bank", "card", "loan", "mortgage", "report", "collect", "wire", "student"):
        users = {queue for text, queue in told if word in text.lower()}
        assert users == set(LABELS), f"{word} tells queues apart"
