"""Feast's registry in memory: always what the engine and the domain define, never the content of a file."""

from pathlib import Path

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig

from assets.features.store import repository_registry

__all__ = ["RepositoryRegistryStore"]


class RepositoryRegistryStore(RegistryStore):
    """Feast's registry storage, in memory: written content lasts as long as the store that wrote it."""

    def __init__(self, config: RegistryConfig, repo_path: Path) -> None:  # noqa: ARG002 - Feast's interface
        self._content = repository_registry(config.path)  # not a path, but the project

    def get_registry_proto(self) -> Registry:
        content: Registry = Registry.FromString(self._content)
        return content

    def update_registry_proto(self, registry_proto: Registry) -> None:
        self._content = registry_proto.SerializeToString()

    def teardown(self) -> None:
        self._content = b""
