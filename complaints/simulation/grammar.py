"""Text from a grammar: rules are compiled once, then drawn from with a stream of uniform numbers."""

import re
from collections.abc import Callable, Mapping

from complaints import QUEUES
from complaints.simulation.letters import LETTERS
from complaints.simulation.phrases import SHARED, Rules
from complaints.simulation.queues import EMERGING, QUEUE_RULES
from complaints.simulation.settings import TextSettings

__all__ = ["Draw", "Grammar", "Rule"]

Draw = Callable[[], float]
"""A uniform number in [0, 1), deterministic for a record."""

_SLOT = re.compile(r"\{(\w+)\}")
_ADJACENT = re.compile(r"(?<=[a-z])[a-z]{2}(?=[a-z])")
_YEAR = "YYYY"


class Rule:
    """One rule of the grammar: alternatives of literal text and other rules, drawn with equal chance."""

    __slots__ = ("alternatives", "capital")

    def __init__(self, capital: bool = False) -> None:
        self.alternatives: tuple[tuple[str | Callable[[Draw], str], ...], ...] = ()
        self.capital = capital

    def __call__(self, draw: Draw) -> str:
        parts = self.alternatives[int(draw() * len(self.alternatives))]
        text = "".join([part if isinstance(part, str) else part(draw) for part in parts])
        return text[:1].upper() + text[1:] if self.capital else text


class Grammar:
    """Writes the narrative of a complaint about a queue."""

    def __init__(self, settings: TextSettings) -> None:
        self._settings = settings
        self._shared = _compile({**SHARED, "actor": ("they",), "object": ("it",), "clause": ("it happened",)})
        self._rules = {queue: _compile({**SHARED, **QUEUE_RULES[queue]}) for queue in QUEUES}
        self._emerging = {queue: _compile({**SHARED, **rules}) for queue, rules in EMERGING.items()}
        self._letters = {queue: _compile({"tail": ("",), "letter": LETTERS[queue]})["letter"] for queue in QUEUES}

    def narrative(self, queue: str, year: int, emerging: bool, draw: Draw) -> str:
        """A narrative about a queue; with `emerging`, in the queue's new words (if it has any)."""
        rules = self._emerging[queue] if emerging and queue in self._emerging else self._rules[queue]
        if draw() < self._settings.form_letter_share:
            return self._letter(queue, rules, draw).replace(_YEAR, str(year))
        sentences = self._core(queue, rules, draw)
        if draw() < self._settings.opening_share:
            sentences.insert(0, self._shared["opening"](draw))
        sentences += self._details(draw)
        if draw() < self._settings.closing_share:
            sentences.append(self._shared["closing"](draw))
        return self._roughen(_join(sentences, draw).replace(_YEAR, str(year)), draw)

    def _letter(self, queue: str, rules: Mapping[str, Rule], draw: Draw) -> str:
        letter = self._letters[queue](draw)
        if draw() < self._settings.identical_letter_share:
            return letter.strip()
        return letter + " ".join([rules["Clause"](draw) + ".", *self._details(draw)[:3]])

    def _core(self, queue: str, rules: Mapping[str, Rule], draw: Draw) -> list[str]:
        """The sentence that decides the queue, and perhaps one of another queue that does not."""
        lead = rules["alive_lead"](draw)
        own = (lead + rules["clause"](draw) if lead else rules["Clause"](draw)) + "."
        chance = draw()
        other = self._other(queue, draw)
        if chance < self._settings.settled_share:
            aside = other["settled"](draw)
        elif chance < self._settings.settled_share + self._settings.mention_share:
            aside = other["mention"](draw)
        else:
            return [own]
        return [own, aside] if draw() < 0.5 else [aside, own]

    def _other(self, queue: str, draw: Draw) -> Mapping[str, Rule]:
        return self._rules[QUEUES[(QUEUES.index(queue) + 1 + int(draw() * (len(QUEUES) - 1))) % len(QUEUES)]]

    def _details(self, draw: Draw) -> list[str]:
        """Sentences for any complaint: one to four, sometimes many more."""
        count = 6 + int(draw() * 10) if draw() < self._settings.long_share else 1 + int(draw() * draw() * 4)
        return [self._shared["detail" if draw() < 0.55 else "consequence"](draw) for _ in range(count)]

    def _roughen(self, text: str, draw: Draw) -> str:
        """The text, in some narratives with swapped letters or without capitals."""
        if draw() < self._settings.lower_case_share:
            text = text.lower().replace("xx", "XX")
        if draw() < self._settings.typo_share:
            for _ in range(1 + int(draw() * 3)):
                text = _swap(text, draw)
        return text


def _compile(rules: Rules) -> dict[str, Rule]:
    """Compiled rules by name, each name also capitalized; they may refer to one another."""
    compiled = {name: Rule() for name in rules}
    compiled |= {name.capitalize(): Rule(capital=True) for name in rules}
    terminals: dict[str, Callable[[Draw], str]] = {"amount": _amount, "small": _small}
    known = terminals | compiled
    for name, alternatives in rules.items():
        parsed = tuple(_parse(alternative, known) for alternative in alternatives)
        compiled[name].alternatives = compiled[name.capitalize()].alternatives = parsed
    return compiled


def _parse(text: str, known: Mapping[str, Callable[[Draw], str]]) -> tuple[str | Callable[[Draw], str], ...]:
    pieces = _SLOT.split(text)
    return tuple(known[piece] if place % 2 else piece for place, piece in enumerate(pieces) if piece or place % 2)


def _amount(draw: Draw) -> str:
    return f"{{${int(10 ** (2 + 2 * draw()))}.00}}"


def _small(draw: Draw) -> str:
    return f"{{${5 + int(draw() * 60)}.00}}"


def _join(sentences: list[str], draw: Draw) -> str:
    """One paragraph or two: real narratives contain line breaks."""
    if len(sentences) < 3 or draw() < 0.75:
        return " ".join(sentences)
    cut = 1 + int(draw() * (len(sentences) - 1))
    return " ".join(sentences[:cut]) + "\n\n" + " ".join(sentences[cut:])


def _swap(text: str, draw: Draw) -> str:
    start = int(draw() * len(text))
    match = _ADJACENT.search(text, start)
    if match is None:
        return text
    return text[: match.start()] + match.group()[::-1] + text[match.end() :]
