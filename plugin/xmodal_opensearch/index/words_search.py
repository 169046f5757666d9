"""Full-text search: BM25 of the words of documents.

Documents that xmodal wrote have their words in ``xmodal.words``, so that the server's BM25 ranks
them like a local index. Other documents, of an enriched index or of an index of an earlier version,
are found by the words of their text fields, as the server's analyzer divides them.

Statistics are of the whole index on any number of shards. As always in Lucene they contain deleted
and replaced documents until the server merges their segments, so ranks may differ slightly until
then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any

from xmodal.errors import ConfigError
from xmodal.index.contract import WordsHit, WordsQuery
from xmodal.index.validation import check_k, check_target
from xmodal.index.words import tokens
from xmodal.modality import Modality
from xmodal_opensearch.index import codec, mapping, queries, word_queries
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.queries import MAX_HITS, hit_id

MAX_WORDS = 500
"""Words of a query that are searched; the server refuses more than 1024 clauses."""


def search_words(
    handle: IndexHandle,
    given: Sequence[WordsQuery],
    k: int,
    *,
    target: Modality,
    where: Mapping[str, Any] | None = None,
    text_field: str | None = None,
) -> list[list[WordsHit]]:
    """Return the best ``k`` documents for each query; see the contract of a full-text index.

    ``text_field``: field whose words are searched, as the server's analyzer divides them, instead
    of ``xmodal.words``. Raises ConfigError for a field that is no text.
    """
    check_target(target)
    check_k(k)
    if k > MAX_HITS:
        raise ConfigError(f"k is {k}, expected at most {MAX_HITS:,} for a search by words")
    filters = handle.filters(where)
    handle.refresh()
    fields = _text_fields(handle, text_field)
    words = [_divide(query.text, fields)[:MAX_WORDS] for query in given]
    if not fields:
        return [[] for _ in given]
    present = queries.present(target, handle.layout, nested=handle.queries_nested(target))
    bodies = [
        queries.search_body(
            word_queries.words_query(
                fields,
                of_query,
                _divide(query.excluded, fields)[:MAX_WORDS],
                [present, *filters],
            ),
            k,
        )
        for query, of_query in zip(given, words, strict=True)
        if of_query
    ]
    found = iter(_best(handle, bodies, k))
    return [_to_hits(next(found), of_query) if of_query else [] for of_query in words]


def _best(
    handle: IndexHandle, bodies: Sequence[Mapping[str, Any]], k: int
) -> list[list[Mapping[str, Any]]]:
    """Return the first ``k`` hits of each search, in pages if one request returns fewer."""
    if k <= handle.window:
        answers = handle.search(bodies, global_statistics=True)
        return [answer["hits"]["hits"] for answer in answers]
    found = []
    for body in bodies:
        pages = handle.pages(body, doing="searching", global_statistics=True)
        with closing(pages):
            hits = chain.from_iterable(answer["hits"]["hits"] for answer in pages)
            found.append(list(islice(hits, k)))
    return found


def _text_fields(handle: IndexHandle, text_field: str | None) -> list[str]:
    """Return the fields with words: ``xmodal.words``, or the user's text fields."""
    if text_field is None and handle.has_words:
        return [mapping.WORDS]
    types = handle.read_types()
    if text_field is not None:
        return [word_queries.text_field(text_field, types)]
    return word_queries.text_fields(types)


def _divide(text: str, fields: Sequence[str]) -> list[str]:
    """Return the different words of a query: those of xmodal, or parts for a server's analyzer."""
    words = tokens(text) if list(fields) == [mapping.WORDS] else text.casefold().split()
    return list(dict.fromkeys(words))


def _to_hits(hits: Sequence[Mapping[str, Any]], words: Sequence[str]) -> list[WordsHit]:
    return [
        WordsHit(
            hit_id(hit),
            codec.unscaled(hit["_score"]),
            tuple(words[int(name)] for name in sorted(hit.get("matched_queries", ()), key=int)),
            hit.get("_index"),
        )
        for hit in hits
    ]
