"""Guesses the roles of a sample's columns, and says why; a person confirms what a sample cannot show."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from assets.exceptions import SourceError
from assets.onboarding.sample import Column, Sample
from assets.settings import NameHints

__all__ = ["Guess", "Guesses", "determined_share", "guess", "leaked_share", "majority"]

MAX_LABELS = 500
_LEAK = 0.98
"""A column whose values determine the label in this share of rows is taken for a consequence of it."""
_FILLED = 0.99
"""The share of rows in which an id is there at least: the others are broken."""
_ROWS = 3000
"""The rows on which each possible label is predicted from the words of the text."""


@dataclass(frozen=True)
class Guess:
    column: Column
    why: str
    doubt: str | None = None
    """What a person has to confirm; None if the sample leaves little doubt."""


@dataclass(frozen=True)
class Guesses:
    id: Guess
    received: Guess
    text: tuple[Guess, ...]
    """A title first, if there is one."""
    label: Guess
    settled: Guess | None
    """When the label became known."""
    entities: tuple[Guess, ...]
    request: tuple[Guess, ...]
    leaks: tuple[Guess, ...]
    """The columns that give the label away."""

    @cached_property
    def labels(self) -> tuple[tuple[str, int], ...]:
        """The label's values and the number of rows with each, most frequent first."""
        return tuple(Counter(self.label.column.filled).most_common())

    def of(self, column: Column) -> Guess | None:
        """The role of a column, if it has one."""
        settled = (self.settled,) if self.settled else ()
        every = (self.id, self.received, *self.text, self.label, *settled, *self.entities, *self.request, *self.leaks)
        return next((each for each in every if each.column is column), None)


def guess(sample: Sample, hints: NameHints) -> Guesses:
    """The roles of a sample's columns. Raises SourceError when no column can be the text, time, id or label."""
    text = _text(sample, hints)
    times = [column for column in sample.columns if column.time and len(column.filled) >= sample.rows / 50]
    received = _received(sample, times, hints)
    rest = [c for c in sample.columns if c is not text[-1].column and c not in times]
    identity = _id(sample, [c for c in rest if c is not text[0].column], hints)
    rest = [c for c in rest if c not in (identity.column, text[0].column)]
    label = _label(sample, rest, text[-1].column, hints)
    known = [c for c in rest if c is not label.column and c.distinct > 1]
    leaks = tuple(_leaks(known, label.column))
    known = [c for c in known if c not in [leak.column for leak in leaks]]
    # The column that determines the label least is the likeliest to be known before it.
    known.sort(key=lambda c: (-_hinted(c, hints.entities), determined_share(c.values, label.column.values)))
    entities = tuple(_named(known, hints.entities, least=3))[:2]
    request = tuple(_named([c for c in known if c not in [e.column for e in entities]], hints.request, least=2))
    return Guesses(identity, received, text, label, _settled(received, times, hints), entities, request, leaks)


def determined_share(column: Sequence[str], labels: Sequence[str]) -> float:
    """The share of rows with the most frequent label of their value, among values that occur five times or more."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for value, label in zip(column, labels, strict=True):
        if value and label:
            groups[value][label] += 1
    several = [group for group in groups.values() if group.total() >= 5]
    rows = sum(group.total() for group in several)
    # If few rows are in such groups, they say little about the column.
    return sum(max(group.values()) for group in several) / rows if rows * 2 > len(labels) else 0.0


def leaked_share(column: Sequence[str], labels: Sequence[str]) -> float | None:
    """The `determined_share`, if it is so high that the column must follow from the label; else None."""
    share = determined_share(column, labels)
    return share if majority(labels) < 0.9 and share >= _LEAK else None


def majority(labels: Sequence[str]) -> float:
    """The share of the most frequent label among rows that have one."""
    counts = Counter(filter(None, labels))
    return max(counts.values()) / counts.total() if counts else 0.0


def _text(sample: Sample, hints: NameHints) -> tuple[Guess, ...]:
    worded = [c for c in sample.columns if c.words >= 3 and c.distinct > len(c.filled) / 4 and not c.time]
    if not worded:
        raise SourceError(f"{sample.path}: no column holds texts: none has three words or more per value on average")
    longest = max(worded, key=lambda column: column.words)
    text = Guess(longest, f"the longest texts: {longest.words:.0f} words on average")
    titles = [c for c in sample.columns if c is not longest and _hinted(c, hints.title) and c.words >= 2]
    return (*(Guess(c, f"its name, and {c.words:.0f} words on average") for c in titles[:1]), text)


def _received(sample: Sample, times: Sequence[Column], hints: NameHints) -> Guess:
    always = [c for c in times if len(c.filled) >= 0.98 * sample.rows]
    if not always:
        raise SourceError(
            f"{sample.path}: no column says when a record came in: none holds a day or an instant in every row; write "
            "them as 2026-01-31 or 2026-01-31T09:30:00+01:00"
        )
    received = max(always, key=lambda c: (_hinted(c, hints.received) > 0, -always.index(c)))
    doubt = f"when the record came in, out of {', '.join(c.name for c in always)}" if len(always) > 1 else None
    if received.time and received.time.others:
        doubt = f"its format: {received.time.format} or {', '.join(received.time.others)}"
    return Guess(received, "a time in every row", doubt)


def _settled(received: Guess, times: Sequence[Column], hints: NameHints) -> Guess | None:
    named = [c for c in times if c is not received.column and _hinted(c, hints.settled)]
    if not named:
        return None
    why = f"its name, and filled in {len(named[0].filled) / len(named[0].values):.0%} of the rows"
    return Guess(named[0], why, "that the label is known from then on")


def _id(sample: Sample, columns: Sequence[Column], hints: NameHints) -> Guess:
    plain = [c for c in columns if len(c.filled) >= _FILLED * sample.rows and not any(" " in v for v in c.filled)]
    if not plain:
        raise SourceError(f"{sample.path}: no column can be the id: each is missing in more than a row of a hundred")
    identity = max(plain, key=lambda c: (c.distinct >= 0.9 * sample.rows, _hinted(c, hints.id), c.distinct))
    repeated = len(identity.filled) - identity.distinct
    doubt = (
        f"that rows with the same {identity.name} are versions of one record: {repeated} repeat" if repeated else None
    )
    return Guess(identity, "a different value in every row" if not repeated else f"{identity.distinct} values", doubt)


def _label(sample: Sample, columns: Sequence[Column], text: Column, hints: NameHints) -> Guess:
    most = min(MAX_LABELS, max(2, sample.rows // 5))
    few = [c for c in columns if 2 <= c.distinct <= most and c.words <= 8 and len(c.filled) >= 0.2 * sample.rows]
    if not few:
        raise SourceError(
            f"{sample.path}: no column can be the label: none has between 2 and {most} values that repeat"
        )
    gains = {c.name: _gain(c, text) for c in few}
    label = max(few, key=lambda c: gains[c.name] + (0.3 if _hinted(c, hints.label) else 0.0))
    base = majority(label.values)
    predicted = base + gains[label.name] * (1 - base)
    why = (
        f"{label.distinct} values; the words of the text predict it in {predicted:.0%} of rows (most frequent: "
        f"{base:.0%})"
    )
    others = [c.name for c in few if c is not label and gains[c.name] > gains[label.name] / 2]
    instead = f", and not {' or '.join(others)}" if others else ""
    return Guess(label, why, f"that this is what a model should answer{instead}")


def _gain(column: Column, text: Column) -> float:
    """The share of the majority guess's errors that naive Bayes over words avoids, on the later rows."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import MultinomialNB

    rows = [pair for pair in zip(text.values, column.values, strict=True) if all(pair)][:_ROWS]
    half = len(rows) // 2
    texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    if half < 10 or len(set(labels[:half])) < 2:
        return 0.0
    words = HashingVectorizer(n_features=2**14, alternate_sign=False, norm=None).transform(texts)
    model = MultinomialNB(alpha=0.1).fit(words[:half], labels[:half])
    right, base = float(model.score(words[half:], labels[half:])), majority(labels[half:])
    return (right - base) / (1 - base) if base < 1 else 0.0


def _leaks(columns: Sequence[Column], label: Column) -> Iterator[Guess]:
    for column in columns:
        share = leaked_share(column.values, label.values)
        if share is not None and column.distinct <= len(column.filled) / 3:
            yield Guess(
                column, f"it gives the label away in {share:.0%} of rows", "that it is a consequence of the label"
            )


def _hinted(column: Column, hints: Sequence[str]) -> float:
    """The share of a column's name that is a hint, a word or part of one; 0 without any."""
    name = column.name.casefold()
    return max((len(hint) / len(name) for hint in hints if hint in name), default=0.0)


def _named(columns: Sequence[Column], hints: Sequence[str], least: int) -> Iterator[Guess]:
    for column in columns:
        repeats = column.distinct >= least and len(column.filled) >= max(2 * column.distinct, len(column.values) / 2)
        if _hinted(column, hints) and repeats:
            yield Guess(column, f"its name, and {column.distinct} values", "that it is known when a record comes in")
