"""The simulated world: companies and states with their own mixes, and complaints drawn from it.

A record is a function of (seed, scenario, day, index) only, so overlapping ranges, and any number of processes, give
the same records for the same day (a date of change given as a share moves with the range).
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from random import Random
from typing import Generic, TypeVar

from complaints import QUEUES
from complaints.simulation.grammar import Draw, Grammar
from complaints.simulation.settings import Scenario, SimulatorSettings
from complaints.simulation.taxonomy import NEWEST_FROM, SECOND_FROM, UNMAPPED, Category, categories

__all__ = ["COLUMNS", "MAX_RATE", "Record", "World"]

COLUMNS = (
    "Date received",
    "Product",
    "Sub-product",
    "Issue",
    "Sub-issue",
    "Consumer complaint narrative",
    "Company public response",
    "Company",
    "State",
    "ZIP code",
    "Tags",
    "Consumer consent provided?",
    "Submitted via",
    "Date sent to company",
    "Company response to consumer",
    "Timely response?",
    "Consumer disputed?",
    "Complaint ID",
)
"""The official 18-column export, in order."""

MAX_RATE = 100_000
"""The most records per day: a complaint id is the day's number and, in five digits, the record's number in the day."""

T = TypeVar("T")

_FIRST_DAY = date(2000, 1, 1)

_NAMES = (
    "Aldermoor",
    "Brackenfell",
    "Corvenham",
    "Dunwick",
    "Elderquay",
    "Fenmarrow",
    "Glasswater",
    "Hollowmere",
    "Ivendale",
    "Jorrinfield",
    "Kestermill",
    "Lanternhead",
    "Mossgarth",
    "Nettlebridge",
    "Ostravale",
    "Pellingham",
    "Quillford",
    "Rookhaven",
    "Saltmarrow",
    "Tarnwick",
    "Umberlea",
    "Vantmoor",
    "Wexmoor",
    "Yarrowgate",
    "Zelkirk",
)

_KINDS: tuple[tuple[tuple[str, ...], Mapping[str, float]], ...] = (
    (
        ("Bank, N.A.", "Bancorp"),
        {"bank_account": 5, "cards": 4, "mortgage": 2, "consumer_loan": 1, "money_transfer": 1},
    ),
    (("Recovery Group", "Receivables LLC"), {"debt_collection": 12, "credit_reporting": 1}),
    (("Information Services", "Data Bureau, Inc."), {"credit_reporting": 30, "other": 1}),
    (("Card Services", "Rewards Bank"), {"cards": 10, "bank_account": 1, "debt_collection": 1}),
    (("Home Lending", "Mortgage Servicing"), {"mortgage": 12, "consumer_loan": 1}),
    (("Auto Finance", "Lending, LLC"), {"consumer_loan": 10, "debt_collection": 1, "student_loan": 1}),
    (("Education Servicing", "Scholar Loans"), {"student_loan": 12, "debt_collection": 1}),
    (("Pay, Inc.", "Remittance"), {"money_transfer": 10, "cards": 1, "bank_account": 1}),
    (("Debt Relief", "Credit Solutions"), {"other": 10, "debt_collection": 2}),
    (("Holdings, LLC", "Financial"), dict.fromkeys(QUEUES, 1.0)),
)
"""Lines of business: the names of their companies, and the weights of the queues of their complaints."""

_PLACES: tuple[tuple[tuple[str, str], float], ...] = (
    (("CA", "900"), 12),
    (("TX", "750"), 10),
    (("FL", "331"), 9),
    (("NY", "100"), 7),
    (("GA", "303"), 5),
    (("PA", "191"), 5),
    (("IL", "604"), 4),
    (("OH", "432"), 4),
    (("NC", "275"), 4),
    (("NJ", "070"), 3),
    (("MI", "481"), 3),
    (("VA", "220"), 3),
    (("MD", "212"), 3),
    (("AZ", "850"), 3),
    (("WA", "980"), 2.5),
    (("TN", "372"), 2.5),
    (("MA", "021"), 2.3),
    (("IN", "462"), 2),
    (("SC", "292"), 2),
    (("LA", "701"), 2),
    (("AL", "352"), 2),
    (("MO", "631"), 2),
    (("CO", "802"), 2),
    (("NV", "891"), 2),
    (("CT", "060"), 1.4),
    (("WI", "532"), 1.4),
    (("MN", "554"), 1.4),
    (("KY", "402"), 1.2),
    (("OR", "972"), 1.2),
    (("OK", "731"), 1.1),
    (("MS", "392"), 1),
    (("AR", "722"), 1),
    (("UT", "841"), 1),
    (("KS", "662"), 0.8),
    (("IA", "503"), 0.7),
    (("DE", "197"), 0.7),
    (("NM", "871"), 0.7),
    (("NE", "681"), 0.5),
    (("HI", "968"), 0.5),
    (("WV", "253"), 0.5),
    (("ID", "837"), 0.5),
    (("NH", "031"), 0.4),
    (("ME", "041"), 0.4),
    (("RI", "029"), 0.4),
    (("MT", "596"), 0.3),
    (("AK", "995"), 0.2),
    (("SD", "571"), 0.2),
    (("ND", "581"), 0.2),
    (("VT", "054"), 0.2),
    (("WY", "820"), 0.15),
)
"""States, with the first three digits of one of their ZIP codes, weighted by population."""

_PUBLIC = (
    ("", 80),
    ("Company has responded to the consumer and the CFPB and chooses not to provide a public response", 15),
    ("Company believes it acted appropriately as authorized by contract or law", 4),
    ("Company believes the complaint is the result of an isolated error", 1),
)
_TAGS = (("", 88), ("Servicemember", 6.5), ("Older American", 4.5), ("Older American, Servicemember", 1))
_CHANNELS = (("Web", 88), ("Phone", 5), ("Referral", 4), ("Postal mail", 2), ("Fax", 0.7), ("Web Referral", 0.3))
_SILENT = (("Consent not provided", 60), ("Other", 15), ("N/A", 15), ("", 8), ("Consent withdrawn", 2))
_RESPONSES = (
    ("Closed with explanation", 74),
    ("Closed with non-monetary relief", 16),
    ("Closed with monetary relief", 6),
    ("In progress", 3),
    ("Untimely response", 1),
)
_LAGS = ((0, 78), (1, 8), (2, 4), (3, 2.5), (4, 1.5), (5, 1), (7, 1.5), (10, 1), (15, 0.6), (24, 0.4), (None, 1.5))
"""Days from receipt until it was sent to the company; None if the bureau has not recorded a date."""


@dataclass(frozen=True)
class Record:
    """The fields of a row, in the order of `COLUMNS`."""

    fields: tuple[str, ...]

    def field(self, column: str) -> str:
        return self.fields[COLUMNS.index(column)]

    def replaced(self, column: str, value: str) -> "Record":
        place = COLUMNS.index(column)
        return Record((*self.fields[:place], value, *self.fields[place + 1 :]))

    def filed_under(self, category: Category) -> "Record":
        return Record((self.fields[0], *category, *self.fields[5:]))


class _Choice(Generic[T]):
    """A weighted draw from values."""

    def __init__(self, weighted: Sequence[tuple[T, float]]) -> None:
        self._values = [value for value, _ in weighted]
        self._bounds = list(accumulate(weight for _, weight in weighted))

    def __call__(self, draw: Draw) -> T:
        return self._values[bisect(self._bounds, draw() * self._bounds[-1])]


@dataclass(frozen=True)
class _Era:
    """The state of the world on one side of the date of change."""

    queues: _Choice[str]
    companies: Mapping[str, _Choice[str]]
    vocabulary: Mapping[str, float]
    filed: Mapping[str, str]
    """Queues whose complaints are filed under another one."""


class World:
    """Draws complaints. The companies, their mixes and the text depend on the seed and the scenario."""

    def __init__(self, settings: SimulatorSettings, scenario: Scenario, seed: int, change: date | None) -> None:
        self._settings, self._scenario, self._seed, self.change = settings, scenario, seed, change
        self._grammar = Grammar(settings.text)
        self._newest_from = change if scenario.newest_taxonomy and change is not None else NEWEST_FROM
        names, volumes, mixes = _companies(settings, seed)
        self._before = _Era(_Choice(list(settings.queue_mix.items())), _by_queue(names, volumes, mixes), {}, {})
        self._after = _Era(
            _Choice(list((scenario.queue_mix or settings.queue_mix).items())),
            _by_queue(names, _churned(volumes, scenario.company_churn, seed), mixes),
            dict.fromkeys(scenario.vocabulary_queues, scenario.vocabulary_share),
            dict([*scenario.swapped_queues, *(pair[::-1] for pair in scenario.swapped_queues)]),
        )
        self._changed = frozenset(names[: scenario.vocabulary_companies])
        self._places = _Choice(_PLACES)
        self._choices = {
            name: _Choice(weighted)
            for name, weighted in {
                "public": _PUBLIC,
                "tags": _TAGS,
                "channel": _CHANNELS,
                "silent": _SILENT,
                "response": _RESPONSES,
            }.items()
        }
        self._lags = _Choice(_LAGS)

    def stream(self, day: date, index: int) -> Draw:
        """The uniform numbers that a record is drawn from."""
        return Random((self._seed << 64) | (day.toordinal() << 32) | index).random  # noqa: S311 - data, not secrets

    def record(self, day: date, index: int, draw: Draw) -> Record:
        """The index-th complaint received on a day."""
        era = self._era(day, draw)
        queue = era.queues(draw)
        company = era.companies[queue](draw) if self._changed else None
        narrative = ""
        if draw() < self._settings.narrative_share:
            emerging = draw() < era.vocabulary.get(queue, 0) and (company is None or company in self._changed)
            narrative = self._grammar.narrative(queue, day.year, emerging, draw)
        filed = QUEUES[int(draw() * len(QUEUES))] if draw() < self._settings.label_noise else queue
        filed = era.filed.get(filed, filed)
        state, zip_code = self._place(draw)
        choices, narrated = self._choices, bool(narrative)
        return Record(
            (
                day.isoformat(),
                *self.category(filed, day, draw),
                narrative,
                choices["public"](draw),
                company or era.companies[queue](draw),
                state,
                zip_code,
                choices["tags"](draw),
                "Consent provided" if narrated else choices["silent"](draw),
                choices["channel"](draw),
                self._sent(day, draw),
                choices["response"](draw),
                "Yes" if draw() < 0.985 else "No",
                "N/A" if day >= SECOND_FROM else "Yes" if draw() < 0.2 else "No",
                str((day - _FIRST_DAY).days * MAX_RATE + index),
            )
        )

    def _era(self, day: date, draw: Draw) -> _Era:
        months, over = self._scenario.months, self._scenario.change_days
        if self.change is None or day < self.change or (months and day.month not in months):
            return self._before
        return self._after if not over or draw() < ((day - self.change).days + 1) / over else self._before

    def category(self, queue: str, day: date, draw: Draw) -> Category:
        """The category under which a queue's complaint is filed on a day."""
        options = categories(queue, day, self._newest_from)
        return options[int(draw() * len(options))]

    def revised(self, record: Record, day: date, draw: Draw) -> Record:
        """A later version of a complaint: another queue's product, and the company's final response."""
        category = self.category(QUEUES[int(draw() * len(QUEUES))], day, draw)
        response = "Closed with monetary relief" if draw() < 0.5 else "Closed with non-monetary relief"
        if record.field("Company response to consumer") == response:
            response = "Closed with explanation"
        return record.filed_under(category).replaced("Company response to consumer", response)

    def zero_place(self, draw: Draw) -> tuple[str, str]:
        """A state whose ZIP codes start with zero, and such a code without the zero."""
        state, digits = self._places(draw)
        while not digits.startswith("0"):
            state, digits = self._places(draw)
        return state, f"{digits[1:]}{int(draw() * 100):02d}"

    def unmapped(self, draw: Draw) -> Category:
        """A product that is in no taxonomy."""
        return UNMAPPED[int(draw() * len(UNMAPPED))]

    def _place(self, draw: Draw) -> tuple[str, str]:
        state, digits = self._places(draw)
        chance = draw()
        if chance < 0.015:
            return state, "XXXXX"
        if chance < 0.12:
            return state, f"{digits}XX"
        return state, "" if chance < 0.125 else f"{digits}{int(draw() * 100):02d}"

    def _sent(self, day: date, draw: Draw) -> str:
        lag = self._lags(draw)
        return "" if lag is None else (day + timedelta(days=lag)).isoformat()


def _companies(settings: SimulatorSettings, seed: int) -> tuple[list[str], list[float], list[dict[str, float]]]:
    """Names, volumes (Zipf over a random order) and queue mixes of the companies, specialists and generalists.

    The first of each line of business are the largest.
    """
    random = Random(f"companies-{seed}")  # noqa: S311 - data, not secrets
    names, mixes = [], []
    for place, name in enumerate(random.sample(_all_names(), settings.companies)):
        suffixes, line = _KINDS[place % len(_KINDS)]
        weights = {queue: weight * random.gammavariate(3, 1 / 3) for queue, weight in line.items()}
        whole, noise = sum(weights.values()), settings.company_noise
        names.append(f"{name} {random.choice(suffixes)}")
        mixes.append({q: (1 - noise) * weights.get(q, 0) / whole + noise * settings.queue_mix[q] for q in QUEUES})
    volumes = [1 / (1 + place // len(_KINDS)) ** 0.9 for place in range(len(names))]
    return names, volumes, mixes


def _all_names() -> list[str]:
    """One word, or two joined: 25 and 600 names."""
    return [*_NAMES, *(f"{first} & {second}" for first in _NAMES for second in _NAMES if first != second)]


def _by_queue(
    names: Sequence[str], volumes: Sequence[float], mixes: Sequence[Mapping[str, float]]
) -> dict[str, _Choice[str]]:
    return {
        queue: _Choice([(name, volume * mix[queue]) for name, volume, mix in zip(names, volumes, mixes, strict=True)])
        for queue in QUEUES
    }


def _churned(volumes: Sequence[float], share: float, seed: int) -> list[float]:
    """The volumes after a share of the companies has swapped them with one another."""
    random = Random(f"churn-{seed}")  # noqa: S311 - data, not secrets
    trading = random.sample(range(len(volumes)), round(share * len(volumes)))
    churned = list(volumes)
    for place, taken in zip(trading, random.sample(trading, len(trading)), strict=True):
        churned[place] = volumes[taken]
    return churned
