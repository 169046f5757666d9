"""Encoding of chunks by Ray Data, on the processes of one machine or of a cluster.

Where the cluster has GPUs, tasks on CPUs decode the pictures of a chunk and one process for each
GPU encodes them. Without GPUs, one process for each CPU does both, and pixels stay where they are.
Codes depend on the chunk and the encoder alone, so that a chunk whose process was killed is encoded
again with the same result. Ray transfers chunks, without pixels, and documents as Python objects.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.encoders.pipeline import Chunk, decode_chunk, encode_chunk
from xmodal.errors import ConfigError, ModelError, XmodalError, one_line, require
from xmodal.index.documents import DocumentBatch

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Variables of Ray, set unless they are: no statistics are sent, and no log on standard error."""
_AUTHENTICATED = {"RAY_AUTH_MODE": "token"}
"""The same for processes of this machine: servers of Ray listen on all of its addresses, and accept
requests with the token in the user's folder alone."""
MAX_PIXEL_BYTES = 256 * 2**20
"""Pixels of a chunk that are sent to a GPU; those of a larger one are decoded where it is."""
CONNECT_TIMEOUT = 10
"""Seconds that the head node may take for a connection."""
MAX_REASON = 300
"""Characters of the reason of a failure of Ray."""


@dataclass(frozen=True)
class Job:
    """What workers need to encode chunks.

    ``model``: folder of the encoder, readable on each worker; ``loading``: options of
    :func:`~xmodal.encoders.load.load_encoder`; ``fingerprint`` and ``preprocessing``: of the
    encoder; ``source`` and ``vectors``: see :func:`~xmodal.encoders.pipeline.encode_stream`.
    """

    model: Path
    loading: dict[str, Any]
    fingerprint: str
    preprocessing: Preprocessing | None
    source: str
    vectors: bool = True

    def decode(self, chunk: Chunk) -> Chunk:
        """Return the chunk with its pictures, unless it has none."""
        has_pictures = any(item.images for item in chunk.items)
        if chunk.pictures is not None or self.preprocessing is None or not has_pictures:
            return chunk
        return decode_chunk(chunk, self.preprocessing)

    def load(self) -> Encoder:
        """Return the encoder. Raises ModelError for another one, and the errors of loading."""
        encoder = load_encoder(self.model, **self.loading)
        if encoder.fingerprint != self.fingerprint:
            raise ModelError(
                f"{self.model} has the encoder {encoder.fingerprint}, expected {self.fingerprint} "
                "as on the machine of the command: copy the folder to each machine"
            )
        return encoder


class Encoded(NamedTuple):
    """Documents of the items of a chunk, and the unusable inputs that were found; or an error.

    ``shard``: its number; ``items``: the number of items.
    """

    shard: int
    items: int
    batch: DocumentBatch | None
    problems: Problems
    error: str | None = None


class _Worker:
    """Encodes chunks in a process of Ray, which loads the encoder once.

    Errors of the user are values: those that Ray raises have a stack trace as their message.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._encoder: Encoder | None = None
        self._error: str | None = None
        try:
            self._encoder = job.load()
        except (XmodalError, OSError) as error:
            self._error = _shown(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(row["value"], Encoded):  # an error of decoding
            return row
        shard, chunk = row["value"]
        problems = Problems()
        batch, failed = None, self._error
        if self._encoder is not None:
            try:
                batch = encode_chunk(
                    self._encoder,
                    self._job.decode(chunk),
                    source=self._job.source,
                    problems=problems,
                    vectors=self._job.vectors,
                )
            except (XmodalError, OSError) as error:
                failed = _shown(error)
        return {"value": Encoded(shard, len(chunk.items), batch, problems, failed)}


class Cluster:
    """A connection to Ray; see :func:`connected`. ``workers``: processes that encode."""

    def __init__(self, workers: int | None) -> None:
        import ray

        resources = ray.cluster_resources()
        self.gpus = int(resources.get("GPU", 0))
        self.workers = workers or self.gpus or max(1, int(resources.get("CPU", 1)))

    def put(self, shard: int, chunk: Chunk) -> Any:
        """Store a chunk of a shard, in memory or on disk; return the reference of it."""
        import pyarrow as pa
        import ray
        from ray.data.extensions import ArrowPythonObjectArray

        return ray.put(pa.table({"value": ArrowPythonObjectArray.from_objects([(shard, chunk)])}))

    def encode(self, job: Job, chunks: Sequence[Any]) -> Generator[Encoded, None, None]:
        """Yield the documents of chunks that :meth:`put` stored, in their order.

        Raises XmodalError for an error of a worker, ConfigError if Ray fails.
        """
        from ray.data import ActorPoolStrategy, from_arrow_refs

        if not chunks:
            return
        data = from_arrow_refs(list(chunks))
        if self.gpus:
            data = data.map(_decoded, fn_kwargs={"job": job}, num_cpus=1)
        data = data.map(
            _Worker,
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=self.workers),
            num_cpus=1,
            num_gpus=1 if self.gpus else 0,
        )
        with _one_line_errors():
            for row in data.iter_rows():
                found: Encoded = row["value"]
                if found.error is not None:
                    raise XmodalError(found.error)
                yield found


def _decoded(row: dict[str, Any], *, job: Job) -> dict[str, Any]:
    """Return a row with the pictures of its chunk, unless their pixels are large."""
    shard, chunk = row["value"]
    side = 0 if job.preprocessing is None else job.preprocessing.size
    if 3 * side**2 * sum(len(item.images) for item in chunk.items) > MAX_PIXEL_BYTES:
        return row
    try:
        return {"value": (shard, job.decode(chunk))}
    except (XmodalError, OSError) as error:
        return {"value": Encoded(shard, len(chunk.items), None, Problems(), _shown(error))}


def _shown(error: Exception) -> str:
    return f"a worker on {platform.node()}: {one_line(str(error))}"


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Cluster]:
    """Context with a connection to Ray at ``address``, or to processes that it starts here.

    ``workers``: processes that encode; default: the GPUs of the cluster, else its CPUs. Raises
    ExtraMissing without Ray, and ConfigError if it cannot be reached or started.
    """
    require("--engine ray", "ray")
    if address is not None:
        _check_reachable(address)
    for name, value in (_QUIET if address else _QUIET | _AUTHENTICATED).items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        cpus = max(os.cpu_count() or 1, workers or 0)
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    in_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        try:
            with _one_line_errors():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises Exception itself for a start that takes too long
            where = "here" if address is None else f"at {address}"
            raise ConfigError(f"Ray {where} cannot be used: {_reason(error)}") from None
        for number, handler in handlers.items():  # those of Ray exit at once
            signal.signal(number, handler)
        _set_up_data()
        yield Cluster(workers)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise ConfigError unless something listens at HOST:PORT; Ray tries it for ten minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"no Ray cluster at {address} ({reason}): expected HOST:PORT of its head node, or "
            "leave --address out"
        ) from None


def _set_up_data() -> None:
    """Let Ray Data keep the order, and print nothing."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise ConfigError, of one line, for the exceptions of Ray."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise ConfigError(
            f"Ray failed: {_reason(getattr(error, 'cause', None) or error)}"
        ) from None


def _reason(error: BaseException) -> str:
    """Return the last line of the message of an exception, which may have a stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:MAX_REASON]
