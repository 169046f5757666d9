"""Addresses of pictures: parsed once, and never printed with their secrets."""

from __future__ import annotations

import pytest

from xmodal.errors import DataError
from xmodal.web.address import parse_web_address, without_secrets


@pytest.mark.parametrize(
    ("text", "without_user", "user"),
    [
        ("HTTP://A.example", "http://a.example/", None),
        ("https://a.example:443/x?y=1#z", "https://a.example/x?y=1", None),
        ("http://a.example:8080/Bär #.png", "http://a.example:8080/B%C3%A4r%20", None),
        ("http://a.example/%C3%A4 b\n.png", "http://a.example/%C3%A4%20b.png", None),
        ("http://Jo%40x:p%3Aw@[::1]:81/a", "http://[::1]:81/a", "Jo@x:p:w"),
        ("http://jo@a.example", "http://a.example/", "jo:"),
        ("http://a.example\\@b.example/", "http://b.example/", "a.example\\:"),
        ("http://a@b@c.example/", "http://c.example/", "a@b:"),
    ],
)
def test_parsed_addresses(text: str, without_user: str, user: str | None) -> None:
    address = parse_web_address(text)
    assert (address.without_user(), address.user) == (without_user, user)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://a.example/secret", "another scheme"),
        ("file:///etc/secret", "no valid host"),
        ("http://", "no valid host"),
        ("http:///secret", "no valid host"),
        ("http://a.example:0/secret", "port 0"),
        ("http://a.example:70000/secret", "not valid"),
        ("http://user:secret@a.example:port/", "not valid"),
        ("http://user:sec/ret@a.example/", "not valid"),
        ("http://[::1/secret", "not valid"),
        ("http://127.1/secret", "is a number"),
    ],
)
def test_invalid_addresses(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        parse_web_address(text)
    assert "sec" not in str(raised.value)


def test_redirects_are_parsed_without_the_first_user() -> None:
    address = parse_web_address("https://jo:pw@a.example/b/c?d")
    assert address.join("../e").without_user() == "https://a.example/e"
    assert address.join("//127.0.0.1/e").host == "127.0.0.1"
    assert address.join("e").user is None
    with pytest.raises(DataError):
        address.join("http://[::1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://a.example/b.png?token=secret#secret", "https://a.example/b.png"),
        ("https://jo:secret@a.example/b.png", "https://***@a.example/b.png"),
        ("https://jo:sec/ret@a.example/b?secret", "https://***@a.example/b"),
        ("https://jo:se?cr#et@a.example/b", "https://***@a.example/b"),
        ("jo:secret@a.example", "***@a.example"),
        ("https://jo:sec\nret@a.example/b", "https://***@a.example/b"),
    ],
)
def test_addresses_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
