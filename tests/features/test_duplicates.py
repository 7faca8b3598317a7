"""Near duplicates, against sets of words compared pair by pair."""

import random
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from assets.features import duplicates
from assets.features.duplicates import Duplicates, find_duplicates, hash_starts

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


def search(texts: pa.ChunkedArray, others: pa.ChunkedArray, similarity: float = 0.7) -> Duplicates:
    rows, theirs = (pa.table({"text": n, "start": hash_starts(n)}) for n in (texts, others))
    return find_duplicates(rows, theirs, similarity)


def find(texts: list[str], others: list[str], similarity: float = 0.7) -> tuple[list[bool], list[bool]]:
    found = search(*(pa.chunked_array([texts], pa.string()) for texts in (texts, others)), similarity)
    return found.same_start.tolist(), found.similar.tolist()


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.9])
def test_similar_pairs_are_those_of_brute_force(similarity: float) -> None:
    others = [text(RNG.randint(1, 90)) for _ in range(60)]
    texts = [changed(RNG.choice(others), RNG.choice([0, 0.01, 0.03, 0.1, 0.3])) for _ in range(1500)]
    texts += [text(RNG.randint(1, 60)) for _ in range(700)]
    assert_as_brute_force(texts, others, similarity)


def test_so_are_those_of_real_records(cfpb: Path) -> None:
    column = '"Consumer complaint narrative"'
    ascii_text = f"{column} is not null and length({column}) = strlen({column})"
    sql = f"select {column} from read_csv(?, all_varchar = true) where {ascii_text} limit 1000"
    with duckdb.connect() as connection:
        found = connection.execute(sql, [str(cfpb / "complaints-2023-2026.csv.gz")]).fetchall()
    texts = [text for (text,) in found]
    assert_as_brute_force(texts[:900], texts[900:], 0.1)


def assert_as_brute_force(texts: list[str], others: list[str], similarity: float) -> None:
    sets = [shingles(other) for other in others]
    wanted = [
        any(len(mine & other) >= similarity * len(mine | other) for other in sets) for mine in map(shingles, texts)
    ]
    same_start, similar = find(texts, others, similarity)
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
    texts = [changed(other, 0.02) for other in others] + [text(40) for _ in range(5)]
    whole = search(pa.chunked_array([texts]), pa.chunked_array([others]))
    pieces = pa.chunked_array([pa.array(["skipped", *texts[:3]])[1:], [], texts[3:]])
    parts = search(pieces, pa.chunked_array([others[:1], others[1:]]))
    assert whole.any.tolist() == parts.any.tolist() == [True] * 5 + [False] * 5


def test_pieces_bound_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [text(60) for _ in range(20)]
    texts = [changed(RNG.choice(others), RNG.choice([0.01, 0.03, 0.1])) for _ in range(200)]
    whole = find(texts, others)
    monkeypatch.setattr(duplicates, "_PAIRS", 7)
    assert find(texts, others) == whole
    assert any(whole[1])
    assert not all(whole[1])


def test_where_many_are_alike_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = text(200)
    rows, others = ([text(20) + " " + letter for _ in range(100)] for _ in range(2))
    compared = []
    compare = duplicates._Index._are_alike

    def count(index: duplicates._Index, some: object, mine: object, other: object) -> object:
        compared.append(len(mine))  # type: ignore[arg-type]
        return compare(index, some, mine, other)  # type: ignore[arg-type]

    monkeypatch.setattr(duplicates._Index, "_are_alike", count)
    assert find(rows, others) == ([False] * 100, [True] * 100)
    assert sum(compared) < 10 * len(rows)


def test_hashes_of_starts_never_change() -> None:
    """By them the reference rows are chosen, which champions of different times are compared on."""
    starts = hash_starts(pa.chunked_array([["I paid them", "i PAID $5, them", "", "the bank " * 30]]))
    assert starts.tolist() == [3409794555061903627, 3409794555061903627, 0, 6429099299690963723]
