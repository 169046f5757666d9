"""Requests to one OpenSearch cluster; the only module that uses opensearch-py.

A request is retried, with growing pauses for up to ``retry_timeout`` seconds, while a node is
overloaded, lost or starting, and while shards are missing from the answer (``check_complete``).
Other failures are raised at once. All errors are errors of xmodal with a message of one line.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from opensearchpy import OpenSearch, Urllib3AWSV4SignerAuth, Urllib3HttpConnection, exceptions

from xmodal.errors import ConfigError, ExtraMissing, ServerFailure
from xmodal_opensearch.client.address import Address, credentials
from xmodal_opensearch.client.errors import (
    RETRY_STATUSES,
    is_broken_off,
    reason_of,
    status_of,
    to_xmodal_error,
)
from xmodal_opensearch.client.retry import Retry

RETRY_TIMEOUT = 90.0  # seconds
Body = Mapping[str, Any] | bytes | None
T = TypeVar("T")

TIME_LIMIT_HINT = (
    "the server's time limit for searches was exceeded: raise search.default_search_timeout, or "
    "search when the server is less busy"
)
NO_ACTIVE_COPY = "they have no active copy, see GET /_cat/shards"
CREDENTIAL = re.compile(r'"credential"\s*:\s*\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}')

DEPRECATIONS = logging.getLogger("opensearch.deprecation")
"""Logger of the ``Warning`` headers of servers."""


class _RedactCredentials(logging.Filter):
    """Removes the embedding service's token, which is part of a connector's body, from logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                CREDENTIAL.sub('"credential": "not logged"', arg) if isinstance(arg, str) else arg
                for arg in record.args
            )
        return True


# opensearch-py logs failures that are retried here; without a handler Python would print them.
logging.getLogger("opensearch").addHandler(logging.NullHandler())
for _name in ("opensearch", "opensearchpy.trace"):
    logging.getLogger(_name).addFilter(_RedactCredentials())


class _Connection(Urllib3HttpConnection):
    """Connection that logs the ``Warning`` headers of a server.

    opensearch-py makes Python warnings of them. A server sends them for what it deprecates, which
    differs between versions, and also for settings of the user's indexes.
    """

    def _raise_warnings(self, warning_headers: Any) -> None:
        for header in warning_headers or ():
            DEPRECATIONS.info("%s", header)


class Server:
    """A connection to one cluster.

    ``retry_timeout``: seconds for which a request is retried. ``workers``: the number of threads
    that send requests at the same time. Raises ServerFailure, without retries, if no OpenSearch
    server answers at ``address``; ``info`` is the server's answer to ``GET /``.
    """

    def __init__(
        self, address: Address, *, retry_timeout: float = RETRY_TIMEOUT, workers: int = 4
    ) -> None:
        self.address = address
        self.retry_timeout = retry_timeout
        self._client = OpenSearch(
            hosts=[{"host": host.strip("[]"), "port": port} for host, port in address.hosts],
            use_ssl=address.tls,
            verify_certs=True,
            ca_certs=address.ca,
            client_cert=address.cert,
            client_key=address.key,
            http_auth=_aws_signer(address) if address.aws else None,
            headers=None if address.aws else _basic_auth_headers(),
            pool_maxsize=workers,
            max_retries=len(address.hosts) - 1,  # each host once; _with_retries adds pauses
            retry_on_status=(),
            retry_on_timeout=False,
            connection_class=_Connection,
        )
        try:
            self.info: dict[str, Any] = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> dict[str, Any]:
        """Return the server's description. Raises ServerFailure if it is not OpenSearch."""
        info: Any = self.request("GET", "/", doing="connecting", retry_timeout=0)
        version = info.get("version") if isinstance(info, dict) else None
        if not isinstance(version, dict) or version.get("distribution") != "opensearch":
            product = version if isinstance(version, dict) else {}
            name = product.get("distribution") or "Elasticsearch or something else"
            raise ServerFailure(
                f"{self.address.server} is {name} {product.get('number', '')}".rstrip()
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
        retry_timeout: float | None = None,
        timeout: float = 60,
        **params: Any,
    ) -> Any:
        """Send one request, with retries, and return the decoded answer.

        ``doing``: the operation, for error messages ("searching"). ``timeout``: seconds to wait for
        each answer. ``params``: the parameters of the URL. Raises IndexMissing or ServerFailure.
        """

        def send() -> Any:
            answer = self._send(method, path, body, timeout, params)
            check_complete(answer)
            return answer

        return self._with_retries(
            send, doing, self.retry_timeout if retry_timeout is None else retry_timeout
        )

    def search(self, path: str, body: Mapping[str, Any], *, doing: str, **params: Any) -> Any:
        """Send one search; ``path`` is ``/INDEX/_search``, or ``/_search`` for a point in time."""
        return self.request("POST", path, body, doing=doing, **params)

    def search_many(
        self,
        index: str,
        bodies: Sequence[Mapping[str, Any]],
        *,
        doing: str,
        kind: str | None = None,
    ) -> Any:
        """Send several searches in one request; return the list of their answers.

        ``kind``: parameter ``search_type`` of the server.
        """
        params = {} if kind is None else {"search_type": kind}
        if len(bodies) == 1:
            return [self.search(f"/{index}/_search", bodies[0], doing=doing, **params)]
        lines = b"".join(b"{}\n" + json.dumps(body).encode() + b"\n" for body in bodies)

        def send() -> Any:
            answer = self._send("POST", f"/{index}/_msearch", lines, 120, params)
            for response in answer["responses"]:
                if "error" in response:
                    status = int(response.get("status", 0))
                    info = {"error": response["error"]}
                    raise exceptions.TransportError(status, "msearch", info)
                check_complete(response)
            return answer["responses"]

        return self._with_retries(send, doing, self.retry_timeout)

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Return the number of matching documents.

        The request is a search, because an answer of ``_count`` does not report a time limit.
        """
        body = {"size": 0, "query": query, "track_total_hits": True}
        answer = self.search(f"/{index}/_search", body, doing="counting")
        return int(answer["hits"]["total"]["value"])

    def bulk(
        self, index: str, body: bytes, timeout: float = 60, *, skip_pipeline: bool = False
    ) -> Any:
        """Send one bulk request without retries; ``bulk.send_batch`` retries single lines.

        The answer is restricted to the result, status and error of each line. ``skip_pipeline``:
        do not run the default ingest pipeline of the index. Raises ServerFailure.
        """
        params = {"filter_path": "errors,items.*.result,items.*.status,items.*.error"}
        if skip_pipeline:
            params["pipeline"] = "_none"
        try:
            return self._send("POST", f"/{index}/_bulk", body, timeout, params)
        except exceptions.OpenSearchException as error:
            raise to_xmodal_error(error, self.address.server, "storing documents") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, body: Body, timeout: float, params: Any = None) -> Any:
        """Send one request. The path is quoted here, because an AWS signature covers it."""
        return self._client.transport.perform_request(
            method, quote(path, safe="/*,"), params=params or None, body=body, timeout=timeout
        )

    def _with_retries(self, send: Callable[[], T], doing: str, retry_timeout: float) -> T:
        retry = Retry(retry_timeout)
        while True:
            try:
                return send()
            except SearchTimedOut:
                raise ServerFailure(
                    f"{self.address.server}: the answer was cut short while {doing}: "
                    + TIME_LIMIT_HINT,
                    0,
                    "time limit",
                ) from None
            except (exceptions.OpenSearchException, IncompleteAnswer) as error:
                if is_retryable(error) and retry.wait():
                    continue
                if isinstance(error, IncompleteAnswer):
                    raise ServerFailure(
                        f"{self.address.server}: {error.missing} while {doing}: {error.reason}",
                        503,
                        error.reason,
                    ) from None
                raise to_xmodal_error(error, self.address.server, doing) from error


class IncompleteAnswer(Exception):
    """An answer with status 200 lacks a part of the index."""

    def __init__(self, missing: str, reason: str) -> None:
        super().__init__(missing, reason)
        self.missing, self.reason = missing, reason


class SearchTimedOut(Exception):
    """A search exceeded the server's time limit, so that its answer is incomplete."""


def check_complete(answer: Any) -> None:
    """Check that a decoded answer covers the whole index.

    Covers searches, each search of an ``_msearch``, points in time and ``_mget``. Raises
    SearchTimedOut for an answer that a time limit cut short (a repetition would be cut short too)
    and IncompleteAnswer for failed shards, shards without an active copy and unread documents.
    """
    if not isinstance(answer, dict):
        return
    # "terminated_early" is not checked: with size 0 a complete aggregation has it.
    if answer.get("timed_out"):
        raise SearchTimedOut
    shards = answer.get("_shards") or {}
    if shards.get("failed"):
        reason = reason_of({"failed_shards": shards.get("failures")}) or "no reason given"
        raise IncompleteAnswer(f"{shards['failed']} shards failed", reason)
    # A shard without an active copy is counted neither as successful nor as failed.
    missing = shards.get("total", 0) - shards.get("successful", 0)
    if missing > 0 and ("hits" in answer or "pit_id" in answer):
        raise IncompleteAnswer(
            f"{missing} of {shards['total']} shards did not answer", NO_ACTIVE_COPY
        )
    for document in answer.get("docs") or ():
        if "error" in document and "_id" in document:
            raise IncompleteAnswer(
                f"document {document['_id']!r} was not read", reason_of(document)
            )


def is_retryable(error: BaseException) -> bool:
    """Whether a repetition of the same request may succeed."""
    if isinstance(error, IncompleteAnswer):
        return True
    if isinstance(error, ServerFailure):
        return error.status in RETRY_STATUSES or error.reason in ("connection", "timeout")
    if isinstance(error, exceptions.SSLError):
        return is_broken_off(error)
    if isinstance(error, exceptions.ConnectionError):
        return True
    if not isinstance(error, exceptions.TransportError):
        return False
    return status_of(error.status_code, error.info) in RETRY_STATUSES


def _basic_auth_headers() -> dict[str, str] | None:
    """Return the header with user and password in UTF-8 (opensearch-py encodes in Latin-1)."""
    user = credentials()
    if user is None:
        return None
    return {"authorization": "Basic " + b64encode(":".join(user).encode()).decode()}


def _aws_signer(address: Address) -> Any:
    """Return the signer of requests, with the credentials that boto3 finds on this machine."""
    try:
        import boto3
    except ImportError:
        raise ExtraMissing("signing requests for AWS", "aws") from None
    aws_credentials = boto3.Session().get_credentials()
    if aws_credentials is None:
        raise ConfigError(
            f"{address}: aws={address.aws} needs AWS credentials, and boto3 found none: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    return Urllib3AWSV4SignerAuth(aws_credentials, address.aws, address.service)
