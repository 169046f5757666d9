"""Documents read back from a cluster: codes, fields, and what a search can be narrowed by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Facets, to_facets
from xmodal.modality import Modality
from xmodal_opensearch.client.bulk import is_usable
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.exact_search import ExactIndex
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import MOST_HITS

FACETS = 100
"""How many fields one request counts the values of."""


class ReadableIndex(ExactIndex):
    """An exact index whose documents can be read back."""

    def codes_of(self, ids: Sequence[str], side: Modality) -> tuple[list[str], BinaryCodes]:
        """Those of ``ids`` that have a code on ``side``, and the codes, as they are stored."""
        field = field_of(side)
        if not ids:
            return [], BinaryCodes.empty(self.bits)
        told = self._read(ids, {"includes": [field]})
        found = {id_: told[id_][field] for id_ in ids if told.get(id_, {}).get(field) is not None}
        return list(found), self.layout.codes(list(found.values()), self.bits)

    def fields_of(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The fields of those of ``ids`` that are there; the codes are not among them."""
        found = self._read(ids, {"excludes": list(mapping.OURS)}) if ids else {}
        return {id_: found[id_] for id_ in ids if id_ in found}

    def facets(self, most: int = 20) -> Facets:
        """What a search can be narrowed by; see the contract. At most 100 fields are looked at."""
        self.refresh()
        fields = [
            (name.removesuffix(".keyword"), name)
            for name, kind in sorted(self.read_types().items())
            if kind in ("keyword", "boolean") and not mapping.is_ours(name)
        ][:FACETS]
        asked = {path: {"terms": {"field": path, "size": most + 1}} for _, path in fields}
        body = {
            "size": 0,
            "query": {"bool": {"filter": [{"exists": {"field": mapping.ID}}, *self.filters(None)]}},
            "aggs": asked,
        }
        (answer,) = self.ask([body]) if fields else [{}]
        counts = {
            field: {
                str(one.get("key_as_string", one["key"])): int(one["doc_count"])
                for one in answer["aggregations"][path]["buckets"]
            }
            for field, path in fields
        }
        return to_facets(counts, most)

    def sample(self, side: Modality, count: int, seed: int = 0) -> tuple[list[str], BinaryCodes]:
        """Ids and codes of some documents that have a code on ``side``, drawn at random."""
        self.refresh()
        field = field_of(side)
        drawn = {"random_score": {"seed": seed, "field": "_seq_no"}}
        present = {"bool": {"filter": [self.layout.present(field), *self.filters(None)]}}
        query = {"function_score": {"query": present, **drawn}}
        body = {"size": min(count, MOST_HITS), "query": query, "_source": [field]}
        (answer,) = self.ask([body])
        found = answer["hits"]["hits"]
        codes = self.layout.codes([one["_source"][field] for one in found], self.bits)
        return [one["_id"] for one in found], codes

    # ---- how it works -------------------------------------------------------------------------

    def _read(self, ids: Sequence[str], source: Mapping[str, Any]) -> dict[str, Any]:
        """The ``_source`` of the documents that are there, as they are at this moment."""
        if self.added:
            return self._searched(ids, source)
        known = [id_ for id_ in ids if is_usable(id_)]
        body = {"docs": [{"_id": id_, "_source": source} for id_ in known]}
        if not known:
            return {}
        answer = self.server.request("POST", f"/{self.name}/_mget", body, doing="reading documents")
        return {one["_id"]: one["_source"] for one in answer["docs"] if one.get("found")}

    def _searched(self, ids: Sequence[str], source: Mapping[str, Any]) -> dict[str, Any]:
        """The same in somebody's own index: whatever the routing, and of this encoder alone."""
        self.refresh()
        out = {}
        for start in range(0, len(ids), MOST_HITS):
            these = {"ids": {"values": list(ids[start : start + MOST_HITS])}}
            query = {"bool": {"filter": [these, *self.filters(None)]}}
            (answer,) = self.ask([{"size": MOST_HITS, "query": query, "_source": source}])
            out.update({one["_id"]: one["_source"] for one in answer["hits"]["hits"]})
        return out
