"""The simple model that a transformer must beat: TF-IDF of word pairs and a linear classifier; it is not saved."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.training.tasks.classification.labels import places

__all__ = ["baseline_probabilities"]

_MAX_TERMS = 50_000


def baseline_probabilities(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Probabilities [test rows, labels] by a balanced logistic regression trained on the texts of `train`.

    Both frames need a text, `train` also a label. A label that `train` lacks gets probability zero.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=_MAX_TERMS, sublinear_tf=True, dtype=np.float32)
    # With a looser tolerance it stops after a few steps and its log loss doubles: too easy to beat.
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(words.fit_transform(train["text"]), places(train["label"], labels))
    probabilities = np.zeros((len(test), len(labels)))
    probabilities[:, model.classes_] = model.predict_proba(words.transform(test["text"]))
    return probabilities
