"""Results: a query and its hits, as a sequence, a table, and in a notebook as pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from xmodal.errors import require
from xmodal.escapes import escape_controls
from xmodal.index.contract import Hit, shown_source
from xmodal.modality import Modality
from xmodal.retrieval.reasons import why

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from PIL import Image

MAX_SHOWN = 50
"""Hits that ``repr`` and a notebook show."""
MAX_TEXT = 200
"""Characters of a text that they show."""
COLUMNS = ("rank", "id", "index", "distance", "similarity", "confidence", "score", "matched")
"""Columns of a table of hits before the text, the picture and the stored fields."""


@dataclass(frozen=True, repr=False, eq=False)
class Results(Sequence[Hit]):
    """A query and its hits, best first; a slice is Results too.

    ``query``: a text, or the path, the bytes or the open image of a picture. ``target``: the
    searched modality; default: text for a picture, image for a text. ``first_rank``: rank of the
    first hit, from 1.

    >>> results = xmodal.search("my.index", "a circle", where={"colour": "red"}, k=3)
    >>> len(results), results[0].fields["colour"]
    (3, 'red')
    >>> [hit.id for hit in results[:2]] == [results[0].id, results[1].id]
    True
    """

    query: str | Path | bytes | Image.Image
    hits: Sequence[Hit]
    target: Modality | None = None
    first_rank: int = 1

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Results: ...
    def __getitem__(self, place: int | slice) -> Hit | Results:
        if not isinstance(place, slice):
            return self.hits[place]
        start, _, step = place.indices(len(self.hits))
        first = self.first_rank + start if step == 1 else 1
        return Results(self.query, self.hits[place], self.target, first)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __eq__(self, other: object) -> bool:
        """Whether ``other``, Results or a list, has equal hits."""
        if isinstance(other, Results):
            other = other.hits
        return isinstance(other, list | tuple) and list(self.hits) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def searched(self) -> Modality:
        """The modality of the documents' codes that were searched."""
        return self.target or ("image" if isinstance(self.query, str) else "text")

    @property
    def title(self) -> str:
        """The query as text: its words, or the name of the picture."""
        if isinstance(self.query, str):
            return self.query
        return self.query.name if isinstance(self.query, Path) else "picture"

    def shown(self, hit: Hit) -> tuple[Path | None, str]:
        """Return the picture and the text by which a hit is shown."""
        file = shown_source(hit, "image", self.searched)
        text = shown_source(hit, "text", self.searched)
        return None if file is None else Path(file), hit.id if text is None else text

    def __repr__(self) -> str:
        """Return one line for the query and one for each hit, without control characters."""
        count = "no match" if not self.hits else f"{len(self.hits):,} hits"
        lines = [f"Results for {shortened(self.title)!r}: {count}"]
        for rank, hit in enumerate(self.hits[:MAX_SHOWN], self.first_rank):
            file, text = self.shown(hit)
            parts = [f"distance {hit.distance}", why(hit), shortened(text)]
            if hit.confidence is not None:
                parts.insert(1, f"confidence {hit.confidence:.0%}")
            if file is not None:
                parts.append(str(file))
            lines.append(f"{rank:>3}. {escape_controls('  '.join(parts))}")
        if len(self.hits) > MAX_SHOWN:
            lines.append(f"  ... {len(self.hits) - MAX_SHOWN:,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the hits with pictures for a notebook; all texts are escaped."""
        from xmodal.retrieval.gallery import results_to_html

        return results_to_html(self)

    def to_arrow(self, *, fields: bool = True) -> pa.Table:
        """Return a table with one row per hit: COLUMNS, "text", "image" and the stored fields.

        ``fields``: False leaves the stored fields out; tables of any hits then have one schema.
        "text" and "image": caption and path of the picture that represent the hit. A stored field
        with the name of another column is called ``field_NAME``.

        >>> xmodal.search("my.index", "a red circle", k=3).to_arrow().column_names[:3]
        ['rank', 'id', 'distance']
        """
        rows = []
        for rank, hit in enumerate(self.hits, self.first_rank):
            known = (rank, hit.id, hit.index_name, hit.distance, hit.similarity, hit.confidence)
            row = dict(zip(COLUMNS, (*known, hit.score, list(hit.matched)), strict=True))
            row["text"] = shown_source(hit, "text", self.searched)
            row["image"] = shown_source(hit, "image", self.searched)
            rows.append(row)
        types = fixed_types()
        if not fields:
            return to_table(rows, types, [])
        if not any(hit.index_name for hit in self.hits):
            del types["index"]
        return to_table(rows, types, [hit.fields for hit in self.hits])

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of :meth:`to_arrow` as a DataFrame. Raises ExtraMissing.

        >>> table = xmodal.search("my.index", "a red circle", k=3).to_pandas()
        >>> list(table["rank"])
        [1, 2, 3]
        """
        require("a DataFrame", "pandas")
        return self.to_arrow().to_pandas()


def shortened(text: str, length: int = MAX_TEXT) -> str:
    """Return a text in one line of at most ``length`` characters."""
    line = re.sub(r"\s+", " ", text[: 2 * length]).strip()
    return line if len(line) <= length and len(text) <= 2 * length else f"{line[: length - 3]}..."


def fixed_types() -> dict[str, pa.DataType]:
    """Return the types of the columns of a table of hits, without those of stored fields."""
    import pyarrow as pa

    number, text = pa.float64(), pa.string()
    kinds = (pa.int64(), text, text, pa.int64(), number, number, number, pa.list_(text))
    return dict(zip(COLUMNS, kinds, strict=True)) | {"text": text, "image": text}


def to_table(
    rows: Sequence[Mapping[str, Any]],
    types: Mapping[str, pa.DataType],
    fields: Sequence[Mapping[str, Any]],
) -> pa.Table:
    """Return a table of ``rows``, whose columns have ``types``, and of the stored ``fields``.

    The fields "text" and "image" are left out, which ``rows`` has. A field whose values have
    several types is a column of texts: what is no text is written as JSON.
    """
    import pyarrow as pa

    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    for name in dict.fromkeys(name for values in fields for name in values):
        if name not in ("text", "image"):
            free = f"field_{name}" if name in columns else name
            columns[free] = _column([values.get(name) for values in fields])
    return pa.table(columns)


def _column(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        texts = (
            value if value is None or isinstance(value, str) else _json(value) for value in values
        )
        return pa.array(list(texts), pa.string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
