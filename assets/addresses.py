"""Where the user interfaces of a home are served, for links from one to another."""

import json

from assets.home import Home
from assets.writing import write_atomically

__all__ = ["HOST", "PICTURES", "PORTS", "address", "ports", "set_ports"]

HOST = "127.0.0.1"
PORTS = {"front": 3001, "dagster": 3000, "mlflow": 5000}
"""Where they are served, unless something else listens there."""

PICTURES = "/pictures"
"""The path of the pictures in Dagster's pages, on Dagster's own server: it is right whatever the port."""


def ports(home: Home) -> dict[str, int]:
    """The port of each user interface, by its name, as it was last served."""
    path = home.root / "ports.json"
    return PORTS | (json.loads(path.read_text()) if path.exists() else {})


def set_ports(home: Home, used: dict[str, int]) -> None:
    """Have links lead to these ports."""
    write_atomically(home.root / "ports.json", json.dumps(used))


def address(home: Home, name: str, path: str = "") -> str:
    """The address of a path of a user interface, which begins without a slash."""
    if name == "mlflow" and home.environment.mlflow:
        return f"{home.environment.mlflow}/{path}"
    return f"http://{HOST}:{ports(home)[name]}/{path}"
