"""What an as-of is, as a day and as an hour."""

from datetime import UTC, date, datetime

import duckdb
import pytest

from assets.as_of import Cadence, at, date_of, days_between, instant, instant_sql, parse, shifted


@pytest.mark.parametrize(("text", "cadence"), [("2024-02-29", "day"), ("2024-02-29T00", "hour")])
def test_what_is_written_as_it_should_be_is_taken_as_it_is(text: str, cadence: Cadence) -> None:
    assert parse(text, cadence) == text


@pytest.mark.parametrize(
    ("text", "cadence", "write"),
    [
        ("2024-07-01T13", "day", "not a date; write YYYY-MM-DD"),
        ("20240701", "day", "not a date; write YYYY-MM-DD"),
        ("2024-02-30", "day", "not a date; write YYYY-MM-DD"),
        ("2024-07-01", "hour", "no hour; write YYYY-MM-DDTHH"),
        ("2024-07-01T24", "hour", "no hour; write YYYY-MM-DDTHH"),
        ("2024-07-01 13", "hour", "no hour; write YYYY-MM-DDTHH"),
        ("2024-07-01T13:00", "hour", "no hour; write YYYY-MM-DDTHH"),
        ("2024-07-01T13+02:00", "hour", "no hour; write YYYY-MM-DDTHH"),
        ("", "hour", "no hour; write YYYY-MM-DDTHH"),
    ],
)
def test_another_spelling_is_refused_with_what_to_write(text: str, cadence: Cadence, write: str) -> None:
    with pytest.raises(ValueError, match="; write") as raised:
        parse(text, cadence)
    assert str(raised.value) == f"{text!r} is {write}"


def test_a_time_is_in_a_day_and_in_an_hour() -> None:
    time = datetime(2024, 7, 1, 13, 59, 59, 999999, tzinfo=UTC)
    assert (at(time, "day"), at(time, "hour")) == ("2024-07-01", "2024-07-01T13")
    assert (at(date(2024, 7, 1), "day"), at(date(2024, 7, 1), "hour")) == ("2024-07-01", "2024-07-01T00")


def test_either_means_an_instant_in_python_and_in_sql() -> None:
    meant = {"2024-07-01": datetime(2024, 7, 1), "2024-07-01T13": datetime(2024, 7, 1, 13)}
    for text, expected in meant.items():
        assert instant(text) == expected
        assert date_of(text) == date(2024, 7, 1)
        assert duckdb.execute(f"select {instant_sql('$1')}", [text]).fetchall() == [(expected,)]


@pytest.mark.parametrize(
    ("text", "days", "expected"),
    [("2024-02-28", 2, "2024-03-01"), ("2024-03-01T13", -1, "2024-02-29T13"), ("2024-12-31T00", 1, "2025-01-01T00")],
)
def test_days_later_is_written_alike(text: str, days: int, expected: str) -> None:
    assert shifted(text, days) == expected
    assert days_between(text, expected) == days


def test_days_between_hours_are_whole() -> None:
    assert [days_between("2024-07-01T13", f"2024-07-02T{hour}") for hour in (12, 13, 14)] == [0, 1, 1]


def test_text_sorts_as_time_does() -> None:
    told = ["2024-06-30", "2024-06-30T23", "2024-07-01", "2024-07-01T00", "2024-07-01T09", "2024-07-01T10"]
    assert sorted(told) == sorted(told, key=instant) == told
