"""Query sets and judgments for OpenSearch's Search Relevance Workbench.

``NAME.query_set.json`` is the body of ``PUT _plugins/_search_relevance/query_sets``, and
``NAME.judgments.json`` that of ``PUT _plugins/_search_relevance/judgments``. Queries are the
captions of the query part. Relevant, with the rating 1, are the documents of the caption's own
unit; equal captions are one query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.dataset import Dataset
from xmodal.data.items import FeatureName, Item
from xmodal.data.problems import Problems
from xmodal.features.units import Units
from xmodal.writing import write_text

MAX_QUERIES = 1000
"""Queries of a query set; the workbench refuses more by default. Of more captions, evenly spaced
ones are taken."""
MAX_QUERY_CHARACTERS, MAX_NAME_CHARACTERS = 2000, 50
REFUSED = re.compile(r'["\\<>\n\r]')
"""Characters that the workbench accepts neither in a query nor in a name."""
RATING = "1.000"


def write_workbench(folder: Path, name: str, units: Units, data: Dataset) -> Problems:
    """Write ``NAME.query_set.json`` and ``NAME.judgments.json`` into ``folder``.

    ``units``: of the query part; ``data``: the items with their captions. Returns the captions that
    are no queries, because the workbench refuses them or their text is unknown.
    """
    problems = Problems()
    relevant = _relevant(units, {item.id: item for item in data}, problems)
    queries = sorted(relevant)
    chosen = np.linspace(0, len(queries) - 1, min(len(queries), MAX_QUERIES)).astype(np.int64)
    queries = [queries[number] for number in chosen]
    head = {
        "name": REFUSED.sub(" ", name)[:MAX_NAME_CHARACTERS],
        "description": "captions of the query part, measured by xmodal",
    }
    query_set = {"sampling": "manual", "querySetQueries": [{"queryText": one} for one in queries]}
    ratings = [
        {"query": one, "ratings": [{"docId": id_, "rating": RATING} for id_ in relevant[one]]}
        for one in queries
    ]
    judgments = {"type": "IMPORT_JUDGMENT", "judgmentRatings": ratings}
    for kind, body in {"query_set": query_set, "judgments": judgments}.items():
        content: dict[str, Any] = head | body
        path = folder / f"{name}.{kind}.json"
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return problems


def _relevant(units: Units, items: Mapping[str, Item], problems: Problems) -> dict[str, list[str]]:
    """Return the ids of the relevant documents by caption."""
    found: dict[str, dict[str, None]] = {}
    offsets = units.offsets("text")
    for unit in range(len(units)):
        names = units.text_ids[offsets[unit] : offsets[unit + 1]]
        ids = dict.fromkeys(_item_id(name, items) for name in names)
        for name in names:
            text = _caption(name, items[_item_id(name, items)])
            if text is None:
                problems.add("caption of unknown text", name)
            elif len(text) > MAX_QUERY_CHARACTERS or REFUSED.search(text):
                problems.add(
                    'caption that the workbench refuses (too long, or with " \\ < >)', name
                )
            else:
                found.setdefault(text, {}).update(ids)
    return {text: list(ids) for text, ids in found.items()}


def _item_id(name: str, items: Mapping[str, Item]) -> str:
    """Return the id of the item of a caption, see :class:`~xmodal.features.units.Units`."""
    return name if name in items else name.rpartition("#")[0]


def _caption(name: str, item: Item) -> str | None:
    """Return the text of a caption; None for one of a feature file, or if some were unusable."""
    number = 0 if name == item.id else int(name.rpartition("#")[2])
    if (name == item.id) != (len(item.captions) == 1) or number >= len(item.captions):
        return None
    text = item.captions[number].strip()
    return None if isinstance(item.captions[number], FeatureName) or not text else text
