"""Near duplicates, against sets of words compared pair by pair."""

import random
import re

import pyarrow as pa
import pytest

from assets.features.duplicates import find_duplicates

RNG = random.Random(3)
WORDS = [f"{a}{b}{c}" for a in "bcdf" for b in "aeiou" for c in "klmn"]


def text(words: int) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(words))


def changed(original: str, share: float) -> str:
    """The same text with some of its words replaced; the first one always."""
    words = original.split()
    for place in {0, *RNG.sample(range(len(words)), round(share * len(words)))}:
        words[place] = "zz" + RNG.choice(WORDS)
    return " ".join(words)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = [word for word in re.findall("[a-z]+", text.lower()) if set(word) != {"x"}]
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} if words else set()


def find(narratives: list[str], others: list[str], similarity: float = 0.7) -> tuple[list[bool], list[bool]]:
    strings = [pa.chunked_array([texts], pa.string()) for texts in (narratives, others)]
    found = find_duplicates(*strings, similarity)
    return found.same_start.tolist(), found.similar.tolist()


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.9])
def test_similar_pairs_are_those_of_brute_force(similarity: float) -> None:
    others = [text(RNG.randint(1, 90)) for _ in range(60)]
    narratives = [changed(RNG.choice(others), RNG.choice([0, 0.01, 0.03, 0.1, 0.3])) for _ in range(1500)]
    narratives += [text(RNG.randint(1, 60)) for _ in range(700)]
    sets = [shingles(other) for other in others]
    wanted = [
        any(len(mine & other) >= similarity * len(mine | other) for other in sets) for mine in map(shingles, narratives)
    ]
    same_start, similar = find(narratives, others, similarity)
    assert [a or b for a, b in zip(same_start, similar, strict=True)] == [
        a or b for a, b in zip(same_start, wanted, strict=True)
    ]
    assert any(similar)
    assert not all(wanted)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I paid $100.00 on 01/02/2020 to them", "i PAID {$7.50}\n on XX/XX/XXXX to XXXX them!"),
        ("Ok", "  ok. "),
        (text(100), None),
    ],
)
def test_equal_but_for_case_numbers_redactions_and_spaces_start_alike(one: str, other: str | None) -> None:
    assert find([one], [other or one.upper()]) == ([True], [False])


def test_form_letters_start_alike_whatever_follows() -> None:
    start = ("dear sirs under the act named above you are hereby told to delete what is listed below " * 2)[:120]
    assert find([start + text(50)], [start + text(50)])[0] == [True]
    assert find([start[:100] + " " + text(50)], [start[:100] + "q " + text(50)])[0] == [False]


def test_texts_without_words_are_like_nothing() -> None:
    assert find(["", "XXXX", "12.50"], ["", "XX/XX/XXXX", "99"]) == ([False] * 3, [False] * 3)
    assert find([], []) == ([], [])


def test_slices_and_chunks_change_nothing() -> None:
    others = [text(40) for _ in range(5)]
    narratives = [changed(other, 0.02) for other in others] + [text(40) for _ in range(5)]
    whole = find_duplicates(pa.chunked_array([narratives]), pa.chunked_array([others]), 0.7)
    pieces = pa.chunked_array([pa.array(["skipped", *narratives[:3]])[1:], [], narratives[3:]])
    parts = find_duplicates(pieces, pa.chunked_array([others[:1], others[1:]]), 0.7)
    assert whole.any.tolist() == parts.any.tolist() == [True] * 5 + [False] * 5
