"""What people are shown of data reads as the data does, through the libraries that show it."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from assets.display import (
    Markdown,
    capitalized,
    label_name,
    markdown,
    markdown_list,
    markdown_table,
    names_are_text,
    plain,
    slice_name,
    text_table,
)
from assets.resources import table
from assets.settings import load_domain

Cells = Callable[[str], list[list[str]]]

HOSTILE = [
    *("$\\frac{$", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "a|b", "a\\|b"),
    *("`code`", "``", "**bold**", "_x_ __y__", "~~gone~~", "[a](javascript:alert(1))", "![a](http://b.example/c.png)"),
    *("[a]: /b", "- item", "+ item", "* item", "1. one", "2) two", "# head", "=====", "-----", "> quote", "    code"),
    *(
        "two\nlines",
        "\\",
        "\x1b[31mred\x00",
        "\u202eright to left",
        "a\u2028b",
        "<!-- a",
        "credit_reporting",
        "Web",
        "",
    ),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_cell_of_a_table_shows_the_value(value: str, cells: Cells) -> None:
    shown = plain(value)
    assert cells(markdown_table([value, "rows"], [[value, 1], [1, value]])) == [
        [shown, "rows"],
        [shown, "1"],
        ["1", shown],
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_an_item_of_a_list_shows_the_value(value: str, text_of: Callable[[str], str]) -> None:
    assert text_of(markdown_list([value, "next"])) == f"{plain(value)}\nnext".lstrip("\n")
    assert text_of(markdown(value)) == plain(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_cell_of_an_assets_metadata_shows_the_value(value: str, shown: Callable[[Any], list[list[Any]]]) -> None:
    assert shown(table([value, "rows"], [[value, 1], [1, value]])) == [
        [plain(value), "rows"],
        [plain(value), 1],
        [1, plain(value)],
    ]


def test_columns_that_a_domain_names_alike_are_all_shown(shown: Callable[[Any], list[list[Any]]]) -> None:
    head, row = shown(table(["rows", "rows", "share"], [["a", 1, 0.5]]))
    assert [name.strip() for name in head] == ["rows", "rows", "share"]
    assert row == ["a", 1, 0.5]


def test_no_rows_are_said_to_be_none(shown: Callable[[Any], list[list[Any]]]) -> None:
    assert markdown_table(["a"], []) == "none"
    assert shown(table(["a", "b"], [])) == [["a", "b"]]


def test_numbers_stand_at_the_right_and_markdown_as_it_is_written() -> None:
    rows = [("1,200", "a|b", Markdown("`a|b`")), (-0.5, 3, Markdown("[a](#a)"))]
    assert markdown_table(["n", "m", "k"], rows).splitlines() == [
        "| n | m | k |",
        "| ---: | --- | --- |",
        "| 1,200 | a\\|b | `a\\|b` |",
        "| \\-0.5 | 3 | [a](#a) |",
    ]


def test_columns_of_a_terminal_stand_below_one_another() -> None:
    assert text_table(
        ["who", "a long metric", "n"], [["challenger", "0.5", "1,200"], ["champion", "none yet", ""]]
    ) == ("who         a long metric      n\nchallenger            0.5  1,200\nchampion         none yet")


def test_what_is_shown_is_one_line_that_can_be_seen() -> None:
    assert plain(" a\r\n\tb\x07\u202e ") == "a b\ufffd\ufffd"
    assert plain("a" * 50, 40) == "a" * 39 + "…"


@pytest.mark.parametrize("value", [*HOSTILE, "投诉 🙂", "x^2_$i$"])
def test_matplotlib_draws_the_value(value: str) -> None:
    from matplotlib.figure import Figure

    with names_are_text():
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], label=f"line {value}")
        axes.set_yticks([0, 1], [value, plain(value, 10)])
        axes.set_title(value)
        axes.legend()
        figure.savefig(drawn := BytesIO())
    assert drawn.getvalue().startswith(b"\x89PNG")
    assert (axes.get_title(), axes.get_yticklabels()[0].get_text()) == (value, value)


def test_labels_and_slices_are_called_as_the_domain_calls_them() -> None:
    domain = load_domain()
    assert label_name(domain, "cards") == "Cards"
    assert label_name(domain, "of_another_day") == "of_another_day"
    assert slice_name(domain, "label", "credit_reporting") == "queue Credit reporting"
    assert slice_name(domain, "text_length", "0 to 99") == "text length 0 to 99"
    assert capitalized("API calls") == "API calls"
    assert capitalized("tickets") == "Tickets"
