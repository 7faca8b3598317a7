"""How Great Expectations writes Data Docs here: each page once, as it stays, and nothing that no page uses."""

from pathlib import PurePath
from typing import Any

from great_expectations.data_context.store import TupleFilesystemStoreBackend
from great_expectations.render.renderer.site_builder import SiteBuilder

from assets.validation.data_docs import stand_alone

__all__ = ["PageBackend", "PageBuilder"]


class PageBuilder(SiteBuilder):  # type: ignore[misc]
    """Leaves out 4 MB of styles, fonts and scripts, and an index that needs them."""

    def build(self, resource_identifiers: Any = None, build_index: bool = True) -> tuple[str | None, dict[str, Any]]:  # noqa: ARG002 - the interface
        for section in self.site_section_builders.values():
            section.build(resource_identifiers=resource_identifiers)
        return self.get_resource_url(only_if_exists=False), {}


class PageBackend(TupleFilesystemStoreBackend):  # type: ignore[misc]
    """Files of pages that load nothing from elsewhere."""

    def _set(self, key: tuple[str, ...], value: str, **kwargs: Any) -> str:
        suite = PurePath(self._convert_key_to_filepath(key)).parts[1].removesuffix(".html")
        path: str = super()._set(key, stand_alone(value, suite), **kwargs)
        return path
