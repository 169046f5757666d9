"""Documents -> bulk requests, sent by several workers until the server has taken them.

Bodies are prepared here, as bytes, and nothing here knows a client: ``post`` sends one body. Ids
are the documents' own, so sending twice is storing once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal.index import Modality
from xmodal_opensearch.errors import PASSING, reason_of, status_of
from xmodal_opensearch.mapping import OURS, SELF_TEST_ID, Layout, field_of, is_ours
from xmodal_opensearch.retry import Retry

BATCH = 2000
BATCH_BYTES = 8 << 20
LONGEST_ID = 512
Post = Callable[[bytes], Any]
Passing = Callable[[BaseException], bool]


class Line(NamedTuple):
    """One action on one document, as the lines of a bulk body."""

    id: str
    body: bytes


Batch = list[Line]


@dataclass
class Report:
    """What became of the lines: how many with each result, and the reasons of those refused."""

    results: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def take(self, other: Report) -> None:
        """Add what another report says."""
        self.results.update(other.results)
        self.failed.update(other.failed)

    @property
    def stored(self) -> int:
        """How many documents were created or updated."""
        return sum(self.results[name] for name in ("created", "updated", "noop"))


def index_lines(
    ids: Sequence[str],
    codes: Mapping[Modality, BinaryCodes | None],
    fields: Sequence[Mapping[str, Any]] | None,
    layout: Layout,
) -> Iterator[Line]:
    """Whole documents, replacing those of equal ids. Raises ConfigError before the first is sent.

    The caller has checked that codes and fields are aligned with ``ids``.
    """
    columns = {
        field_of(side): layout.values(given) for side, given in codes.items() if given is not None
    }
    for row, id_ in enumerate(ids):
        ours = {name: values[row] for name, values in columns.items()}
        yield index_line(id_, ours, fields[row] if fields is not None else {})


def index_line(id_: str, ours: Mapping[str, Any], fields: Mapping[str, Any]) -> Line:
    """One whole document; ``ours`` are the code fields as the layout holds them."""
    check_id(id_)
    try:
        simple = _AS_THEY_ARE.issuperset(map(type, fields.values()))
        text = _encode(fields if simple and type(fields) is dict else _as_said(dict(fields)))
        if "." in text or not _OURS.isdisjoint(fields):
            _check_names(id_, fields)
        named = _quoted(id_)
        own = f'"xmodal":{{"id":{named}}}'
        for name, value in ours.items():
            own += f',"{name}":{_code_text(value)}'
        source = f"{text[:-1]}, {own}}}" if fields else f"{{{own}}}"
        return Line(id_, f'{{"index":{{"_id":{named}}}}}\n{source}\n'.encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the fields of {id_!r} cannot be stored ({error}): expected text, finite numbers, "
            "true/false, or lists of these"
        ) from None


def update_line(
    id_: str,
    change: Mapping[str, Any],
    *,
    seen: tuple[int, int] | None = None,
    routing: str | None = None,
) -> Line:
    """A partial update; with ``seen`` (sequence number, term) only if nobody changed it since."""
    action: dict[str, Any] = {"_id": id_}
    if seen is not None:
        action |= {"if_seq_no": seen[0], "if_primary_term": seen[1]}
    if routing is not None:
        action["routing"] = routing
    head = json.dumps({"update": action}, ensure_ascii=False)
    return Line(id_, f"{head}\n{json.dumps({'doc': change}, ensure_ascii=False)}\n".encode())


def delete_line(id_: str) -> Line:
    """The removal of one document."""
    action = json.dumps({"delete": {"_id": id_}}, ensure_ascii=False)
    return Line(id_, f"{action}\n".encode())


def check_id(id_: str) -> None:
    """Raises ConfigError for an id that the server would not take, and for our own."""
    if id_ == SELF_TEST_ID:
        raise ConfigError(f"id {id_!r} is that of the index' own self-test document: rename")
    if not is_usable(id_):
        raise ConfigError(
            f"id {id_[:40]!r}... has {len(id_.encode())} bytes, OpenSearch takes {LONGEST_ID}"
        )


def is_usable(id_: str) -> bool:
    """Whether a document of the user's can have this id."""
    fits = len(id_) <= LONGEST_ID // 4 or len(id_.encode()) <= LONGEST_ID
    return fits and id_ != SELF_TEST_ID


def batches(lines: Iterable[Line], count: int = BATCH, size: int = BATCH_BYTES) -> Iterator[Batch]:
    """Lines in groups of at most ``count`` and, unless one alone is larger, ``size`` bytes."""
    batch: Batch = []
    held = 0
    for line in lines:
        if batch and (len(batch) >= count or held + len(line.body) > size):
            yield batch
            batch, held = [], 0
        batch.append(line)
        held += len(line.body)
    if batch:
        yield batch


def send_batch(batch: Batch, post: Post, passing: Passing, patience: float) -> Report:
    """Send one batch; what a busy or lost server did not take is sent again, with growing pauses.

    Raises what ``post`` raises if it is not ``passing``, or when ``patience`` (seconds) is over.
    """
    report = Report()
    left = batch
    retry = Retry(patience, first=0.2)
    while left:
        failure: Exception | None = None
        try:
            answer = post(b"".join(line.body for line in left))
            left, again = _read(answer, left, report)
            if again:
                failure = ServerFailure(f"the server is busy: {again}", 429, again)
        except Exception as error:
            if not passing(error):
                raise
            failure = error
        if failure is not None and not retry.wait():
            raise failure
    return report


def send(
    every: Iterable[Batch],
    post: Post,
    passing: Passing,
    *,
    workers: int = 2,
    patience: float = 90.0,
    done: Callable[[Batch, Report], None] | None = None,
) -> Report:
    """Send all batches, ``workers`` at a time, never holding more than twice as many.

    ``done`` is told of each batch that the server has taken, in this thread.
    """
    total = Report()
    waiting: dict[Future[Report], Batch] = {}

    def collect(some: Iterable[Future[Report]]) -> None:
        for one in some:
            batch = waiting.pop(one)
            report = one.result()
            total.take(report)
            if done is not None:
                done(batch, report)

    with ThreadPoolExecutor(workers, thread_name_prefix="xmodal-bulk") as pool:
        try:
            for batch in every:
                waiting[pool.submit(send_batch, batch, post, passing, patience)] = batch
                if len(waiting) >= 2 * workers:
                    collect(wait(waiting, return_when=FIRST_COMPLETED).done)
            collect(list(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def _read(answer: Mapping[str, Any], sent: Batch, report: Report) -> tuple[Batch, str]:
    """Note what the server says of each line; the lines to send again, and why."""
    again: Batch = []
    why = ""
    for line, item in zip(sent, answer["items"], strict=True):
        (told,) = item.values()
        if status_of(told["status"], told) in PASSING:
            again.append(line)
            why = reason_of(told) or "busy"
        elif "error" in told:
            report.failed[line.id] = reason_of(told) or str(told["error"])
        else:
            report.results[told["result"]] += 1
    return again, why


# One encoder for all documents: json.dumps makes a new one each time, which loading would notice.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_quoted = json.encoder.encode_basestring
_AS_THEY_ARE = frozenset((str, int, bool, type(None)))
_OURS = frozenset(OURS)


def _check_names(id_: str, fields: Mapping[str, Any]) -> None:
    """Raises ConfigError if a field's name is ours, or with dots lies in what is."""
    taken = next((name for name in fields if is_ours(str(name))), None)
    if taken is not None:
        raise ConfigError(f"the fields of {id_!r} have one called {taken!r}, which is ours: rename")


def _code_text(value: Any) -> str:
    """The JSON of a code as a layout holds it; Python writes lists of integers as JSON does."""
    if isinstance(value, list):
        return str(value).replace(" ", "")
    return json.dumps(value, separators=(",", ":"))


def _as_said(value: Any) -> Any:
    """Whole floats as integers: as keywords 10.0 and 10 must be one value, as everywhere."""
    if isinstance(value, str | int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_as_said(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _as_said(one) for name, one in value.items()}
    return value
