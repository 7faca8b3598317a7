"""SHA-256 of files, folders, bytes and values, in hex: what names versions."""

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["hash_bytes", "hash_file", "hash_json", "hash_tree"]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(content: bytes) -> str:
    """SHA-256 of some bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def hash_tree(folder: Path) -> str:
    """One SHA-256 over every file under a folder, by relative name and content."""
    return hash_json({p.relative_to(folder).as_posix(): hash_file(p) for p in folder.rglob("*") if p.is_file()})


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, for naming things that are a function of settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
