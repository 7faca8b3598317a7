import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from assets.scoring.parts import resumable

ONE = pa.table({"n": [1]})


def left_behind(folder: Path, name: str, key: str) -> None:
    with pytest.raises(KeyboardInterrupt), resumable(folder, name, key) as parts:
        parts.write(0, ONE)
        raise KeyboardInterrupt


def test_a_part_that_was_being_written_when_it_was_killed_is_not_one(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import pyarrow as pa, pyarrow.parquet as pq\n"
        "from assets.scoring.parts import resumable\n"
        "with resumable(Path(sys.argv[1]), 'out', 'key') as parts:\n"
        "    parts.write(0, pa.table({'n': [1]}))\n"
        "    pq.write_table = lambda table, file, **_: (file.write(b'PAR1'), os.kill(os.getpid(), signal.SIGKILL))\n"
        "    parts.write(1, pa.table({'n': [2]}))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with resumable(tmp_path, "out", "key") as parts:
        assert (0 in parts, 1 in parts) == (True, False)
        assert [table.to_pydict() for table in parts.tables()] == [{"n": [1]}]
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_key_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    left_behind(tmp_path, "out.csv", "old")
    (tmp_path / ".out.csv-mine").mkdir()
    left_behind(tmp_path, "other.csv", "old")
    with resumable(tmp_path, "out.csv", "new") as parts:
        assert 0 not in parts
    assert {path.name for path in tmp_path.iterdir()} == {".out.csv-mine", ".other.csv-old.parts"}


def test_parts_that_a_process_is_writing_are_left_to_it(tmp_path: Path) -> None:
    with resumable(tmp_path, "out", "first") as first:
        first.write(0, ONE)
        with resumable(tmp_path, "out", "second"):
            pass
        assert 0 in first
