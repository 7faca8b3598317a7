"""A bad object or night is found by its own numbers; small ones and chance alarm nobody."""

from dataclasses import fields
from typing import Any

import pytest

from assets.settings import WarehouseSettings, load_domain
from assets.validation.objects import NewObject, Problems, find_problems, named

LABELS = tuple(load_domain().labels)

POLICY = WarehouseSettings(
    max_unmapped_share=0.01, max_quarantined_share=0.2, max_staleness_days=60, max_mix_shift=0.5, min_object_rows=50
)
MIX = dict.fromkeys(LABELS, 1 / len(LABELS))


def new(key: str = "n.csv", **changes: Any) -> NewObject:
    """A night's object of 900 records in all labels."""
    usual: dict[str, Any] = {"landed": 910, "quarantined": 10, "error": None, "records": 900}
    return NewObject(**{"key": key, "labels": dict.fromkeys(LABELS, 100), **usual, **changes})


def rules(problems: Problems) -> dict[str, tuple[str, ...]]:
    return {field.name: found for field in fields(problems) if (found := getattr(problems, field.name))}


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (new(), {}),
        (new(landed=1000, quarantined=1000, records=0, labels={}), {"quarantined": ("n.csv (1,000 of 1,000)",)}),
        (new(landed=1, quarantined=1, error="x: y", records=0, labels={}), {"refused": ("n.csv (x)",)}),
        (new(error="truncated-gzip"), {"cut_short": ("n.csv (truncated-gzip)",)}),
        (new(records=950), {"unmapped": ("n.csv (50 of 950)",)}),
        (
            new(labels={"cards": 900}),
            {
                "shifted": ("n.csv (distance 0.89 of 900 labels)",),
                "of_one_label": ("n.csv (900 labels, all cards)",),
            },
        ),
        # Too few to tell, and what chance brings about.
        (new(landed=49, quarantined=49, records=0, labels={}), {}),
        (new(landed=60, quarantined=13, records=50, labels=dict.fromkeys(LABELS[:8], 6)), {}),
        (new(landed=49, quarantined=0, records=49, labels={"cards": 49}), {}),
    ],
)
def test_an_object_is_judged_by_its_own_numbers(bad: NewObject, found: dict[str, tuple[str, ...]]) -> None:
    assert rules(find_problems([bad], MIX, POLICY)) == found


def test_a_night_of_small_bad_objects_is_found_together() -> None:
    small = [new(f"{n}.csv", landed=20, quarantined=20, records=0, labels={}) for n in range(30)]
    assert rules(find_problems(small, MIX, POLICY)) == {
        "quarantined": ("all 30 new objects together (600 of 600)",),
    }


def test_the_first_publication_has_nothing_to_be_compared_with() -> None:
    months = [new("2011-12.csv", labels={"cards": 900}), new("2012-01.csv")]
    assert rules(find_problems(months, None, POLICY)) == {}


def test_the_first_few_are_named() -> None:
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
