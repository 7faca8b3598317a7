"""Draws tickets. A ticket is a function of (seed, day, number in the day) and the state of the world on that day."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from random import Random
from typing import Any

from simulation.settings import Scenario, Settings, load_resolutions, load_words

__all__ = ["Customer", "Ticket", "Version", "World"]

_NAMES = (
    *("Amara Okafor", "Ben Adler", "Carla Stein", "Daniel Roth", "Elif Yilmaz", "Farid Nasser", "Greta Lindner"),
    *("Hannah Voss", "Ivan Petrov", "Jule Brandt", "Karim Haddad", "Lena Fuchs", "Marek Nowak", "Nora Winkler"),
    *("Oscar Lund", "Paula Reyes", "Quentin Moreau", "Rosa Conti", "Samir Khan", "Tessa Bauer", "Uwe Kranz"),
    *("Vera Sommer", "Wiebke Janssen", "Yusuf Demir", "Zoe Hartmann", "Priya Raman", "Tom Gallagher", "Mia Keller"),
)
_ALTERNATIVES = re.compile(r"\(([^()|]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_UNMAPPED = ("other", "unknown")


@dataclass(frozen=True)
class Customer:
    number: str
    plan: str
    is_german: bool
    zone: str
    products: tuple[str, ...]
    tastes: Mapping[str, float]
    """A factor for each team's share of the customer's tickets, on top of the weights of team and product."""


@dataclass(frozen=True)
class Version:
    """A ticket's state from an instant on; open if it has no resolution."""

    at: datetime
    resolved_at: datetime | None = None
    resolution: tuple[str, str] | None = None


@dataclass(frozen=True)
class Ticket:
    id: str
    customer: Customer
    product: str
    channel: str
    language: str
    subject: str
    body: str
    versions: tuple[Version, ...]
    """In chronological order: opened, then perhaps resolved, then perhaps corrected."""


class World:
    """The customers depend on the seed."""

    def __init__(self, settings: Settings, scenario: Scenario, seed: int, change: date | None) -> None:
        self._settings, self._scenario, self._seed, self._change = settings, scenario, seed, change
        random = Random(f"customers {seed}")  # noqa: S311 - data, not secrets
        self._customers = [_customer(place, settings, random) for place in range(settings.customers)]
        self._shares = [(place + 1) ** -settings.customer_power for place in range(settings.customers)]
        self._team_weights = cache(self._weigh_teams)

    def stream(self, *place: object) -> Random:
        """The random stream of one ticket, or of anything else with this name."""
        return Random(" ".join(map(str, (self._seed, *place))))  # noqa: S311 - data, not secrets

    def ticket(self, day: date, place: int) -> Ticket:
        random = self.stream(day, place)
        changed = self._scenario if self._change is not None and day >= self._change else Scenario(description="")
        customer = random.choices(self._customers, self._shares)[0]
        product = _launched(changed, random) or random.choice(customer.products)
        team = random.choices(list(self._settings.teams), self._team_weights(customer.number, product))[0]
        is_german = random.random() < changed.german if changed.german is not None else customer.is_german
        language = "de" if is_german else "en"
        subject, body = self._text(team, product, language, changed, random)
        done_by = changed.handed_over.get(team, team)
        return Ticket(
            id=f"T{day:%y%m%d}-{place:04d}",
            customer=customer,
            product=product,
            channel=_weighted(self._settings.channels, random),
            language=language,
            subject=subject,
            body=body,
            versions=tuple(self._versions(day, done_by, random)),
        )

    def _weigh_teams(self, number: str, product: str) -> list[float]:
        tastes, raises = self._customers[int(number[1:])].tastes, self._settings.products[product].raises
        return [team.weight * raises.get(name, 1) * tastes[name] for name, team in self._settings.teams.items()]

    def _text(self, team: str, product: str, language: str, changed: Scenario, random: Random) -> tuple[str, str]:
        words, settings = load_words()[language], self._settings
        own = words["teams"][team]
        is_vague = random.random() < settings.vague
        has_new_words = random.random() < changed.new_words.get(team, 0)
        is_plain = not is_vague and not has_new_words and random.random() >= settings.vague_subject
        subject = random.choice(own["subject"] if is_plain else words["vague_subject"])
        core = words["vague"] if is_vague else [f"{text}." for text in own["new"]] if has_new_words else own["text"]
        parts = [random.choice(words["opening"])] if random.random() < 0.5 else []
        parts += [random.choice(words["launch"])] if product in changed.launched else []
        parts += random.sample(core, 2) if has_new_words or random.random() < 0.2 else [random.choice(core)]
        if random.random() < settings.aside:
            other = random.choice([name for name in settings.teams if name != team])
            parts.insert(random.randint(0, len(parts)), self._aside(words, other, random))
        parts += [random.choice(words["detail"]) for _ in range(3) if random.random() < settings.detail / 2]
        greeting, closing = random.choice(words["greeting"]), random.choice(words["closing"])
        body = " ".join(_capital(_filled(part, product, random)) for part in parts)
        around = [_filled(greeting, product, random), body, _filled(closing, product, random)]
        return _filled(subject, product, random), "\n".join(part for part in around if part)

    def _aside(self, words: Mapping[str, Any], team: str, random: Random) -> str:
        quoted = random.choice(words["teams"][team]["text"]).rstrip(".")
        return str(random.choice(words["aside"]).replace("{other}", quoted))

    def _versions(self, day: date, team: str, random: Random) -> list[Version]:
        settings = self._settings
        hour = random.choices(range(24), settings.hours)[0]
        opened = datetime.combine(day, time(hour, random.randrange(60), random.randrange(60)), UTC)
        hours = settings.teams[team].hours * math.exp(random.gauss(0, settings.spread))
        is_resolved, is_misfiled = random.random() >= settings.unresolved, random.random() < settings.misfiled
        right, wrong = _resolution(team, random), _resolution(_another(settings.teams, team, random), random)
        is_corrected, later = random.random() < settings.corrected, timedelta(hours=random.uniform(24, 336))
        filed = _UNMAPPED if random.random() < settings.unmapped else wrong if is_misfiled else right
        versions = [Version(opened)]
        if is_resolved:
            at = opened + timedelta(seconds=round(min(hours, settings.max_days * 24) * 3600))
            versions.append(Version(at, at, filed))
            if is_misfiled and is_corrected:
                versions.append(Version(at + timedelta(seconds=round(later.total_seconds())), at, right))
        return versions


def _customer(place: int, settings: Settings, random: Random) -> Customer:
    sold = {name: product.weight for name, product in settings.products.items()}
    return Customer(
        number=f"C{place:04d}",
        plan=_weighted(settings.plans, random),
        is_german=random.random() < settings.german,
        zone=_weighted(settings.zones, random),
        products=tuple(sorted({_weighted(sold, random) for _ in range(1 + random.randrange(3))})),
        tastes={team: random.gammavariate(2, 0.5) + 0.05 for team in settings.teams},
    )


def _launched(changed: Scenario, random: Random) -> str | None:
    chance = random.random()
    for product, share in changed.launched.items():
        if chance < share:
            return product
        chance -= share
    return None


def _another(teams: Mapping[str, Any], team: str, random: Random) -> str:
    return random.choice([name for name in teams if name != team])


def _resolution(team: str, random: Random) -> tuple[str, str]:
    return random.choice(load_resolutions()[team])


def _weighted(weights: Mapping[str, float], random: Random) -> str:
    return random.choices(list(weights), list(weights.values()))[0]


def _filled(template: str, product: str, random: Random) -> str:
    """A template with its alternatives drawn, the inner ones first, and its slots filled."""
    while (match := _ALTERNATIVES.search(template)) is not None:
        template = template[: match.start()] + random.choice(match.group(1).split("|")) + template[match.end() :]
    fill = {
        "product": lambda: product,
        "name": lambda: random.choice(_NAMES),
        "number": lambda: str(random.randrange(2, 40)),
        "code": lambda: str(random.randrange(100, 9000)),
    }
    return _SLOT.sub(lambda slot: fill[slot.group(1)](), template)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
