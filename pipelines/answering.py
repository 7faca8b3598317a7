"""Runs the server of `evergreen serve` in this process."""

import logging
import socket
from collections.abc import Callable

from assets.exceptions import SettingsError
from assets.home import Home
from assets.logs import stdout_logged
from assets.settings import ServingSettings, Settings

__all__ = ["listen"]


def listen(
    home: Home, settings: Settings, serving: ServingSettings, host: str, port: int, say: Callable[[str], None]
) -> None:
    """Answer requests until SIGTERM or SIGINT, then what was accepted. Raises SettingsError for an address in use."""
    import uvicorn

    from assets.serving.app import application
    from assets.serving.server import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    app = application(Server(home, settings.ingestion, settings.scoring, serving))
    try:
        opened = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise SettingsError(f"--host {host} --port {port}: {error.strerror}; choose another") from None
    say(f"Answering on http://{host}:{opened.getsockname()[1]}")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=serving.drain_seconds,
    )
    with stdout_logged():
        uvicorn.Server(config).run([opened])
