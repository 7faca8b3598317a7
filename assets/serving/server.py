"""The parts of a server, and their life: what starts, what is asked of it, and how it stops without losing anything."""

import logging
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from time import monotonic
from typing import Any

from assets.exceptions import EvergreenError, describe
from assets.home import Home
from assets.ingestion.served import land
from assets.registry.registry import Registry
from assets.registry.succession import Succession
from assets.serving.answering import Answering, now
from assets.serving.batches import Asked, Batches, Busy
from assets.serving.contract import Contract, Feedback
from assets.serving.features import Features
from assets.serving.keys import Keys
from assets.serving.metrics import Metrics
from assets.serving.spool import Spool
from assets.serving.standing import Follower
from assets.settings import IngestionSettings, ScoringSettings, ServingSettings, domain_folder

__all__ = ["Server", "keys_file"]

_log = logging.getLogger("evergreen.serving")
_KEYS_SECONDS = 5.0


def keys_file(home: Home, settings: ServingSettings) -> Path:
    """The file of API keys."""
    return settings.keys or home.root / "serving" / "keys"


class Server:
    """Answers requests until it is stopped."""

    def __init__(
        self, home: Home, reading: IngestionSettings, scoring: ScoringSettings, settings: ServingSettings
    ) -> None:
        """Raises SettingsError when there are no keys."""
        self.home, self.settings, self.metrics = home, settings, Metrics()
        self.contract = Contract(home.domain, reading, settings)
        self.follower = Follower(home, scoring, settings)
        self.features = Features(home, settings)
        self._keys, self._keys_read = Keys.read(keys_file(home, settings)), monotonic()
        self._spool = Spool(home, settings.segment_seconds, settings.segment_bytes, self._closed_segment)
        answering = Answering(home, scoring, settings, self.follower, self.features, self._spool, self.metrics)
        self._batches = Batches(
            answering.answer,
            self.features.warm,
            settings.batch_records,
            settings.wait_milliseconds / 1000,
            settings.queue_records,
        )
        self._lands, self._ends = Event(), False
        self._lander = Thread(target=self._land_each, name="lander", daemon=True)
        self.metrics.watch("queued_records", "Records that wait for the model.", lambda: self._batches.waiting)
        self.metrics.watch("ledger_entry", "The entry by which the champion answers; 0 without one.", self._entry)
        self.metrics.watch("ready", "1 while requests can be answered.", lambda: float(self.state()["problem"] is None))

    def start(self) -> None:
        """Start every thread; what a killed server has left behind goes to the lake."""
        import torch

        torch.get_num_threads()  # threads that start later keep this number, whatever a batch sets for its own
        self._spool.start()
        self._batches.start()
        self._lander.start()
        self.follower.start()
        self._lands.set()

    def stop(self) -> None:
        """Answer what was accepted, write it to the lake, and end."""
        self._batches.close()
        self._spool.close()
        self.follower.stop()
        self._ends = True
        self._lands.set()
        self._lander.join()
        self._land()

    def ask(self, asked: Asked) -> None:
        """Queue a request. Raises Busy."""
        self._batches.add(asked)

    def take(self, said: Feedback, request: str, key: str, done: Callable[[Any], None]) -> None:
        """Record feedback; `done` gets what it reaches: the live evidence and, with outcomes, the records."""
        outcomes = self._outcomes(said)
        reaches = ["evidence", "records"] if outcomes else ["evidence"]
        about = {"kind": "feedback", "at": now(), "request": request, "key": key}
        event = about | {"record_id": said.record_id, "label": said.label, "record": outcomes or None}
        self._spool.append([event], lambda fault: done(_unrecorded(fault) if fault else reaches))

    def state(self) -> dict[str, Any]:
        """Whether requests can be answered now, and by whom; `problem` says why not."""
        standings = self.follower.standings
        champion, problem = standings.champion, None if standings.champion else standings.problem
        features = self.features.problem()
        if problem is None and features and self.settings.features == "required":
            problem = features
        return {"problem": problem, "features": features or "online", **(champion.about() if champion else {})}

    def _entry(self) -> float:
        champion = self.follower.standings.champion
        return champion.entry if champion else 0

    def keys(self) -> Keys:
        """The keys, read again every few seconds: one that is removed from the file ends without a restart.

        Nobody is let in while the file cannot be read, or has no key.
        """
        if monotonic() - self._keys_read > _KEYS_SECONDS:
            self._keys_read = monotonic()
            try:
                self._keys = Keys.read(keys_file(self.home, self.settings))
            except EvergreenError as error:
                self._keys = Keys(())
                _log.warning("nobody is let in: %s", describe(error))
        return self._keys

    def _outcomes(self, said: Feedback) -> dict[str, str]:
        """The outcomes that make a version of a record with a label.

        Where the domain maps no values, the label is the value. It is known from now on, unless the feedback says when.
        """
        domain, outcomes = self.home.domain, dict(said.outcomes)
        if not (domain_folder() / "dbt" / "models" / "mapped_labels.sql").exists():
            outcomes.setdefault(domain.label.fields[0], said.label)
        if not outcomes.keys() & set(domain.label.fields):
            return outcomes
        if (known := domain.label.known.field) is not None:
            outcomes.setdefault(known, now()[:10] if domain.source.fields[known].type == "day" else now())
        return outcomes

    def _closed_segment(self) -> None:
        self._lands.set()

    def _land_each(self) -> None:
        while not self._ends:
            self._lands.wait()
            self._lands.clear()
            self._land()

    def _land(self) -> None:
        try:
            with self.home.in_use(f"evergreen-land-{token_hex(4)}"):
                self.metrics.landed.inc(len(land(self.home)))
                self._judge_canary()
        except Exception as error:  # the segments stay in the spool, and are tried again with the next
            # The message of a library may quote a text.
            said = describe(error) if isinstance(error, EvergreenError) else type(error).__name__
            _log.error("what was served could not go to the lake: %s", said)

    def _judge_canary(self) -> None:
        """Withdraw a candidate that is worse beyond chance, by a verdict; the follower then sees it gone."""
        candidate = self.follower.standings.candidate
        if candidate is None:
            return
        registry = Registry(self.home)
        verdicts = registry.verdicts(candidate.standing.version.training_id)
        if verdicts and (withdrawn := Succession(registry).withdraw_canary(verdicts[-1])):
            self.metrics.withdrawn.inc()
            _log.warning(
                "version %s is withdrawn: %s", candidate.standing.version.version, "; ".join(withdrawn.reasons)
            )


def _unrecorded(fault: OSError) -> Busy:
    return Busy(f"what is said cannot be recorded: {fault.strerror}")
