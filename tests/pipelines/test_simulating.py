"""A domain's own simulator, found in its folder; what `make` runs for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from assets.exceptions import SettingsError
from assets.settings import load_domain
from pipelines.simulating import simulator

ROOT = Path(__file__).parents[2]
EVERGREEN = Path(sys.executable).with_name("evergreen")
WORLD = """
from types import SimpleNamespace

def simulate(output, start, end, rate, seed, scenario, *, daily=False):
    output.mkdir()
    (output / "world.txt").write_text(f"{start} {end} {rate} {seed} {scenario} {daily}")
    return SimpleNamespace(files=(output / "world.txt",), records=rate, change=None)
"""


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a domain whose simulator is a file of its own."""
    folder = tmp_path / "domain"
    (folder / "configs").mkdir(parents=True)
    ours = (ROOT / "configs" / "domain.yaml").read_text()
    (folder / "configs" / "domain.yaml").write_text(ours.replace("complaints.simulation", "small.world"))
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(folder))
    return folder


def test_a_simulator_is_a_module_of_the_domains_folder(domain: Path, tmp_path: Path) -> None:
    (domain / "small").mkdir()
    (domain / "small" / "world.py").write_text(WORLD)
    days = ("--from", "2024-01-01", "--to", "2024-01-02")
    command = [EVERGREEN, "simulate", "--output", tmp_path / "out", *days, "--rate", "3", "--daily"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"3 complaints in 1 files: {tmp_path / 'out'}\n", "")
    assert (tmp_path / "out" / "world.txt").read_text() == "2024-01-01 2024-01-02 3 0 calm True"


def test_a_simulator_that_is_not_there_is_named_with_its_file(domain: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{domain}/configs/domain.yaml: simulator: there is no module small.worl"):
        simulator(load_domain())


def test_a_domain_without_a_simulator_says_so() -> None:
    without = load_domain().model_copy(update={"simulator": None})
    with pytest.raises(SettingsError, match=r"domain.yaml: simulator: the domain complaints has none"):
        simulator(without)


def test_make_runs_another_domain_in_a_home_of_its_own(tmp_path: Path) -> None:
    makefile = f"include {ROOT / 'Makefile'}\nshown:\n\t@echo $$EVERGREEN_DOMAIN $$EVERGREEN_HOME\n"
    (tmp_path / "Makefile").write_text(makefile)
    command = ["make", "--no-print-directory", "shown", "DOMAIN=some/tickets"]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{tmp_path}/some/tickets", f"{tmp_path}/some/tickets/.evergreen"]
