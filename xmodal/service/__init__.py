"""The HTTP service: search by words, by pictures and by documents, for whoever has no Python.

app.py         create_app(encoder, index, settings): the routes
openapi.json   what they take and give; requests are checked against it
routes.py      a request's body -> a question, or a refusal
searching.py   questions -> hits
reload.py      a local index that is saved anew is taken in
batching.py    calls that wait together are made together
thumbnails.py  thumbnails of what was found
middleware.py  hosts, token, load, headers: what every request passes
metrics.py     figures for Prometheus
errors.py      errors as problem JSON
server.py      the process: listening, slow senders, a graceful stop
page/          the search page
"""

from xmodal.service.app import create_app
from xmodal.service.settings import Settings

__all__ = ["Settings", "create_app"]
