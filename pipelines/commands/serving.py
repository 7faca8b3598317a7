"""The command that answers requests: `serve`."""

from pathlib import Path
from typing import Annotated

import typer

from assets.exceptions import SettingsError
from assets.home import Home
from assets.logs import are_json
from assets.settings import load_serving_settings, load_settings
from pipelines.commands.options import Profile
from pipelines.output import say, show

__all__ = ["serve"]


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8400,
    host: Annotated[str, typer.Option(help="Where to listen: 0.0.0.0 behind a proxy that encrypts.")] = "127.0.0.1",
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Make an API key of this name, show it and end.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="The file of API keys, instead of the one that configs/serving.yaml names.")
    ] = None,
    profile: Profile = "quick",
) -> None:
    """Answer requests with the champion, batch by batch, and follow it as it changes, until SIGTERM or Ctrl-C.

    Texts that were asked about and their answers go to the lake; the next run reads them like any source.
    """
    from assets.serving.keys import add_key
    from assets.serving.server import keys_file
    from pipelines.answering import listen

    home, settings = Home.from_environment(), load_serving_settings()
    if keys is not None:
        settings = settings.model_copy(update={"keys": keys})
    if new_key is not None:
        show(add_key(keys_file(home, settings), new_key))
        return
    if settings.keys is None and not keys_file(home, settings).exists():
        if are_json():
            raise SettingsError("there is no API key, and a log is no place for one: `evergreen serve --new-key NAME`")
        say(f"API key, shown only now: {add_key(keys_file(home, settings), 'local')}")
    listen(home, load_settings(profile), settings, host, port, say)
