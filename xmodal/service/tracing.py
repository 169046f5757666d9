"""OpenTelemetry spans of requests, searches and encoding (extra ``otel``).

Nothing is traced before :func:`enable`. The exporter, its address, the sampler and the name of the
service are chosen by the standard ``OTEL_*`` environment variables. A span has no query text, no
document id and no secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Scope

from xmodal import __version__
from xmodal.errors import ConfigError

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

EXPORTERS = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
SERVER_ERROR = 500

_tracer: Any = None


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def end(self, route: str, status: int) -> None:
        """Set the name and the attributes that are known after the response."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.update_name(f"{self._span.attributes['http.request.method']} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)


def enable() -> Callable[[], None]:
    """Trace from now on; returns a function that sends the last spans and ends tracing.

    Raises ConfigError for an exporter that is not installed.
    """
    global _tracer
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.version": __version__})
    if resource.attributes[SERVICE_NAME] == "unknown_service":
        resource = resource.merge(Resource({SERVICE_NAME: "xmodal"}))
    provider = TracerProvider(resource=resource)
    for name in _exporter_names(os.environ):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    _tracer = provider.get_tracer("xmodal", __version__)

    def disable() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return disable


def span(name: str) -> AbstractContextManager[Any]:
    """A context that is measured as a span, below the span of the request."""
    return nullcontext() if _tracer is None else _tracer.start_as_current_span(name)


def traced(encoder: Encoder) -> Encoder:
    """``encoder`` whose methods encode... are measured as spans, if tracing is on."""
    return encoder if _tracer is None else cast("Encoder", _TracedEncoder(encoder))


class _TracedEncoder:
    """An encoder whose methods encode... are measured as spans."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._encoder, name)
        if not (name.startswith("encode") and callable(value)):
            return value

        def measured(*arguments: Any, **options: Any) -> Any:
            with span("encode"):
                return value(*arguments, **options)

        return measured


@contextmanager
def request_span(scope: Scope, request_id: str) -> Iterator[RequestSpan]:
    """A context that is measured as the span of a request; continues the client's trace."""
    if _tracer is None:
        yield RequestSpan()
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    attributes = {
        "http.request.method": scope["method"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        "http.request.header.x-request-id": request_id,
    }
    with _tracer.start_as_current_span(
        scope["method"],
        context=extract(carrier),
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,  # the message of an error can have parts of the query
        set_status_on_exception=False,
    ) as started:
        yield RequestSpan(started)


def _exporter_names(environment: Mapping[str, str]) -> list[str]:
    """The exporters that the environment names, without ``none``."""
    names = [name.strip() for name in environment.get(EXPORTERS, "otlp").split(",")]
    protocols = [environment[name] for name in PROTOCOLS if environment.get(name)]
    protocol = protocols[0] if protocols else "http/protobuf"
    if "otlp" in names and protocol not in OTLP:
        raise ConfigError(f"{PROTOCOLS[1]} is {protocol!r}, expected one of {', '.join(OTLP)}")
    return [
        OTLP[protocol] if name == "otlp" else name for name in names if name not in ("", "none")
    ]


def _exporter(name: str) -> Any:
    for entry in entry_points(group="opentelemetry_traces_exporter", name=name):
        return entry.load()()
    raise ConfigError(
        f"{EXPORTERS}: the exporter {name!r} is not installed: pip install its package, "
        "or set otlp, console or none"
    )
