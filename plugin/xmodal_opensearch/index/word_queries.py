"""BM25 queries by words, and the fields with words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xmodal.errors import ConfigError
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.filter_queries import is_nested
from xmodal_opensearch.index.queries import Query


def words_query(
    fields: Sequence[str], words: Sequence[str], excluded: Sequence[str], filters: Sequence[Query]
) -> Query:
    """Return the BM25 query of documents with one of the words, without the excluded ones.

    The clause of each word is named by its place in ``words``, for ``matched_queries``.
    """
    options = {"minimum_should_match": 1, "filter": list(filters)}
    return {
        "bool": {
            "should": [_word(fields, word, _name=str(n)) for n, word in enumerate(words)],
            "must_not": [_word(fields, word) for word in excluded],
            **options,
        }
    }


def text_field(name: str, types: Mapping[str, str]) -> str:
    """Return the path of the analysed text of a field; raise ConfigError if it has none."""
    for path in (name, f"{name}.words"):
        if types.get(path) in ("text", "match_only_text"):
            return path
    known = sorted(path.removesuffix(".words") for path, kind in types.items() if kind == "text")
    raise ConfigError(
        f"field {name!r} is no text that BM25 can search, "
        + (f"expected one of {', '.join(known)}" if known else "and this index has no such field")
    )


def text_fields(types: Mapping[str, str]) -> list[str]:
    """Return the paths of the analysed text of all fields of the user."""
    return [
        path
        for path, kind in sorted(types.items())
        if kind in ("text", "match_only_text")
        and not mapping.is_reserved(path)
        and not is_nested(path, types)
    ]


def _word(fields: Sequence[str], word: str, **options: str) -> Query:
    """Return the query of one word, in ``xmodal.words`` or in fields that the server analyses."""
    if list(fields) == [mapping.WORDS]:
        return {"term": {mapping.WORDS: {"value": word, **options}}}
    return {"multi_match": {"query": word, "fields": list(fields), **options}}
