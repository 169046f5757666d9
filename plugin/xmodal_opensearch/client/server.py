"""Requests to one OpenSearch cluster; the only module that uses opensearch-py.

A request is retried, with growing pauses for up to ``retry_timeout`` seconds, while a node is
overloaded, lost or starting, and while shards are missing from the answer (see client/answers.py).
Failures that a repetition cannot change are raised at once, or when they repeat. All errors are
errors of xmodal with a message of one line. No search runs a search pipeline that it does not name.
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
from xmodal_opensearch.client import answers
from xmodal_opensearch.client.address import Address, credentials
from xmodal_opensearch.client.answers import IncompleteAnswer, UnusableAnswer
from xmodal_opensearch.client.certificates import answers_with_tls, tls_context
from xmodal_opensearch.client.compatibility import replace_script_score, replaces_script_score
from xmodal_opensearch.client.connection import Connection, ForeignAnswer
from xmodal_opensearch.client.errors import (
    BREAKER,
    TOO_LARGE,
    breaker_reason,
    is_broken_off,
    may_pass,
    to_xmodal_error,
)
from xmodal_opensearch.client.retry import Retry

RETRY_TIMEOUT = 90.0  # seconds
MAX_UNUSABLE = 3
"""Unusable answers of the same kind, one after the other, until a request fails."""
Body = Mapping[str, Any] | bytes | None
T = TypeVar("T")

TIME_LIMIT_HINT = (
    "the server's time limit for searches was exceeded: raise search.default_search_timeout, or "
    "search when the server is less busy"
)
NO_PIPELINE = {"search_pipeline": "_none"}
"""Part of each search: the default search pipeline of the index must not change its answer."""
CREDENTIAL = re.compile(r'"credential"\s*:\s*\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}')


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
            hosts=[
                {"host": host.strip("[]"), "port": port, "url_prefix": address.prefix}
                for host, port in address.hosts
            ],
            use_ssl=address.tls,
            ssl_context=tls_context(address) if address.tls else None,
            http_auth=_aws_signer(address) if address.aws else None,
            headers={"accept-encoding": "gzip"} | ({} if address.aws else _basic_auth_headers()),
            connection_class=Connection,
            proxy=address.proxy,
            pool_maxsize=workers,
            max_retries=len(address.hosts) - 1,  # each host once; _with_retries adds pauses
            retry_on_status=(),
            retry_on_timeout=False,
        )
        try:
            self.info: dict[str, Any] = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> dict[str, Any]:
        """Return the server's description. Raises ServerFailure if it is not OpenSearch."""
        server = self.address.server
        try:
            info: Any = self.request("GET", "/", doing="connecting", retry_timeout=0)
        except ServerFailure as error:
            is_plain = not self.address.tls and not self.address.proxy
            if (
                is_plain
                and (error.status == 400 or error.reason == "connection")
                and answers_with_tls(self.address.hosts)
            ):
                raise ServerFailure(
                    f"{server} uses TLS, and this address plain HTTP: add ?tls=yes", 0, "tls"
                ) from error
            if error.status == 404:
                raise ServerFailure(
                    f"{server} has no OpenSearch at this path (404): if a reverse proxy adds a "
                    f"path, write it before the index: {server}/PATH/INDEX",
                    404,
                    error.reason,
                ) from error
            raise
        version = info.get("version") if isinstance(info, dict) else None
        if not isinstance(version, dict) or version.get("distribution") != "opensearch":
            found = f"{server} {_product(info)}, expected OpenSearch 2.19 or 3.x"
            raise ServerFailure(found, 0, "distribution")
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
            answers.check_answer(method, path, body, answer)
            return answer

        return self._with_retries(
            send, doing, self.retry_timeout if retry_timeout is None else retry_timeout
        )

    def search(self, path: str, body: Mapping[str, Any], *, doing: str, **params: Any) -> Any:
        """Send one search; ``path`` is ``/INDEX/_search``, or ``/_search`` for a point in time."""
        return self.request("POST", path, self._complete(body), doing=doing, **params)

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
        whole = [self._complete(body) for body in bodies]
        lines = b"".join(b"{}\n" + json.dumps(body).encode() + b"\n" for body in whole)

        def send() -> Any:
            found = self._send("POST", f"/{index}/_msearch", lines, 120, params)
            found = answers.check_searches(whole, found)
            for body, one in zip(whole, found, strict=True):
                if "error" in one:
                    info = {"error": one["error"]}
                    raise exceptions.TransportError(int(one.get("status", 0)), "msearch", info)
                answers.check_search(body, one)
            return found

        try:
            return self._with_retries(send, doing, self.retry_timeout)
        except ServerFailure as error:
            if error.status != TOO_LARGE:
                raise
        middle = len(bodies) // 2
        halves = bodies[:middle], bodies[middle:]
        return [
            one for half in halves for one in self.search_many(index, half, doing=doing, kind=kind)
        ]

    def _complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a search as it is sent."""
        major, minor = (int(part) for part in self.info["version"]["number"].split(".")[:2])
        whole = NO_PIPELINE | dict(body)
        return replace_script_score(whole) if replaces_script_score((major, minor)) else whole

    def read_documents(self, index: str, ids: Sequence[str], *, doing: str, **params: Any) -> Any:
        """Return the ``docs`` of an ``_mget``, one per id, in several requests if necessary."""
        try:
            body = {"ids": list(ids)}
            return self.request("POST", f"/{index}/_mget", body, doing=doing, **params)["docs"]
        except ServerFailure as error:
            if error.status != TOO_LARGE or len(ids) < 2:
                raise
        middle = len(ids) // 2
        return [
            document
            for half in (ids[:middle], ids[middle:])
            for document in self.read_documents(index, half, doing=doing, **params)
        ]

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Return the number of matching documents.

        The request is a search, because an answer of ``_count`` does not report a time limit.
        """
        body = {"size": 0, "query": query, "track_total_hits": True}
        answer = self.search(f"/{index}/_search", body, doing="counting")
        return int(answer["hits"]["total"]["value"])

    def bulk(
        self,
        index: str,
        body: bytes,
        timeout: float = 60,
        *,
        skip_pipeline: bool = False,
        is_alias: bool = False,
    ) -> Any:
        """Send one bulk request without retries; ``bulk.send_batch`` retries single lines.

        The answer is restricted to the id, result, status and error of each line.
        ``skip_pipeline``: do not run the default ingest pipeline of the index. ``is_alias``:
        ``index`` is an alias, and the server refuses the request if it is not; without, the server
        creates a missing index. Raises ServerFailure.
        """
        shown = ("_id", "result", "status", "error")
        params = {"filter_path": ",".join(["errors", *(f"items.*.{name}" for name in shown)])}
        if skip_pipeline:
            params["pipeline"] = "_none"
        if is_alias:
            params["require_alias"] = "true"
        doing = "storing documents"
        try:
            return self._send("POST", f"/{index}/_bulk", body, timeout, params)
        except (exceptions.OpenSearchException, UnusableAnswer) as error:
            raise self._to_failure(error, doing) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, body: Body, timeout: float, params: Any = None) -> Any:
        """Send one request. The path is quoted here, because an AWS signature covers it."""
        try:
            return self._client.transport.perform_request(
                method, quote(path, safe="/*,"), params=params or None, body=body, timeout=timeout
            )
        except exceptions.SerializationError as error:
            raise UnusableAnswer(f"it is not JSON: {error}") from None
        except exceptions.ConnectionError as error:
            if isinstance(error.info, ForeignAnswer):
                raise UnusableAnswer(str(error.info)) from None
            raise

    def _with_retries(self, send: Callable[[], T], doing: str, retry_timeout: float) -> T:
        retry = Retry(retry_timeout)
        while True:
            try:
                return send()
            except (
                exceptions.OpenSearchException,
                IncompleteAnswer,
                UnusableAnswer,
                answers.SearchTimedOut,
                answers.SearchEndedEarly,
            ) as error:
                if is_retryable(error) and not is_repeated(error, retry) and retry.wait():
                    continue
                raise self._to_failure(error, doing) from error

    def _to_failure(self, error: Exception, doing: str) -> Exception:
        """Return the error of xmodal for a failed request."""
        server = self.address.server
        if isinstance(error, answers.SearchTimedOut):
            text = f"{server}: the answer was cut short while {doing}: {TIME_LIMIT_HINT}"
            return ServerFailure(text, 0, "time limit")
        if isinstance(error, answers.SearchEndedEarly):
            text = f"{server} ended a search early while {doing}, expected all documents"
            return ServerFailure(text, 0, "terminated early")
        if isinstance(error, IncompleteAnswer):
            text = f"{server}: {error.missing} while {doing}: {error.reason}"
            return ServerFailure(text, 503, error.reason)
        if isinstance(error, UnusableAnswer):
            return ServerFailure(
                f"{server} gave an unusable answer while {doing} ({error}), expected one of "
                "OpenSearch: check the address, and proxies in front of the server",
                0,
                "answer",
            )
        return to_xmodal_error(error, server, doing)


def is_repeated(error: Exception, retry: Retry) -> bool:
    """Return whether a retryable error came so often in a row that it will not pass.

    A circuit breaker that counts the same bytes twice counts those of this request alone.
    """
    text, allowed = breaker_reason(getattr(error, "info", None)), 1
    if isinstance(error, ServerFailure):
        text = error.reason if BREAKER in error.reason else ""
    if is_unusable(error):
        text, allowed = str(error), MAX_UNUSABLE - 1
    return retry.count_repetitions(text) >= allowed and text != ""


def is_unusable(error: Exception) -> bool:
    """Return whether an error is that of an answer of another kind."""
    if isinstance(error, ServerFailure):
        return error.reason == "answer"
    return isinstance(error, UnusableAnswer)


def is_retryable(error: BaseException) -> bool:
    """Whether a repetition of the same request may succeed."""
    if isinstance(error, IncompleteAnswer):
        return not error.is_final
    if isinstance(error, UnusableAnswer):
        return True
    if isinstance(error, ServerFailure):
        return may_pass(error.status, None) or error.reason in ("connection", "timeout", "answer")
    if isinstance(error, exceptions.SSLError):
        return is_broken_off(error)
    if isinstance(error, exceptions.ConnectionError):
        return True
    if not isinstance(error, exceptions.TransportError):
        return False
    return may_pass(error.status_code, error.info)


def _product(info: Any) -> str:
    """Return what a server is that does not call itself OpenSearch."""
    found = info if isinstance(info, dict) else {}
    version, tagline = found.get("version"), str(found.get("tagline"))
    number = str(version.get("number", "")) if isinstance(version, dict) else ""
    if "OpenSearch" in tagline:
        setting = "compatibility.override_main_response_version"
        return f"calls itself {number} because of {setting}: set it to false"
    name = "Elasticsearch" if "Know, for Search" in tagline else "something else"
    return f"is {name} {number}".rstrip()


def _basic_auth_headers() -> dict[str, str]:
    """Return the header with user and password in UTF-8 (opensearch-py encodes in Latin-1)."""
    user = credentials()
    if user is None:
        return {}
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
    return Urllib3AWSV4SignerAuth(aws_credentials, address.aws, "es")
