"""HTTP API: text, image and more-like-this search, encoding, and a search page.

app.py         create_app(encoder, index, settings): the ASGI application
routes.py      request handlers
schema.py      reads, parses and validates request bodies
openapi.json   the API description; request bodies are validated against it
searching.py   searches of an index, several at a time
batching.py    micro-batching
downloads.py   pictures named by an address, of allowed hosts
reload.py      reloads a local index that another process saved
thumbnails.py  JPEG thumbnails of the documents' images
middleware.py  host and token checks, load limit, response headers, metrics of requests
metrics.py     Prometheus metrics
errors.py      error responses (problem JSON)
server.py      the server process: sockets, timeouts, graceful shutdown
settings.py    limits of one service
page/          the search page
"""

from xmodal.service.app import create_app
from xmodal.service.settings import Settings

__all__ = ["Settings", "create_app"]
