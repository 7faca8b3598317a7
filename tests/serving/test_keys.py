"""API keys, and how much each may send."""

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assets.exceptions import SettingsError
from assets.serving.keys import Bucket, Keys, add_key
from pipelines.cli import app


def test_a_key_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "keys"
    first, second = add_key(path, "router"), add_key(path, "desk-2")
    keys = Keys.read(path)
    assert [keys.name(key) for key in (first, second, "", first[:-1], f"{first} ")] == [
        "router",
        "desk-2",
        None,
        None,
        None,
    ]
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="has a key of that name"):
        add_key(path, "router")


def test_the_command_takes_the_file_that_is_named_for_it(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = CliRunner().invoke(app, ["serve", "--keys", str(path), "--new-key", "router"])
    assert Keys.read(path).name(made.stdout.strip()) == "router"
    path.unlink()
    refused = CliRunner().invoke(app, ["serve", "--keys", str(path)])
    assert isinstance(refused.exception, SettingsError)
    assert str(path) in str(refused.exception)
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "a\nb"])
def test_a_name_that_could_not_be_read_again_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="--new-key"):
        add_key(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "there is no key in it"),
        ("# only this\n\n", "there is no key in it"),
        (f"a:{'0' * 64}\nb:plain", "line 2 is not"),
        (f"a:{'G' * 64}", "line 1 is not"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError, match=fault):
        Keys.read(tmp_path / "keys")
    with pytest.raises(SettingsError, match="cannot be read"):
        Keys.read(tmp_path / "none")


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    bucket = Bucket(rate=2, burst=4, clock=lambda: now[0])
    assert bucket.take(4) == 0
    assert bucket.take(1) == 0.5
    now[0] += 0.5
    assert bucket.take(1) == 0
    now[0] += 100
    assert bucket.take(10) == 0, "a request larger than the bucket passes when it is full"
    assert bucket.take(1) == pytest.approx(3.5), "and is paid for"
