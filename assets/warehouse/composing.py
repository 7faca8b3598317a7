"""Composes a domain's dbt project from the general part, in `dbt/` here, and the domain's own `dbt/`.

<home>/warehouse/project/dbt_project.yml        with what the SQL needs from the domain, as variables
<home>/warehouse/project/models/entities/       two models for each of its entities
<home>/warehouse/project/<part>/engine, domain  links to both folders' models, seeds, macros and tests

Unchanged files are not written again: dbt parses a file again when it changes.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from assets.as_of import FORMATS
from assets.hashing import hash_file, hash_json
from assets.home import Home
from assets.settings import Domain, domain_folder
from assets.writing import write_atomically

__all__ = ["END_OF_TIME", "ENGINE", "compose", "fingerprint", "project_folder"]

ENGINE = Path(__file__).parent / "dbt"

END_OF_TIME = "2200-01-01"
"""Not long before the last timestamp that nanoseconds can hold."""

_PARTS = ("macros", "models", "seeds", "tests")


def project_folder(home: Home) -> Path:
    """The folder in which the project is composed."""
    return home.warehouse / "project"


def compose(home: Home) -> None:
    """Write the dbt project of the home's domain into the home."""
    project = project_folder(home)
    texts, links = _texts(home.domain), _links()
    for name, text in texts.items():
        if not (project / name).is_file() or (project / name).read_text() != text:
            write_atomically(project / name, text)
    for name, target in links.items():
        _link(project / name, target)
    for path in [*project.glob("models/entities/*"), *project.glob("*/domain"), *project.glob("models/mapping")]:
        if path.relative_to(project).as_posix() not in texts.keys() | links.keys():
            path.unlink()


def fingerprint(domain: Domain) -> str:
    """A hash of everything that decides a build's output for given records: project files, domain, dbt versions."""
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}": hash_file(path)
        for name, folder in _links().items()
        for path in folder.rglob("*")
        if path.suffix in (".sql", ".yml", ".yaml", ".csv")
    }
    versions = [version("dbt-core"), version("dbt-duckdb")]
    return hash_json({"files": files, "texts": _texts(domain), "dbt": versions})[:16]


def _texts(domain: Domain) -> dict[str, str]:
    """The text of the project's written files, by name."""
    templates = {path: path.read_text() for path in sorted((ENGINE / "entities").iterdir())}
    models = {
        f"models/entities/{entity}_{path.name}": text.replace("ENTITY", entity)
        for entity in domain.entities
        for path, text in templates.items()
    }
    return {"dbt_project.yml": yaml.safe_dump(_project(domain), sort_keys=False, allow_unicode=True), **models}


def _project(domain: Domain) -> dict[str, Any]:
    paths = {f"{part[:-1]}-paths": [f"{part}/{owner}" for owner in ("engine", "domain")] for part in _PARTS}
    paths["model-paths"] += ["models/entities", "models/mapping"]
    return {
        "name": "evergreen",
        "version": "1.0",
        "config-version": 2,
        "profile": "evergreen",
        "require-dbt-version": [">=1.11.0", "<1.12.0"],
        "flags": {"send_anonymous_usage_stats": False, "version_check": False, "use_colors": False},
        **paths,
        "vars": _variables(domain),
        "models": {"evergreen": {"+materialized": "table", "mapped_labels": {"+materialized": "ephemeral"}}},
        # Seeds as values: the fast way writes the checkout's path into SQL unescaped, and a quote in it breaks it.
        "seeds": {"evergreen": {"+fast": False}},
    }


def _variables(domain: Domain) -> dict[str, Any]:
    """What the engine's SQL needs from a domain."""
    known = domain.label.known
    return {
        "as_of_formats": list(FORMATS.values()),
        "fields": list(domain.source.fields),
        "record_id": domain.id,
        "received": _time(domain, domain.received.field),
        "first_possible_day": domain.received.not_before.isoformat(),
        "end_of_time": END_OF_TIME,
        "text": list(domain.text.fields),
        "entities": list(domain.entities),
        "request": list(domain.request),
        "label_fields": list(domain.label.fields),
        "label_known": _time(domain, known.field) | {"after_days": known.after_days},
        "labels": domain.labels,
    }


def _time(domain: Domain, name: str | None) -> dict[str, Any]:
    if name is None:
        return {"field": None}
    field = domain.source.fields[name]
    return {"field": name, "type": field.type, "formats": list(field.formats)}


def _links() -> dict[str, Path]:
    """The folders that make up the project, by their names in it."""
    owners = {"engine": ENGINE, "domain": domain_folder() / "dbt"}
    links = {f"{part}/{owner}": folder / part for part in _PARTS for owner, folder in owners.items()}
    if not (owners["domain"] / "models" / "mapped_labels.sql").exists():
        links["models/mapping"] = ENGINE / "mapping"
    return {name: folder for name, folder in links.items() if folder.is_dir()}


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    temporary.symlink_to(target)
    temporary.replace(path)
