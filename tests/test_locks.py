"""What is installed is what was locked: every package by version and hash."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = sorted([*ROOT.glob("requirements*.lock"), *ROOT.glob("bench/requirements*.lock")])


def packages(lock: Path) -> dict[str, str]:
    """Each requirement of a lock file, with the lines that belong to it."""
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock.read_text(), flags=re.M).strip())
    return {re.match(r"[\w.\[\]-]+==\S+", block).group(): block for block in blocks}  # type: ignore[union-attr]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    assert [name for name, block in packages(lock).items() if "--hash=sha256:" not in block] == []


def test_the_lock_brings_neither_torch_nor_cuda() -> None:
    assert [
        name for name in packages(ROOT / "requirements.lock") if re.match(r"(torch|triton|nvidia-|cuda-)", name)
    ] == []


def test_every_install_of_a_lock_requires_its_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if " install " in line and "--requirement" in line]
    assert len(installs) == 7
    assert [line for line in installs if "$(LOCKED)" not in line and "--require-hashes" not in line] == []


def test_the_licences_that_are_listed_are_of_what_is_locked() -> None:
    rows = re.findall(r"^\| ([\w.-]+) +\| ([\w.+-]+) +\|", (ROOT / "docs" / "licences.md").read_text(), re.M)[1:]
    listed = {(re.sub(r"[-_.]+", "-", name.lower()), version) for name, version in rows}
    locked = {tuple(name.split("==")) for lock in LOCKS for name in packages(lock)}
    assert len(listed) > 200
    assert {name for name, _ in listed - locked} == {"torch"}
