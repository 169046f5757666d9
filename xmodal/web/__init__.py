"""Guarded requests to other hosts.

address.py        parsing of http and https addresses
allowed_hosts.py  which hosts and ports may be requested
failures.py       requests without a complete answer, and their reasons
guarded_get.py    one request, limited in time and size
fetch.py          a request with its redirects
"""
