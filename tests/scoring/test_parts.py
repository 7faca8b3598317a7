import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from assets.scoring.parts import resumable


def table(number: int) -> pa.Table:
    return pa.table({"n": [number]})


def left_behind(folder: Path, name: str, key: str) -> None:
    """One part of two is written, then it fails."""

    def answer(number: int) -> pa.Table:
        if number:
            raise KeyboardInterrupt
        return table(number)

    with pytest.raises(KeyboardInterrupt), resumable(folder, name, key) as parts:
        parts.fill(lambda: range(2), answer)


def fill(folder: Path, key: str, count: int) -> list[int]:
    """The parts that had to be answered."""
    answered: list[int] = []
    with resumable(folder, "out", key) as parts:
        parts.fill(lambda: range(count), lambda number: (answered.append(number), table(number))[1])
        assert [part["n"].to_pylist() for part in parts.tables()] == [[number] for number in range(count)]
    return answered


def test_a_part_that_was_being_written_when_it_was_killed_is_not_one(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import pyarrow as pa, pyarrow.parquet as pq\n"
        "from assets.scoring.parts import resumable\n"
        "def killed(table, file, **_):\n    file.write(b'PAR1'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "def answer(number):\n"
        "    if number: pq.write_table = killed\n"
        "    return pa.table({'n': [number]})\n"
        "with resumable(Path(sys.argv[1]), 'out', 'key') as parts:\n    parts.fill(lambda: range(2), answer)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert fill(tmp_path, "key", 3) == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_key_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    left_behind(tmp_path, "out", "old")
    (tmp_path / ".out-mine").mkdir()
    left_behind(tmp_path, "other", "old")
    assert fill(tmp_path, "new", 2) == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {".out-mine", ".other-old.parts"}


def test_parts_that_a_process_is_writing_are_left_to_it(tmp_path: Path) -> None:
    with resumable(tmp_path, "out", "first") as first:
        first.fill(lambda: range(1), table)
        assert fill(tmp_path, "second", 1) == [0]
        assert len(list(first.tables())) == 1


def test_the_last_of_those_who_share_parts_removes_them(tmp_path: Path) -> None:
    with resumable(tmp_path, "out", "key") as first:
        first.fill(lambda: range(2), table)
        assert fill(tmp_path, "key", 2) == []
        assert len(list(first.tables())) == 2
    assert list(tmp_path.iterdir()) == []


def test_one_process_reads_its_rows_once(tmp_path: Path) -> None:
    passes = []
    with resumable(tmp_path, "out", "key") as parts:
        parts.fill(lambda: [passes.append(1), *range(2)][1:], table)
    assert len(passes) == 1


def test_a_part_in_other_hands_is_waited_for(tmp_path: Path) -> None:
    """Two share four parts; while one answers its first, the other answers the rest and then waits."""
    started, rest_done = threading.Event(), threading.Event()
    answered: dict[str, list[int]] = {"slow": [], "fast": []}

    def slow(number: int) -> pa.Table:
        answered["slow"].append(number)
        started.set()
        assert rest_done.wait()
        return table(number)

    def fast(number: int) -> pa.Table:
        answered["fast"].append(number)
        if number == 3:
            rest_done.set()
        return table(number)

    with resumable(tmp_path, "out", "key") as one, resumable(tmp_path, "out", "key") as two:
        thread = threading.Thread(target=one.fill, args=(lambda: range(4), slow))
        thread.start()
        assert started.wait()
        two.fill(lambda: range(4), fast)
        assert len(list(two.tables())) == 4
        thread.join()
    assert answered == {"slow": [0], "fast": [1, 2, 3]}
