"""HTTP API: text, image and more-like-this search, encoding, and a search page.

app.py         create_app(encoder, index, settings): the ASGI application
routes/        request handlers by subject: search, encoding, documents, operations
bodies.py      pydantic models of request bodies
conditions.py  pydantic models of filters
results.py     pydantic models of responses
parameters.py  query parameters
description.py the OpenAPI description, generated from routes and models
backend.py     encoder, index and thread pools, which the handlers share
reading.py     reads, parses and validates request bodies
validation.py  the first error of a validation as one line
compression.py gzip of requests and responses
json_response.py  JSON responses, ETags
image_input.py images in requests
input_threads.py  threads for bodies and pictures, apart by size
batching.py    micro-batching
downloads.py   pictures named by an address, of allowed hosts
reload.py      reloads a local index that another process saved
thumbnails.py  JPEG thumbnails of the documents' images
middleware.py  access, admission, limits of bodies, response headers, metrics of requests
tokens.py      bearer tokens, roles, token files
admission.py   requests in progress, in total and by client
headers.py     headers of every response
request_log.py structured logs
tracing.py     OpenTelemetry spans
metrics.py     Prometheus metrics
errors.py      error responses (problem JSON)
server.py      the server process: sockets, limits of connections, graceful shutdown
connection.py  one connection: limits of time, rate and parsing
tls.py         certificate and key
settings.py    limits of one service
page/          the search page
"""

from xmodal.service.app import create_app
from xmodal.service.settings import Settings

__all__ = ["Settings", "create_app"]
