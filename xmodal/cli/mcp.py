"""xmodal mcp"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.encoder import engine_option, load_encoder
from xmodal.cli.options import backbone_options, index_option, model_of_index_option
from xmodal.cli.output import info, print_strategy
from xmodal.errors import ConfigError, IndexMissing, require
from xmodal.index.contract import open_index


@click.command()
@model_of_index_option
@index_option
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    help="Folder of the files that a query may name by path [default: none, base64 alone].",
)
@backbone_options(None)
@engine_option()
def mcp(model: Path | None, uri: str, pictures: Path | None, **params: Any) -> None:
    """Serve searches of an index to a language model by MCP, on standard input and output.

    The program that uses the model starts this command; it needs no other configuration. The tools
    search by words, by a picture and by a document, and read documents and fields; none of them
    changes anything. Messages are printed on standard error.

    \b
    Example:
      xmodal mcp --index my.index --pictures photos/
      {"mcpServers": {"photos": {"command": "xmodal", "args": ["mcp", "--index", "/my.index"]}}}
    """
    require("xmodal mcp", "mcp")
    if pictures is not None and not pictures.is_dir():
        raise ConfigError(f"--pictures {pictures}: no such folder")
    from xmodal.encoders.index_model import find_model
    from xmodal.integrations.mcp_server import create_server
    from xmodal.retrieval.retriever import Retriever

    folder = model or find_model(uri)
    if folder is None:
        raise IndexMissing(f"no index at {uri}: make one with xmodal index DATA --index {uri}")
    encoder = load_encoder(folder, params, for_queries=True)
    index = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint)
    print_strategy(uri, index)
    info(f"{len(index):,} documents in {uri}, served on standard input and output")
    create_server(Retriever(encoder, index), pictures).run()
    index.close()
