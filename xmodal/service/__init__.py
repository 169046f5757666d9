"""The HTTP service: search by words, by pictures and by documents, for whoever has no Python.

app.py         create_app(encoder, index, settings): the routes
openapi.json   what they take and give; requests are checked against it
asking.py      a request's body -> a question, or a refusal
searching.py   questions -> hits
following.py   a local index that is saved anew is taken in
batching.py    calls that wait together are made together
pictures.py    thumbnails of what was found
guard.py       hosts, token, load, headers: what every request passes
meters.py      figures for Prometheus
problems.py    errors as problem JSON
server.py      the process: listening, slow senders, a graceful stop
page/          the search page
"""

from xmodal.service.app import create_app
from xmodal.service.settings import Settings

__all__ = ["Settings", "create_app"]
