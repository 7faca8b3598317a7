"""Who may answer, and by which entry of the ledger: the champion, and a challenger as canary or shadow.

The ledger is looked at by its last entry, which is cheap. When it has moved, the model that now may answer is loaded
beside the one that answers, verified file by file, checked on its golden rows, and only then takes its place.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from threading import Event, Thread
from time import monotonic

from assets.exceptions import BundleError, EvergreenError, RegistryError, describe
from assets.home import Home
from assets.registry.ledger import Entry
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.rules import may_replace
from assets.scoring.golden import answer_golden_rows, require_agreement
from assets.settings import ScoringSettings, ServingSettings
from assets.training.bundle import load_bundle
from assets.training.task import Predictor

__all__ = ["Candidate", "Follower", "Standing", "Standings", "load_standing"]

_log = logging.getLogger("evergreen.serving")


@dataclass(frozen=True)
class Standing:
    """A version that may answer, its model, and the ledger's entry by which it may."""

    version: RegisteredVersion
    entry: int
    model: Predictor

    def about(self) -> dict[str, str | int]:
        """As an answer names it."""
        return {
            "version": self.version.version,
            "training_id": self.version.training_id,
            "ledger_entry": self.entry,
        }


@dataclass(frozen=True)
class Candidate:
    """A judged version beside the champion, and whether its verdict allows that its answers are returned."""

    standing: Standing
    returned: bool


@dataclass(frozen=True)
class Standings:
    """Who may answer at a moment; no champion means that nobody may, and `problem` says why."""

    champion: Standing | None = None
    candidate: Candidate | None = None
    problem: str | None = "the champion is being loaded"


Load = Callable[[Home, RegisteredVersion, Entry, ScoringSettings], Standing]


def load_standing(home: Home, version: RegisteredVersion, entry: Entry, settings: ScoringSettings) -> Standing:
    """Load a version that an entry of the ledger is about.

    Raises RegistryError when it was never evaluated or does not answer as it was, BundleError when it is not intact.
    """
    registry = Registry(home)
    registry.require_servable(version)
    bundle = load_bundle(registry.fetch(version.version))
    if bundle.id != version.training_id:
        raise BundleError(f"{bundle.id} is not the model of version {version.version}, {version.training_id}")
    require_agreement(answer_golden_rows(home.lake, version, bundle, settings), version)
    return Standing(version, entry.seq, bundle)


class Follower:
    """Keeps `standings` those of the ledger, in a thread of its own."""

    def __init__(
        self, home: Home, scoring: ScoringSettings, settings: ServingSettings, load: Load = load_standing
    ) -> None:
        self._home, self._scoring, self._settings, self._load = home, scoring, settings, load
        self._registry = Registry(home)
        self._head: tuple[int, str] | None = None
        self._behind: float | None = None
        self._ends = Event()
        self._thread = Thread(target=self._run, name="follower", daemon=True)
        self.standings = Standings()
        """Replaced as a whole: a batch reads it once, and answers by it."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    def look(self) -> None:
        """Follow the ledger if it has moved, or if it could not be followed the last time."""
        try:
            head = self._registry.ledger.head()
            if head == self._head:
                return
            self._behind = self._behind or monotonic()
            with self._home.in_use(f"evergreen-serve-{token_hex(4)}"):  # what is being read is not removed
                self._follow()
            self._head, self._behind = head, None
        except EvergreenError as error:
            self._fail(describe(error))
        except Exception as error:  # whatever a library raises: nobody answers for longer than is allowed
            _log.exception("the ledger could not be followed")
            self._fail(describe(error))

    def _run(self) -> None:
        while not self._ends.is_set():
            self.look()
            self._ends.wait(self._settings.follow_seconds)

    def _fail(self, problem: str) -> None:
        """The last champion answers on for a bounded time, unless the ledger does not say any more who it is."""
        champion = self.standings.champion
        late = self._behind is not None and monotonic() - self._behind > self._settings.load_seconds
        if problem != self.standings.problem:
            _log.warning("following the ledger: %s", problem)
        keeps = champion is not None and not late and self._is_as_written()
        self.standings = Standings(champion if keeps else None, None, problem)

    def _is_as_written(self) -> bool:
        try:
            return self._registry.ledger.problem() is None
        except EvergreenError:
            return False

    def _follow(self) -> None:
        self._registry.require_ledger()
        move = self._registry.last_move()
        if move is None:
            raise RegistryError("there is no champion yet; `evergreen run` trains and promotes one")
        champion = self._standing(move, self.standings.champion)
        if champion is not self.standings.champion:
            _log.info("version %s answers, by entry %d of the ledger", champion.version.version, champion.entry)
        # The champion takes its place before a candidate is loaded.
        before, self.standings = self.standings, Standings(champion, None, None)
        self.standings = Standings(champion, self._candidate(champion, before), None)

    def _standing(self, entry: Entry, loaded: Standing | None) -> Standing:
        version = self._registry.version_of(entry)
        if loaded and (loaded.version.training_id, loaded.version.manifest) == (version.training_id, version.manifest):
            return loaded if loaded.entry == entry.seq else replace(loaded, entry=entry.seq)
        return self._load(self._home, version, entry, self._scoring)

    def _candidate(self, champion: Standing, before: Standings) -> Candidate | None:
        verdict = self._verdict(champion)
        if verdict is None:
            return None
        returned = verdict.body["decision"] == "awaiting-approval" and self._settings.canary_share > 0
        if not returned and not self._settings.shadow_share:
            return None
        try:
            loaded = before.candidate.standing if before.candidate else None
            return Candidate(self._standing(verdict, loaded), returned)
        except EvergreenError as error:
            _log.warning("the challenger answers nothing: %s", describe(error))
            return None

    def _verdict(self, champion: Standing) -> Entry | None:
        """The last verdict on the newest version that was judged against this champion and may yet replace it."""
        if not self._settings.canary_share and not self._settings.shadow_share:
            return None
        found = may_replace(self._registry.ledger.entries(), champion.version.training_id)
        return max(found, key=lambda entry: entry.seq, default=None)
