"""Letters to a parcel service, as the tutorial has them: semicolons, instants, 31 topics of which two are one."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

TOPICS = {
    "parcel late": "delayed overdue slow waiting schedule promised",
    "parcel lost": "vanished gone untraceable disappeared trace search",
    "parcel wet": "rain soaked damp puddle moisture mould",
    "parcel opened": "slit tampered resealed contents tape theft",
    "wrong address": "street number postcode moved forwarded unit",
    "wrong parcel": "swapped mistaken stranger mixup another recipient",
    "no receipt": "proof slip signature document copy stamp",
    "no answer": "hotline silence email ignored reply callback",
    "rude driver": "shouted insulted behaviour angry swore manners",
    "kind driver": "friendly helpful smile praise thanks courteous",
    "broken glass": "shattered vase splinters fragile mirror bottle",
    "torn box": "ripped carton dented crushed packaging corner",
    "double charge": "twice billed bank duplicate debited statement",
    "customs fee": "duty import border tax clearance declaration",
    "return label": "sticker print qr sendback barcode pdf",
    "refund late": "money reimbursement weeks account transfer owed",
    "pickup missed": "collection courier came appointment scheduled waited",
    "locker full": "compartment capacity redirected station occupied space",
    "locker stuck": "door jammed latch screen stopped hardware",
    "app crash": "phone update freezes login tracking android",
    "code invalid": "pin digits rejected expired enter sms",
    "door bell": "rang knocked home card claimed nobody",
    "neighbour took it": "next flat handed upstairs unknown person",
    "weekend delivery": "saturday sunday express option holiday surcharge",
    "heavy goods": "pallet kilos lift stairs washing furniture",
    "live plants": "leaves pot soil flowers frost wilted",
    "insurance claim": "coverage policy damages assessor value compensation",
    "contract end": "cancel terminate notice business renewal leave",
    "new contract": "offer rates volume sign onboarding company",
    "price change": "tariff increase cheaper cost list january",
}
"""What letters are about, and words that they are about it in."""
_LOST, _MISSING = "parcel lost", "missing parcel"
"""A topic, and what it was called in the first months."""
_START = datetime(2025, 1, 6, 7, tzinfo=UTC)
_OPENINGS = ("Dear all,", "Hello,", "To whom it may concern:", "Good morning,", "Hi there,")
_PLAIN = "since yesterday I want to know why this was not done and what you will do now please tell me soon".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, which is not to be changed."""
    return _write(tmp_path_factory.mktemp("letters") / "letters.csv")


def _write(path: Path, count: int = 4_000, seed: int = 3) -> Path:
    """A letter an hour, with some words of its topic and a few of another."""
    drawn = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["No", "Arrived", "Subject", "Letter", "Topic"])
        for number in range(1, count + 1):
            topic = drawn.choice(list(TOPICS))
            filed = _MISSING if topic == _LOST and number < count / 4 else topic
            writer.writerow([number, _arrived(number), *_letter(drawn, topic), filed])
    return path


def _arrived(number: int) -> str:
    return (_START + timedelta(hours=number)).isoformat().replace("+00:00", "Z")


def _letter(drawn: random.Random, topic: str) -> tuple[str, str]:
    """What a letter says first is its topic; half of them quote an earlier one below, which may be about another."""
    said = f"{drawn.choice(_OPENINGS)} {_sentence(drawn, topic)}"
    quoted = f" You wrote: {_sentence(drawn, drawn.choice(list(TOPICS)))}" if drawn.random() < 0.5 else ""
    return f"letter {drawn.choice(_PLAIN)} {drawn.randrange(10_000)}", said + quoted


def _sentence(drawn: random.Random, topic: str) -> str:
    words = drawn.sample(TOPICS[topic].split(), 3) + drawn.sample(_PLAIN, 9)
    drawn.shuffle(words)
    return f"{' '.join(words)}."
