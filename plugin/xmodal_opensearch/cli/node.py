"""xmodal-opensearch node"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

import click

from xmodal.cli.output import info, print_line
from xmodal.errors import ServerFailure, require
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder


@click.command()
@click.option(
    "--folder",
    default="opensearch-node",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where it keeps its data; the next start finds them there.",
)
@click.option("--port", default=9200, show_default=True, help="HTTP port on 127.0.0.1.")
@click.option("--heap", default="1g", show_default=True, help="Memory of the Java heap.")
@click.option("--fast-start", is_flag=True, help="Starts sooner and searches slower: for tests.")
@click.option(
    "--with-plugin",
    is_flag=True,
    help="With our hamming query, compiled now: exact search at memory speed.",
)
@click.option(
    "--with-ml",
    is_flag=True,
    help="With ml-commons and neural-search, for xmodal-opensearch connect (400 MB more).",
)
def node(
    folder: Path, port: int, heap: str, fast_start: bool, with_plugin: bool, with_ml: bool
) -> None:
    """Run a real OpenSearch with k-NN on this machine, for development, until Ctrl-C.

    It listens on 127.0.0.1 only, without security. The first start downloads the server (170 MB);
    later ones need no network. For production see the compose file and docs in the README.

    \b
    Example:
      xmodal-opensearch node --folder my-node --port 9200 --with-plugin
    """
    require("a development node", "node")
    signal.signal(signal.SIGTERM, _stop)
    plugins = ["opensearch-knn", *(["opensearch-ml", "neural-search"] if with_ml else [])]
    extra = [plugin_folder(show=info)] if with_plugin else []
    with Node.start(
        folder,
        port=port,
        heap=heap,
        quick=fast_start,
        plugins=plugins,
        extra_plugins=extra,
        show=info,
    ) as running:
        print_line(running.url)
        info(f"ready; data in {folder}; an index is opensearch://localhost:{running.port}/NAME")
        info("Ctrl-C ends it")
        try:
            while running.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            info("stopping")
            return
    raise ServerFailure(f"the node ended by itself: see {running.log}", 0, "ended")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
