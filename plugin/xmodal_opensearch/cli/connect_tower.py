"""``xmodal-opensearch connect --in-cluster``: a text tower that the cluster computes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from xmodal.cli.output import info, progress_bars
from xmodal.encoders.text_tower import Samples, TextTower
from xmodal.errors import ConfigError, require
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.cli.connect_steps import allow_settings, open_index, reopen, show
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.capabilities import Capabilities, probe
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.exact_search import exact_query
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.index.queries import Query, by_all, by_script
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import choose_strategy
from xmodal_opensearch.rest import connector, local_model, models
from xmodal_opensearch.rest.curl import Curl, tower_examples
from xmodal_opensearch.rest.pipelines import query_template
from xmodal_opensearch.rest.tower_pipelines import TowerConfig


def connect_tower(address: Address, given: Mapping[str, Any], *, as_json: bool) -> None:
    """Connect an index with a text tower that the cluster computes; create a missing index."""
    with _opened(given["tower"]) as tower, closing(Server(address)) as server:
        capabilities = probe(server)
        models.check_plugins(capabilities, address.server)
        local_model.check_version(capabilities, address.server)
        curl = Curl(address, os.environ)
        missing = local_model.missing_settings(server)
        allow_settings(server, missing, "run a text tower", curl, allow=given["allow"])
        _create_missing(server, address, capabilities, tower)
        index = open_index(server, address)
        index.handle.check_writable()
        index = reopen(server, index, tower)
        index.handle.map_nested_codes(["text"])
        config = _config(index, given, tower.samples)
        makes_default = given["make_default"] or _is_default(index, config)
        default_of = index.handle.name if makes_default else None
        with progress_bars() as bars:
            changes = connector.connect_in_cluster(
                server, config, tower, default_of=default_of, progress=bars
            )
        index.handle.store_fingerprint()
    commands = tower_examples(curl, config, is_default=default_of is not None)
    result = {"index": str(address), "tower": tower.name, "encoder": tower.fingerprint}
    show(result, changes, commands, as_json=as_json)


@contextmanager
def _opened(path: Path) -> Iterator[TextTower]:
    """The archive at ``path``, or a temporary one of the model in the folder ``path``."""
    if not path.is_dir():
        yield TextTower.load(path)
        return
    require("connect --in-cluster with a model", "export")
    from xmodal.export.ml_commons import write_text_tower

    with tempfile.TemporaryDirectory() as folder:
        info(f"writing the text tower of {path}")
        yield write_text_tower(path, Path(folder) / f"{path.resolve().name}.zip")


def _create_missing(
    server: Server, address: Address, capabilities: Capabilities, tower: TextTower
) -> None:
    """Create the index for codes of ``tower`` unless it exists."""
    if describe(server, address.index) is not None:
        return
    strategy = choose_strategy(address.strategy, capabilities, None, address.natives)
    make_version(
        server, address, tower.bits, tower.fingerprint, strategy.makes, alias=address.index
    )


def _is_default(index: OpenSearchIndex, config: TowerConfig) -> bool:
    """Whether the ingest pipeline is the default of the index, or an empty index has none."""
    found = connector.default_pipeline(index.handle.server, index.handle.name)
    return found == config.name("ingest") or (found is None and index.handle.is_empty())


def _config(index: OpenSearchIndex, given: Mapping[str, Any], samples: Samples) -> TowerConfig:
    """Parameters of the pipelines; their queries are those of the Python client."""
    handle, field = index.handle, given["text_field"]
    types = handle.read_types()
    analysed = [path for path in (field, f"{field}.words") if types.get(path) == "text"]
    return TowerConfig(
        OwnershipTag(given["name"], handle.address.index, str(index.fingerprint)),
        {modality: _exact(handle, modality) for modality in MODALITIES},
        text_field=field,
        words_field=analysed[0] if analysed else f"{field}.words",
        enriched=handle.enriched,
        samples=samples,
    )


def _exact(handle: IndexHandle, target: Modality) -> Query:
    """The exact query with "@code@" for the code; the filter of a request is outside of it.

    A knn query selects the nearest before such a filter, so that a script replaces it.
    """
    code, filters = mapping.self_test_code(handle.bits), handle.filters(None)
    if handle.strategy.build is not None:
        return query_template(exact_query(handle, QueryCodes(code), target, filters), code)
    if not handle.capabilities.scripts:
        raise ConfigError(
            f"{handle.address}: connect --in-cluster needs scripts, or the hamming plugin, and "
            "search.allow_expensive_queries is false: allow expensive queries"
        )
    query = by_all(by_script, target, QueryCodes(code), handle.layout, filters)
    return query_template(query, code)
