"""One server: the only module that holds a client. Every answer is checked, every request patient.

A request that fails because a node is busy, lost or starting is asked again with growing pauses, up
to ``patience`` seconds; so is a request whose answer is not whole (see ``check_whole``). What still
fails is one of xmodal's errors in one line.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from opensearchpy import OpenSearch, Urllib3AWSV4SignerAuth, exceptions

from xmodal.errors import ConfigError, ExtraMissing, ServerFailure
from xmodal_opensearch.client.address import Address, credentials
from xmodal_opensearch.client.errors import PASSING, is_broken_off, reason_of, status_of, translated
from xmodal_opensearch.client.retry import Retry

PATIENCE = 90.0
Body = Mapping[str, Any] | bytes | None
T = TypeVar("T")

CUT_SHORT = (
    "the server's time limit for a search has passed: raise search.default_search_timeout, or try "
    "again when the server is less busy"
)
NO_COPY = "no active copy of them: see GET /_cat/shards"
CREDENTIAL = re.compile(r'"credential"\s*:\s*\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}')


class _Discreet(logging.Filter):
    """Keeps back the service's token, which a connector's body has, whoever logs bodies."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                CREDENTIAL.sub('"credential": "not logged"', one) if isinstance(one, str) else one
                for one in record.args
            )
        return True


# The client logs each failure that we mend or report; without a handler Python would print it.
logging.getLogger("opensearch").addHandler(logging.NullHandler())
for _name in ("opensearch", "opensearchpy.trace"):
    logging.getLogger(_name).addFilter(_Discreet())


class Server:
    """Requests to one cluster. Raises ServerFailure at once if nobody answers at ``address``."""

    def __init__(self, address: Address, *, patience: float = PATIENCE, workers: int = 4) -> None:
        self.address = address
        self.patience = patience
        self._client = OpenSearch(
            hosts=[{"host": host.strip("[]"), "port": port} for host, port in address.hosts],
            use_ssl=address.tls,
            verify_certs=True,
            ca_certs=address.ca,
            client_cert=address.cert,
            client_key=address.key,
            http_auth=_signature(address) if address.aws else None,
            headers=None if address.aws else _basic(),
            pool_maxsize=workers,
            max_retries=len(address.hosts) - 1,  # each host once; pauses between rounds are ours
            retry_on_status=(),
            retry_on_timeout=False,
        )
        try:
            self.info: dict[str, Any] = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> dict[str, Any]:
        """What the server says of itself. Raises ServerFailure if it is no OpenSearch."""
        info: Any = self.request("GET", "/", doing="connecting", patience=0)
        version = info.get("version") if isinstance(info, dict) else None
        if not isinstance(version, dict) or version.get("distribution") != "opensearch":
            known = version if isinstance(version, dict) else {}
            name = known.get("distribution") or "Elasticsearch or something else"
            raise ServerFailure(
                f"{self.address.server} is {name} {known.get('number', '')}".rstrip()
                + ", expected OpenSearch 2.19 or 3.x",
                0,
                "distribution",
            )
        return dict(info)

    def request(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        doing: str,
        patience: float | None = None,
        timeout: float = 60,
        **params: Any,
    ) -> Any:
        """One request, asked again while the server is busy or away; the decoded answer."""

        def once() -> Any:
            answer = self._send(method, path, body, timeout, params)
            check_whole(answer)
            return answer

        return self._patiently(once, doing, self.patience if patience is None else patience)

    def search(self, path: str, body: Mapping[str, Any], *, doing: str, **params: Any) -> Any:
        """One search; ``path`` begins with the index, or is only ``/_search`` with a PIT."""
        return self.request("POST", path, body, doing=doing, **params)

    def search_many(self, index: str, bodies: Sequence[Mapping[str, Any]], *, doing: str) -> Any:
        """Several searches in one request: a list of answers."""
        if len(bodies) == 1:
            return [self.search(f"/{index}/_search", bodies[0], doing=doing)]
        lines = b"".join(b"{}\n" + json.dumps(body).encode() + b"\n" for body in bodies)

        def once() -> Any:
            answer = self._send("POST", f"/{index}/_msearch", lines, 120)
            for one in answer["responses"]:
                if "error" in one:
                    status = int(one.get("status", 0))
                    raise exceptions.TransportError(status, "msearch", {"error": one["error"]})
                check_whole(one)
            return answer["responses"]

        return self._patiently(once, doing, self.patience)

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """The number of documents that match, as a search: ``_count`` hides that it timed out."""
        body = {"size": 0, "query": query, "track_total_hits": True}
        answer = self.search(f"/{index}/_search", body, doing="counting")
        return int(answer["hits"]["total"]["value"])

    def bulk(
        self, index: str, body: bytes, timeout: float = 60, *, past_pipeline: bool = False
    ) -> Any:
        """One bulk request, tried once: the sender decides what of it to send again.

        The answer has result, status and error of each line and nothing else: in full it would be
        as long as the body. ``past_pipeline``: the default pipeline of the index is not asked.
        """
        params = {"filter_path": "errors,items.*.result,items.*.status,items.*.error"}
        if past_pipeline:
            params["pipeline"] = "_none"
        try:
            return self._send("POST", f"/{index}/_bulk", body, timeout, params)
        except exceptions.OpenSearchException as error:
            raise translated(error, self.address.server, "storing documents") from error

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _send(self, method: str, path: str, body: Body, timeout: float, params: Any = None) -> Any:
        """One request. The path is quoted here: a signature must see it as the server will."""
        return self._client.transport.perform_request(
            method, quote(path, safe="/*,"), params=params or None, body=body, timeout=timeout
        )

    def _patiently(self, once: Callable[[], T], doing: str, patience: float) -> T:
        retry = Retry(patience)
        while True:
            try:
                return once()
            except (exceptions.OpenSearchException, Incomplete) as error:
                if not passing(error) or not retry.wait():
                    if isinstance(error, Incomplete):
                        raise ServerFailure(
                            f"{self.address.server}: {error.what} while {doing}: {error.reason}",
                            503,
                            error.reason,
                        ) from None
                    raise translated(error, self.address.server, doing) from error


class Incomplete(Exception):
    """A part of the index is missing from an answer, though its status is 200."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason


def check_whole(answer: Any) -> None:
    """Raises Incomplete if a part of the index is missing from a decoded answer.

    Covers searches, each search of an ``_msearch``, points in time and ``_mget``.
    """
    if not isinstance(answer, dict):
        return
    shards = answer.get("_shards") or {}
    if shards.get("failed"):
        reason = reason_of({"failed_shards": shards.get("failures")}) or "no reason given"
        raise Incomplete(f"{shards['failed']} shards failed", reason)
    # "terminated_early" is no sign: with size 0 a complete aggregation has it.
    if answer.get("timed_out"):
        raise Incomplete("the answer was cut short", CUT_SHORT)
    # A shard without an active copy counts neither as successful nor as failed.
    away = shards.get("total", 0) - shards.get("successful", 0)
    if away > 0 and ("hits" in answer or "pit_id" in answer):
        raise Incomplete(f"{away} of {shards['total']} shards did not answer", NO_COPY)
    for one in answer.get("docs") or ():
        if "error" in one and "_id" in one:
            raise Incomplete(f"document {one['_id']!r} was not read", reason_of(one))


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, Incomplete):
        return True
    if isinstance(error, ServerFailure):
        return error.status in PASSING or error.reason in ("connection", "timeout")
    if isinstance(error, exceptions.SSLError):
        return is_broken_off(error)
    if isinstance(error, exceptions.ConnectionError):
        return True
    if not isinstance(error, exceptions.TransportError):
        return False
    return status_of(error.status_code, error.info) in PASSING


def _basic() -> dict[str, str] | None:
    """The header of user and password; made here, for the client would write it in Latin-1."""
    found = credentials()
    if found is None:
        return None
    return {"authorization": "Basic " + b64encode(":".join(found).encode()).decode()}


def _signature(address: Address) -> Any:
    """Signs requests with the credentials that AWS' own tools find on this machine."""
    try:
        import boto3
    except ImportError:
        raise ExtraMissing("signing requests for AWS", "aws") from None
    found = boto3.Session().get_credentials()
    if found is None:
        raise ConfigError(
            f"{address}: aws={address.aws} asks for signed requests, and AWS' own tools find no "
            "credentials here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    return Urllib3AWSV4SignerAuth(found, address.aws, address.service)
