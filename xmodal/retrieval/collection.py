"""Collection: the documents of an index with their encoder, for programs and notebooks."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from xmodal.encoders.folder import CONFIG, HUB_SCHEME
from xmodal.encoders.index_model import default_model, find_model, lock_local, record_model
from xmodal.errors import ConfigError, IndexMissing, require
from xmodal.escapes import escape_controls
from xmodal.index.contract import Index, open_index, source_at
from xmodal.index.origins import Entry, ListedIndex, source_of
from xmodal.index.validation import check_identity
from xmodal.modality import Modality
from xmodal.retrieval.query import By, Query
from xmodal.retrieval.query_text import describe
from xmodal.retrieval.results import Results, shortened, to_table
from xmodal.retrieval.retriever import Retriever, search_present

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from xmodal.data.dataset import Dataset
    from xmodal.data.images import Source
    from xmodal.data.progress import Progress
    from xmodal.data.readers.read import ArrowTable, Options
    from xmodal.encoders.calibration import Stage
    from xmodal.encoders.encoder import Encoder
    from xmodal.encoders.engine import Engine
    from xmodal.retrieval.indexing import Changes

MAX_ENCODERS = 2
"""Encoders that :func:`search` keeps for later calls."""
SAMPLE = 1000
"""Documents whose fields ``repr`` lists."""


class SearchOptions(TypedDict, total=False):
    """Options of a search; see :class:`~xmodal.retrieval.query.Query`."""

    k: int
    offset: int
    where: Mapping[str, Any] | None
    not_text: Sequence[str]
    weights: Mapping[str, float]
    target: Modality | None
    radius: int | None
    min_confidence: float | None
    by: By
    stage: Stage
    word_weight: float


def search(
    index: str | Path,
    text: str | None = None,
    *,
    image: Source | None = None,
    like: str | None = None,
    model: str | Path | None = None,
    **options: Unpack[SearchOptions],
) -> Results:
    """Search an index by a text, a picture or a document, and return the hits.

    ``index``: folder or address. ``model``: folder of the encoder, or its name on the model hub,
    ``hf://OWNER/NAME``; default: the one that the index
    records, or ``.xmodal/model`` for an index on a server. The other arguments are those of
    :meth:`Collection.search`. The encoders of the last calls are kept in memory; for many searches
    a :class:`Collection` also keeps the index open. Raises IndexMissing, IndexMismatch, ModelError,
    DataError and ConfigError.

    >>> import xmodal
    >>> results = xmodal.search("my.index", "a circle", where={"colour": "red"}, k=3)
    >>> results.to_pandas()["colour"].tolist()
    ['red', 'red', 'red']
    >>> xmodal.search("my.index", image="photos/00000.png").searched
    'text'
    """
    with Collection(index, model=model, _load=_kept_encoder) as collection:
        return collection.search(text, image=image, like=like, **options)


class Collection:
    """Documents of an index, and the encoder that searches and extends them.

    ``uri``: folder of a local index, or address of another one. ``model``: folder of the encoder;
    default: see :func:`search`. The encoder is loaded when it is first needed. ``engine``: see
    :func:`xmodal.load_encoder`.

    >>> import xmodal
    >>> photos = xmodal.Collection("my.index")
    >>> len(photos), "00001.png" in photos
    (150, True)
    >>> photos.search_text("red circle", k=5, by="words")[0].matched
    ('red', 'circle')
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        model: str | Path | None = None,
        engine: Engine = "auto",
        _load: Any = None,
    ) -> None:
        self.uri = str(uri)
        self._model = None if model is None else _folder(model)
        self._load = _load or _load_encoder
        self._engine = engine
        self._encoder: Encoder | None = None
        self._open()

    @classmethod
    def create(cls, uri: str | Path, *, model: str | Path | None = None) -> Collection:
        """Return the collection at ``uri``; an index is created there if there is none.

        ``model``: default: the one that the index records, or ``.xmodal/model``. Raises ConfigError
        without a model, and the errors of :class:`Collection`.

        >>> import pandas as pd, xmodal
        >>> table = pd.DataFrame({"caption": ["a red circle", "a blue star"], "price": [5, 3]})
        >>> with xmodal.Collection.create("captions.index", model="my.model") as captions:
        ...     captions.add(table, source="prices").summary()
        ...     captions.search("red", where={"price": {"gt": 4}})[0].fields["text"]
        '2 added'
        'a red circle'
        """
        found = _folder(model) if model else find_model(str(uri)) or default_model()
        if found is None:
            raise ConfigError(
                f"model is missing: {uri} is new and there is no .xmodal/model, expected the "
                "folder of a trained encoder; xmodal index DATA fits one without training"
            )
        encoder = _load_encoder(found, "auto")
        open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True).close()
        record_model(str(uri), found, encoder.fingerprint)
        collection = cls(uri, model=found)
        collection._encoder = encoder
        return collection

    def _open(self) -> None:
        self.index: Index = open_index(self.uri)
        self._retriever: Retriever | None = None

    @property
    def encoder(self) -> Encoder:
        """The encoder of the documents' codes; raises ModelError, IndexMismatch, ConfigError."""
        if self._encoder is None:
            model = self._model or find_model(self.uri)
            assert model is not None  # the index exists
            encoder = self._load(model, self._engine)
            check_identity(
                self.uri,
                bits=self.index.bits,
                fingerprint=self.index.fingerprint,
                expected_bits=encoder.bits,
                expected_fingerprint=encoder.fingerprint,
            )
            self._encoder = encoder
        return self._encoder

    # ---- search --------------------------------------------------------------------------------

    def search(
        self,
        text: str | None = None,
        *,
        image: Source | None = None,
        like: str | None = None,
        **options: Unpack[SearchOptions],
    ) -> Results:
        """Return the hits of a text, a picture, a document (``like``, its id), or of several parts.

        ``image``: path, bytes, or open PIL image. ``k``: maximum number of hits (10). ``where``:
        filters, see :mod:`xmodal.index.filters`. ``not_text``: texts to move away from. The other
        options: see :class:`~xmodal.retrieval.query.Query`. Without ``target``, an index that has
        only texts or only pictures is searched by these. Raises DataError for an unusable picture
        or text, IndexMissing for an unknown document, ConfigError for other invalid arguments.

        >>> photos = xmodal.Collection("my.index")
        >>> results = photos.search("circle", where={"colour": "red"}, k=2)
        >>> [hit.fields["colour"] for hit in results]
        ['red', 'red']
        """
        if "not_text" in options:
            options["not_text"] = tuple(options["not_text"])
        query = Query(text=text, image=image, like=like, **options)  # type: ignore[arg-type]
        query.check()
        if self._retriever is None or self._retriever.encoder is None:
            needed = text is not None or image is not None or bool(query.not_text)
            self._retriever = Retriever(self.encoder if needed else None, self.index)
        query, hits = search_present(self._retriever, query)
        return Results(_described(query), hits, query.searched, query.offset + 1)

    def search_text(self, text: str, **options: Unpack[SearchOptions]) -> Results:
        """Return the hits of a text; see :meth:`search`.

        >>> photos = xmodal.Collection("my.index")
        >>> results = photos.search_text("a green star", not_text=["top"], k=5)
        >>> any("top" in hit.fields["text"] for hit in results)
        False
        """
        return self.search(text, **options)

    def search_image(self, image: Source, **options: Unpack[SearchOptions]) -> Results:
        """Return the hits of a picture: path, bytes, or open PIL image; see :meth:`search`.

        Texts are searched, unless ``target="image"``.

        >>> photos = xmodal.Collection("my.index")
        >>> photos.search_image("photos/00001.png", target="image", k=1)[0].distance
        0
        """
        return self.search(image=image, **options)

    def search_like(self, id: str, **options: Unpack[SearchOptions]) -> Results:
        """Return the documents that are similar to a document; see :meth:`search`.

        No encoder is loaded.

        >>> len(xmodal.Collection("my.index").search_like("00001.png", k=4))
        4
        """
        return self.search(like=id, **options)

    # ---- documents -----------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.index)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the documents, in order of id: ``id``, ``fields`` and ``origin``."""
        return self.documents()

    def documents(self, where: Mapping[str, Any] | None = None) -> Iterator[Entry]:
        """Yield the documents that pass the filters, in order of id. Raises ConfigError.

        >>> photos = xmodal.Collection("my.index")
        >>> {document.fields["colour"] for document in photos.documents({"colour": "red"})}
        {'red'}
        """
        if not isinstance(self.index, ListedIndex):
            raise ConfigError("an index of this backend cannot list its documents")
        return self.index.entries(where=where)

    def __contains__(self, document: object) -> bool:
        """Return whether there is a document with this id, or this document of an iteration."""
        id_ = document.id if isinstance(document, Entry) else document
        return isinstance(id_, str) and bool(self.index.get([id_]).ids)

    def __getitem__(self, id: str) -> Mapping[str, Any]:
        """Return the stored fields of a document; raises IndexMissing.

        >>> xmodal.Collection("my.index")["00001.png"]["image"].endswith("00001.png")
        True
        """
        fields = self.index.get([id]).fields_by_id()
        if id not in fields:
            raise IndexMissing(f"there is no document {shortened(str(id))!r} in {self.uri}")
        return fields[id]

    def to_arrow(self) -> pa.Table:
        """Return all documents as a table: id, text, image, and the stored fields.

        "text" and "image": the first caption and the path of the first picture.

        >>> xmodal.Collection("my.index").to_arrow().num_rows
        150
        """
        import pyarrow as pa

        documents = list(self)
        rows = [
            {"id": one.id, **{m: source_at(one.fields.get(m), 0) for m in ("text", "image")}}
            for one in documents
        ]
        types = dict.fromkeys(("id", "text", "image"), pa.string())
        return to_table(rows, types, [one.fields for one in documents])

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of :meth:`to_arrow` as a DataFrame. Raises ExtraMissing.

        >>> xmodal.Collection("my.index").to_pandas()["colour"].nunique()
        4
        """
        require("a DataFrame", "pandas")
        return self.to_arrow().to_pandas()

    # ---- changes -------------------------------------------------------------------------------

    def add(
        self,
        data: str | Path | ArrowTable | Dataset,
        *,
        source: str | None = None,
        prune: bool = False,
        cache: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Changes:
        """Add the pictures and texts of ``data``, or update them; return what changed.

        ``data``: what :func:`xmodal.read` reads, with its ``options``, or its result. ``source``:
        name of the source whose documents are added and replaced; default: the path; required for
        data in memory. ``prune``: remove documents of the source that ``data`` lacks. ``cache``:
        folder of cached features [the user's cache folder]. Items that cannot be used are counted
        in ``problems`` of the result. Raises DataError, ConfigError, InUse.

        >>> photos = xmodal.Collection("my.index")
        >>> changes = photos.add("photos", label_column="labels")
        >>> changes.summary(), dict(changes.problems)
        ('150 unchanged', {})
        """
        from xmodal.data.dataset import Dataset
        from xmodal.data.readers.read import read
        from xmodal.features.cache import default_cache
        from xmodal.index.filling import Filling
        from xmodal.retrieval.indexing import update_source

        in_memory = not isinstance(data, str | Path)
        if in_memory and not source:
            raise ConfigError(
                "source is missing: data in memory has no path, expected a name for it, for "
                "example source='captions'; the next data of this name replaces equal ids"
            )
        encoder = self.encoder
        dataset = data if isinstance(data, Dataset) else read(data, **options)
        with lock_local(self.uri):
            index = open_index(self.uri)
            changes = update_source(
                Filling(index, lambda: None),
                encoder,
                dataset,
                source or source_of(str(data)),
                problems=dataset.problems,
                cache=cache or default_cache(),
                progress=progress,
            )
            if prune:
                changes.prune(index)
            index.close()
        self._open()
        return changes

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents and return their number; unknown ids are ignored.

        >>> photos = xmodal.Collection("my.index")
        >>> photos.delete(["there is no such id"])
        0
        """
        with lock_local(self.uri):
            index = open_index(self.uri)
            count = index.delete(ids)
            index.close()
        self._open()
        return count

    def close(self) -> None:
        """Release files and connections."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Return address, number of documents and width of the codes in one line."""
        name = escape_controls(self.uri)
        return f"Collection({name!r}): {len(self):,} documents, {self.index.bits} bits"

    def _repr_html_(self) -> str:
        """Return the description and the fields of the first documents for a notebook."""
        fields = Counter(name for one in self._sample() for name in one.fields)
        names = ", ".join(shortened(name, 40) for name, _ in fields.most_common(20))
        return f"<p>{html.escape(repr(self))}<br><small>fields: {html.escape(names)}</small></p>"

    def _sample(self) -> Iterator[Entry]:
        from itertools import islice

        return islice(self, SAMPLE) if isinstance(self.index, ListedIndex) else iter(())


def _described(query: Query) -> Any:
    """Return the query as Results show it: a picture alone, else a text."""
    if query.image is not None and query.text is None and query.like is None:
        return Path(query.image) if isinstance(query.image, str) else query.image
    picture = None if query.image is None else "picture"
    if isinstance(query.image, str | Path):
        picture = str(query.image)
    return describe([query.text, picture, query.like], query.not_text)


def _folder(model: str | Path) -> Path:
    """Return the folder of a model, which is downloaded if it is a name of the hub."""
    if not str(model).startswith(HUB_SCHEME):
        return Path(model)
    from xmodal.encoders.hub import HubName, download

    return download(HubName.parse(str(model)))


def _load_encoder(model: Path, engine: Engine) -> Encoder:
    from xmodal.encoders.load import load_encoder

    return load_encoder(model, engine=engine, for_queries=True)


def _kept_encoder(model: Path, engine: Engine) -> Encoder:
    """Return an encoder that is kept in memory while its configuration is the same file."""
    path = model.resolve()
    try:
        state = (path / CONFIG).stat()
    except OSError:
        return _load_encoder(model, engine)  # raises ModelError
    return _cached_encoder(path, engine, (state.st_mtime_ns, state.st_ino))


@lru_cache(MAX_ENCODERS)
def _cached_encoder(model: Path, engine: Engine, state: tuple[int, int]) -> Encoder:
    return _load_encoder(model, engine)
