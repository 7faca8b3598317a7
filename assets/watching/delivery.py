"""Posts alerts to a receiver: in order, at least once each, and no more than once when all is well.

<home>/alerts.json says up to which entry of the ledger all is sent, and how often the next has failed; where machines
share the home it is an object, for the sender may move to another of them. It is written after the receiver's answer: a
sender that is killed in between sends again, with the same Idempotency-Key.
"""

import json
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from typing import Self
from urllib.parse import SplitResult, urlsplit

from assets.exceptions import EvergreenError, SettingsError
from assets.home import Home
from assets.locks import claimed
from assets.registry.shared_ledger import ledger_of
from assets.settings import AlertSettings
from assets.watching.alerts import Alert, alerts
from assets.writing import write_atomically

__all__ = ["Sent", "address_of", "send_due"]

_STATE = "alerts.json"
_URL = "EVERGREEN_ALERTS_URL"
_LOCAL = ("127.0.0.1", "::1", "localhost")
_FIRST_WAIT = timedelta(minutes=1)
_AT_ONCE = 5
"""Alerts in one call, which has a minute: the rest goes with the next."""

_log = logging.getLogger("evergreen")


class _Undelivered(Exception):  # noqa: N818 - reads as what it says
    """Why the receiver has not taken an alert; without its address, which is a secret."""


@dataclass(frozen=True)
class Sent:
    """How far a home's alerts have come."""

    entry: int
    """All up to this one of the ledger's are sent, or given up."""
    failed: int = 0
    """Failed attempts at the next."""
    again: str = ""
    """When the next attempt is due, in UTC."""
    given_up: int = 0
    """Alerts that no attempt has delivered."""

    @classmethod
    def of(cls, home: Home) -> "Self | None":
        """As the last sender left it; None before the first. Raises EvergreenError for a damaged file."""
        path = home.root / _STATE
        try:
            if home.objects:
                stored = home.shared.read(_STATE)
                return cls(**json.loads(stored.content)) if stored else None
            return cls(**json.loads(path.read_text())) if path.exists() else None
        except (ValueError, TypeError) as error:
            where = home.shared.address(_STATE) if home.objects else path
            remedy = "delete it: alerts then begin with the next entry of the ledger"
            raise EvergreenError(f"{where} is damaged ({error}); {remedy}") from None

    def keep(self, home: Home) -> Self:
        text = json.dumps(asdict(self))
        if home.objects:
            home.shared.write(_STATE, text.encode())
        else:
            write_atomically(home.root / _STATE, text)
        return self

    def waits(self, now: datetime) -> bool:
        """Whether the next attempt is still to come; a clock that was set back does not put it off."""
        return self.failed > 0 and now < datetime.fromisoformat(self.again) <= now + _wait(self.failed)


def send_due(home: Home, settings: AlertSettings, now: datetime) -> str:
    """Send what is due, and say what came of it. One process at a time sends: the daemon, of which a home has one.

    The first call sends nothing: what the ledger has had before is history. Raises SettingsError for an address that
    cannot be used, EvergreenError for a damaged state.
    """
    url = address_of(settings, os.environ)
    if url is None:
        return f"no address: set url_file in configs/alerts.yaml, or {_URL}"
    with claimed(home.root / ".alerts.lock", wait=False) as mine:
        return _send(home, url, settings, now) if mine else "another process is sending"


def address_of(settings: AlertSettings, environment: Mapping[str, str]) -> SplitResult | None:
    """The receiver's address; None where there is none. Raises SettingsError, which does not tell it."""
    where = "url_file" if settings.url_file else _URL
    try:
        text = settings.url_file.read_text().strip() if settings.url_file else environment.get(_URL, "")
    except OSError as error:
        raise SettingsError(f"configs/alerts.yaml: url_file: {settings.url_file}: {error.strerror}") from None
    return _checked(text, where) if text else None


def _checked(text: str, where: str) -> SplitResult:
    try:
        url = urlsplit(text)
        usable = bool(url.hostname) and url.port != 0 and text.isascii() and text.isprintable() and " " not in text
    except ValueError:
        usable = False
    if not usable or url.username is not None:
        raise SettingsError(f"alerts: {where}: not an address like https://example.org/path")
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOCAL):
        raise SettingsError(f"alerts: {where}: must begin with https://; http:// is for a receiver on this machine")
    return url


def _send(home: Home, url: SplitResult, settings: AlertSettings, now: datetime) -> str:
    entries, sent = ledger_of(home).entries(), Sent.of(home)
    newest = entries[-1].seq if entries else 0
    if sent is None or sent.entry > newest:  # or the ledger is a restored, shorter one
        sent = Sent(newest).keep(home)
        return f"alerts begin after entry {sent.entry} of the ledger"
    if sent.waits(now):
        return f"attempt {sent.failed} has failed; the next is due at {sent.again}"
    due = [alert for alert in alerts(entries, home.domain, settings.kinds) if alert.entry > sent.entry]
    for alert in due[:_AT_ONCE]:
        try:
            _post(url, alert, settings.timeout_seconds)
        except _Undelivered as why:
            return _failed(home, sent, alert, settings, now, str(why))
        sent = replace(sent, entry=alert.entry, failed=0, again="").keep(home)
    return f"{min(len(due), _AT_ONCE)} of {len(due)} alerts sent" if due else "nothing to send"


def _failed(home: Home, sent: Sent, alert: Alert, settings: AlertSettings, now: datetime, why: str) -> str:
    failed = sent.failed + 1
    if failed >= settings.attempts:
        _log.warning("the alert of entry %d is given up after %d attempts: %s", alert.entry, failed, why)
        replace(sent, entry=alert.entry, failed=0, again="", given_up=sent.given_up + 1).keep(home)
        return f"entry {alert.entry} is given up after {failed} attempts: {why}"
    again = (now + _wait(failed)).astimezone(UTC).isoformat(timespec="seconds")
    replace(sent, failed=failed, again=again).keep(home)
    return f"attempt {failed} at entry {alert.entry} failed: {why}; the next is due at {again}"


def _wait(failed: int) -> timedelta:
    return _FIRST_WAIT * float(2 ** (failed - 1))


def _post(url: SplitResult, alert: Alert, seconds: float) -> None:
    """Raises _Undelivered unless the receiver has answered with 2xx in time. No redirect is followed.

    In a thread: a name that does not resolve and an answer that comes byte by byte know no timeout.
    """
    answers: list[int | str] = []
    asking = Thread(target=lambda: answers.append(_ask(url, alert, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    answer = answers[0] if answers else _silence(seconds)
    if isinstance(answer, str):
        raise _Undelivered(answer)
    if not 200 <= answer < 300:
        raise _Undelivered(f"the receiver answered {answer}")


def _ask(url: SplitResult, alert: Alert, seconds: float) -> int | str:
    """The status of the answer, or why there is none."""
    assert url.hostname is not None
    connection = (
        HTTPSConnection(url.hostname, url.port, timeout=seconds, context=ssl.create_default_context())
        if url.scheme == "https"
        else HTTPConnection(url.hostname, url.port, timeout=seconds)
    )
    path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": alert.key, "User-Agent": "evergreen"}
    try:
        connection.request("POST", path, alert.body(), headers)
        return connection.getresponse().status
    except TimeoutError:
        return _silence(seconds)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message}"
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def _silence(seconds: float) -> str:
    return f"no answer within {seconds:g} s"
