"""xmodal serve"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.encoder import engine_option, load_encoder
from xmodal.cli.options import backbone_options, model_option
from xmodal.cli.output import info, print_strategy
from xmodal.errors import ConfigError, require
from xmodal.index.contract import open_index

if TYPE_CHECKING:
    from xmodal.service.tls import TlsFiles
    from xmodal.service.tokens import Token
    from xmodal.web.allowed_hosts import AllowedHosts

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "XMODAL_TOKEN"


@click.command()
@model_option
@click.option("--index", "uri", required=True, help="Index folder or address.")
@click.option("--host", default=LOOPBACK[0], show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port; 0 selects a free one.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Folder of the pictures to serve; others are not served [default: current folder].",
)
@click.option(
    "--token-file",
    "token_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File with the token that clients must send, or with lines NAME ROLE[,ROLE] SECRET; roles "
    f"are search and write (encoding) [default: ${TOKEN}, else no token].",
)
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), help="Certificate and its chain (PEM), for TLS."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="Key of the certificate (PEM).")
@click.option(
    "--proxy-headers",
    is_flag=True,
    help="Trust X-Forwarded-For, if only a proxy can reach the service.",
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Accept requests with this Host header."
)
@click.option(
    "--allow-pictures-from",
    "picture_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Download pictures that requests name by an address of this host: a name, *.NAME, an IP "
    "address or a network [default: none].",
)
@click.option("--max-body", default=10, show_default=True, help="Maximum request size in MB.")
@click.option(
    "--max-pixels", default=25, show_default=True, help="Maximum picture size in megapixels."
)
@click.option(
    "--timeout", default=30.0, show_default=True, help="Seconds until a request times out."
)
@click.option(
    "--max-requests-per-client",
    default=256,
    show_default=True,
    help="Requests of one token or address at the same time.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    help="Log one line per request, without query texts [default: no lines].",
)
@click.option("--otel", is_flag=True, help="Send OpenTelemetry spans; see the OTEL_* variables.")
@click.option(
    "--batch", default=32, show_default=True, help="Maximum texts in one batch; 1: no batching."
)
@backbone_options(None)
@engine_option()
def serve(model: Path, uri: str, host: str, port: int, **params: Any) -> None:
    """Run the HTTP service and its search page until Ctrl-C.

    \b
    Example:
      xmodal serve --model my.model --index my.index
      curl -s localhost:8080/v1/search -H 'content-type: application/json'
          -d '{"text": "red shoes", "k": 5}'
    """
    require("xmodal serve", "service")
    if params["otel"]:
        require("xmodal serve --otel", "otel")
    for name in ("max_body", "max_pixels", "timeout", "max_requests_per_client", "batch"):
        if params[name] <= 0:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is {params[name]}, expected more than 0")
    if not params["pictures"].is_dir():
        raise ConfigError(f"--pictures {params['pictures']}: no such folder")
    tokens = _tokens(params["token_files"])
    picture_hosts = _picture_hosts(params["picture_hosts"])
    tls = _tls(params["tls_cert"], params["tls_key"])

    from xmodal.service import Settings, create_app, tracing
    from xmodal.service.request_log import request_log
    from xmodal.service.server import listen
    from xmodal.service.server import serve as run_server

    encoder = load_encoder(model, params, for_queries=True)
    index = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint)
    print_strategy(uri, index)
    local = host in LOOPBACK
    settings = Settings(
        pictures=params["pictures"].resolve(),
        hosts=tuple(params["allow_host"]) or ((*LOOPBACK, "[::1]") if local else ()),
        picture_hosts=picture_hosts,
        tokens=tokens,
        token_files=params["token_files"],
        proxy_headers=params["proxy_headers"],
        max_body_bytes=params["max_body"] * 1024 * 1024,
        max_pixels=params["max_pixels"] * 1_000_000,
        request_timeout=params["timeout"],
        max_batch_size=params["batch"],
        max_requests_per_client=params["max_requests_per_client"],
    )
    disable_tracing = tracing.enable() if params["otel"] else None
    app = create_app(encoder, index, settings)
    listening = listen(host, port)
    url_host = f"[{host}]" if ":" in host else host
    address = f"{'https' if tls else 'http'}://{url_host}:{listening.getsockname()[1]}"

    def on_ready() -> None:
        info(f"{len(index):,} documents in {uri}; pictures from {settings.pictures}")
        named, found = app.state.picture_sample
        if named and not found:
            info(f"none of {named} pictures found: set their folder with --pictures")
        if not local:
            tokens_missing = not tokens and not params["token_files"]
            warning = ", without a token (--token-file)" if tokens_missing else ""
            advice = "" if tls else "; for TLS: --tls-cert, or a proxy"
            info(f"reachable from other machines{warning}{advice}")
        elif host == LOOPBACK[0]:
            info("reachable from this machine only (--host 0.0.0.0 for others)")
        info(f"listening on {address}")

    gc.collect()
    gc.freeze()  # else full collections examine all modules and the model, while requests wait
    with request_log(params["log_format"]):
        run_server(app, listening, settings, app.state.metrics, on_ready, tls=tls)
    if disable_tracing is not None:
        disable_tracing()
    info("stopped")


def _picture_hosts(rules: Sequence[str]) -> AllowedHosts | None:
    """Return the hosts from which pictures are downloaded, or None. Raises ConfigError."""
    from xmodal.web.allowed_hosts import AllowedHosts

    option = "--allow-pictures-from"
    return AllowedHosts.parse(rules, listed_only=True, option=option) if rules else None


def _tokens(files: Sequence[Path]) -> tuple[Token, ...]:
    """Return the token of the environment if there is no file; check files. Raises ConfigError."""
    from xmodal.service.tokens import Token, check_secret, read_token_files

    if files:
        read_token_files(files)
        return ()
    secret = os.environ.get(TOKEN, "")
    if not secret:
        return ()
    check_secret(secret, f"${TOKEN}")
    return (Token("default", secret),)


def _tls(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """Return the files for TLS, or None. Raises ConfigError."""
    from xmodal.service.tls import TlsFiles

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = ("cert", "key") if key is None else ("key", "cert")
        raise ConfigError(f"--tls-{given} without --tls-{missing}: expected both")
    return TlsFiles(certificate, key)
