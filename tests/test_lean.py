"""What is imported of large packages, and what is not."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from assets.lean import lean

ROOT = Path(__file__).parent.parent


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported, and says when it runs by its line on standard output."""
    (tmp_path / "some_large_module.py").write_text("print('runs')\nVALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_large_module"
    sys.modules.pop("some_large_module", None)


def test_what_is_absent_is_missing_inside_only(module: str) -> None:
    with lean(absent=[module]), pytest.raises(ModuleNotFoundError):
        import_module(module)
    assert import_module(module).VALUE == 3


def test_what_is_imported_already_stays(module: str) -> None:
    imported = import_module(module)
    with lean(absent=[module], late=[module]):
        assert import_module(module) is imported
    assert import_module(module) is imported


def test_what_is_late_runs_when_it_is_used(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lean(late=[module, "nothing_of_that_name"]):
        imported = import_module(module)
        assert capsys.readouterr().out == ""
        with pytest.raises(ModuleNotFoundError):
            import_module("nothing_of_that_name")
    assert imported.VALUE == 3
    assert capsys.readouterr().out == "runs\n"
    assert import_module(module) is imported


def test_nothing_is_left_of_it_when_an_import_fails() -> None:
    finders, modules, enabled = list(sys.meta_path), set(sys.modules), gc.isenabled()
    with pytest.raises(ZeroDivisionError), lean(absent=["nothing_of_that_name"], late=["nor_of_that"]):
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert (list(sys.meta_path), set(sys.modules), gc.isenabled()) == (finders, modules, enabled)


LARGE = ("torch", "sqlalchemy", "altair", "scipy.stats", "boto3", "google.auth", "feast.feature_server", "uvicorn")

AUDIT = "from pathlib import Path; from assets.validation.expectations import _context; _context(Path('nowhere'))"
COMMAND = "import pipelines.cli; print(*{'rich', 'dagster', 'pandas', 'pyarrow', 'mlflow'} & {*sys.modules})"
FEATURES = "from assets.features.store import repository_registry; repository_registry()"


@pytest.mark.parametrize(
    ("code", "needed"),
    [(AUDIT, []), (FEATURES, ["sqlalchemy"]), (COMMAND, [])],
    ids=["Great Expectations", "Feast", "the command"],
)
def test_a_start_runs_no_large_module_that_it_does_not_need(code: str, needed: list[str]) -> None:
    told = f"print(*(n for n in {LARGE} if type(sys.modules.get(n)).__name__ == 'module'))"
    command = [sys.executable, "-c", f"import sys; {code}; {told}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == needed
