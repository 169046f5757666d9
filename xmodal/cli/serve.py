"""xmodal serve"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from xmodal.cli.show import backbone_options, model_option, say, tell_way
from xmodal.errors import ConfigError, require
from xmodal.index import open_index

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "XMODAL_TOKEN"


@click.command()
@model_option
@click.option("--index", "uri", required=True, help="Folder of the index, or its address.")
@click.option("--host", default=LOOPBACK[0], show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Only pictures in this folder are shown [default: the current folder].",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help=f"File with a token that clients must send; else ${TOKEN}, else none is asked for.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Name to be spoken to by.")
@click.option("--max-body", default=16, show_default=True, help="Largest request, in megabytes.")
@click.option("--max-pixels", default=25, show_default=True, help="Largest picture, in millions.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds an answer may take.")
@click.option("--batch", default=32, show_default=True, help="Most texts encoded at once; 1: none.")
@backbone_options(None)
def serve(model: Path, uri: str, host: str, port: int, **given: Any) -> None:
    """Answer searches over HTTP, with a page to search by hand, until Ctrl-C.

    \b
    Example:
      xmodal serve --model my.model --index my.index
      curl -s localhost:8080/v1/search -H 'content-type: application/json'
          -d '{"text": "red shoes", "k": 5}'
    """
    require("xmodal serve", "service")
    for name in ("max_body", "max_pixels", "timeout", "batch"):
        if given[name] <= 0:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is {given[name]}, expected more than 0")
    if not given["pictures"].is_dir():
        raise ConfigError(f"--pictures {given['pictures']}: there is no such folder")
    token = _token(given["token_file"])

    from xmodal.loading import load_encoder
    from xmodal.service import Settings, create_app
    from xmodal.service.server import listen
    from xmodal.service.server import serve as answer

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    index = open_index(uri, bits=encoder.bits, encoder=encoder.fingerprint)
    tell_way(uri, index)
    local = host in LOOPBACK
    settings = Settings(
        pictures=given["pictures"].resolve(),
        hosts=tuple(given["allow_host"]) or ((*LOOPBACK, "[::1]") if local else ()),
        token=token,
        body_bytes=given["max_body"] * 1024 * 1024,
        pixels=given["max_pixels"] * 1_000_000,
        seconds=given["timeout"],
        together=given["batch"],
    )
    app = create_app(encoder, index, settings)
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"

    def ready() -> None:
        say(f"{len(index):,} documents in {uri}; pictures shown from {settings.pictures}")
        named, there = app.state.pictures
        if named and not there:
            say(f"none of {named} pictures looked for is there: name their folder by --pictures")
        if not local:
            warning = "" if token else ", and no token is asked for (--token-file)"
            say(f"other machines can reach this service{warning}; encryption is a proxy's work")
        elif host == LOOPBACK[0]:
            say("this machine alone can reach it (--host 0.0.0.0 opens it to others)")
        say(f"listening on {address}")

    answer(app, listening, settings, ready)
    say("stopped")


def _token(file: Path | None) -> str | None:
    """The token to ask for. Raises ConfigError if its file says none."""
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file} cannot be read: {error}") from None
    if not token.isascii() or not token.isprintable() or " " in token or len(token) < 16:
        raise ConfigError(f"--token-file {file}: expected 16 or more ASCII characters, no spaces")
    return token
