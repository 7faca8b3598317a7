"""Serves the reports, or a part of them."""

import os

from starlette.staticfiles import StaticFiles

from assets.pages import Pages

__all__ = ["PageFiles"]


class PageFiles(StaticFiles):
    """Files by their names, as the newest writer left them: no folder is listed, and no symbolic link followed out."""

    def __init__(self, pages: Pages) -> None:
        super().__init__(directory=pages.folder, check_dir=False)
        self._pages = pages

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        self._pages.fetch(path)
        return super().lookup_path(path)
