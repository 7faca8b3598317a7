"""The dependency rules of the house: pipelines -> definitions -> plain modules -> settings and lake, never back."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from assets.settings import Domain

ROOT = Path(__file__).parent.parent
STAGES = [
    *("ingestion", "warehouse", "validation", "features", "training"),
    *("evaluation", "registry", "scoring", "serving", "monitoring", "retention", "replay", "onboarding", "front"),
    "watching",
]
FOUNDATION = {
    *("assets.as_of", "assets.settings", "assets.home", "assets.lake", "assets.exceptions", "assets.addresses"),
    *("assets.cluster", "assets.hashing", "assets.locks", "assets.writing"),
    *("assets.database", "assets.display", "assets.duck", "assets.lean", "assets.logs", "assets.s3", "assets.objects"),
    *("assets.pages", "assets.shared"),
}
DAGSTER_FILES = {"definitions.py", "resources.py"}
PLAIN = sorted(
    p for p in (ROOT / "assets").rglob("*.py") if p.name not in DAGSTER_FILES and p != ROOT / "assets" / "__init__.py"
)

DOMAINS = [ROOT, *sorted((ROOT / "examples").glob("*/")), ROOT / "tests" / "rare" / "domain"]
ORDINARY = {
    *("access", "area", "body", "devices", "fine", "id", "kind", "language", "message", "messages"),
    *("operations", "other", "plan", "product", "reports", "room", "state", "tags", "verdict"),
}
"""Names of domains that also are words of the engine's own."""
FAMILIAR = r"complaint|narrative|consumer|bureau|cfpb|mortgage|compan(?:y|ies)|ticket|abus"
"""Parts of words that only a domain has."""
WRITTEN = (".py", ".sql", ".yml", ".yaml", ".md", ".html", ".css", ".csv")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(imported: dict[str, set[str]]) -> list[str] | None:
    """Modules that import one another, the first again at the end; None without such."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def stage_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "assets" and len(parts) > 1 and parts[1] in STAGES else None


def id_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PLAIN, ids=id_of)
def test_plain_modules_do_not_know_dagster_or_the_pipelines(path: Path) -> None:
    # dagster_pipes is a package of its own, which does not import dagster.
    found = [name for name in imports(path) if name.split(".")[0] in {"dagster", "dagster_dbt", "pipelines"}]
    assert not found


@pytest.mark.parametrize("path", PLAIN, ids=id_of)
def test_plain_modules_import_only_their_own_and_earlier_stages(path: Path) -> None:
    own = path.relative_to(ROOT / "assets").parts[0]
    for name in imports(path):
        if not name.startswith("assets."):
            continue
        stage = stage_of(name)
        if stage is None:
            assert any(name.startswith(base) for base in [*FOUNDATION, f"assets.{own}"]), name
        else:
            assert own in STAGES, name
            assert STAGES.index(stage) <= STAGES.index(own), name


@pytest.mark.parametrize("path", sorted((ROOT / "assets").glob("*/definitions.py")), ids=lambda path: path.parent.name)
def test_no_definitions_import_another_stages_definitions(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith("pipelines"), name
        assert ".definitions" not in name, name


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Imports within functions and for types alone count, too."""
    paths = {module_of(path): path for room in ("assets", "pipelines") for path in (ROOT / room).rglob("*.py")}
    named = {module: set(imports(path)) for module, path in paths.items()}
    owners = {name: name if name in paths else name.rpartition(".")[0] for names in named.values() for name in names}
    assert circle({module: {owners[name] for name in names} & set(paths) for module, names in named.items()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_engine_does_not_know_what_its_records_are() -> None:
    found = [path for folder in ("assets", "pipelines") for path in (ROOT / folder).rglob("*")]
    files = [path for path in found if path.suffix in WRITTEN]
    assert len({path.suffix for path in files}) > 3
    words = domain_words()
    assert not {id_of(path): words.findall(path.read_text()) for path in files if words.search(path.read_text())}


@pytest.mark.parametrize("text", ["a Mortgage", "def of_ticket(row):", "-- companies", "student_loan: 1", "zip_code"])
def test_a_word_of_a_domain_would_be_found(text: str) -> None:
    assert domain_words().search(text)


def domain_words() -> re.Pattern[str]:
    """What the repository's domains call their records, labels and fields, here and in their sources."""
    found = set()
    for folder in DOMAINS:
        domain = Domain.model_validate(yaml.safe_load((folder / "configs" / "domain.yaml").read_text()))
        heads = [head for name in domain.source.fields for head in domain.source.names(name)]
        found |= {domain.name, domain.record.one, domain.record.many, *domain.labels, *domain.source.fields, *heads}
    listed = "|".join(map(re.escape, sorted({word.lower() for word in found} - ORDINARY)))
    return re.compile(rf"{FAMILIAR}|(?<![a-z_])(?:{listed})(?![a-z_])", re.IGNORECASE)


def test_the_engine_imports_nothing_of_the_domain() -> None:
    for path in [*(ROOT / "assets").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        assert not [name for name in imports(path) if name.split(".")[0] == "complaints"], path


def test_the_feature_repository_imports_nothing_of_ours() -> None:
    for path in (ROOT / "feature_repo").rglob("*.py"):
        assert not [n for n in imports(path) if n.split(".")[0] in {"assets", "complaints", "pipelines", "dagster"}], (
            path
        )


def test_dbt_is_not_shadowed() -> None:
    assert not [path for folder in ("dbt", "assets/warehouse/dbt") for path in (ROOT / folder).rglob("__init__.py")]


def test_the_loader_stays_under_sixty_lines() -> None:
    assert len((ROOT / "pipelines" / "definitions.py").read_text().splitlines()) < 60


def test_the_training_program_knows_tasks_by_their_registry_alone() -> None:
    training = ROOT / "assets" / "training"
    for path in [*(training / "program").glob("*.py"), *(training / "launchers").glob("*.py"), training / "bundle.py"]:
        known = {name for name in imports(path) if name.startswith("assets.training.tasks")}
        assert known <= {"assets.training.tasks.TASKS"}, path


def test_the_training_worker_imports_no_dagster() -> None:
    code = "import sys, assets.training.program.worker; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
