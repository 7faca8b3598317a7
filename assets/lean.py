"""Imports large packages without the parts that are not used here."""

import gc
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["hide", "lean", "look_for_garbage_rarely"]


def look_for_garbage_rarely() -> None:
    """Save the seconds that garbage collection takes in a process with many modules."""
    gc.set_threshold(100_000, 50, 1000)


def hide(packages: Iterable[str]) -> list[str]:
    """Make imports of packages fail as if they were not installed, except those already imported.

    Returns the hidden ones.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type] # None makes an import fail
    return hidden


@contextmanager
def lean(*, absent: Iterable[str] = (), late: Iterable[str] = ()) -> Iterator[None]:
    """Import inside as if the packages `absent` were not installed, and run the modules `late` at their first use.

    Modules already imported stay; outside everything can be imported. Garbage collection is off inside, since imports
    create no garbage, and never looks at the imported objects afterwards.
    """
    hidden, finder, enabled = hide(absent), _LateFinder(late), gc.isenabled()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if enabled:
            gc.enable()


class _LateFinder(MetaPathFinder):
    """Finds each of some modules once, with a loader that runs it on first access."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        self._names.remove(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
