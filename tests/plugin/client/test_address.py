"""Addresses: options, errors of one line, and no secrets in addresses or errors."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from xmodal.errors import ConfigError
from xmodal_opensearch.client.address import Address, credentials, parse_address

LOCAL = "opensearch://localhost:9200/photos"
SECRET = "s3cr-t"


def test_address_of_the_local_machine_has_plain_http_and_defaults() -> None:
    assert parse_address(LOCAL) == Address((("localhost", 9200),), "photos")


def test_parse_address_reads_every_option(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    files = "&".join(f"{name}={tmp_path / name}" for name in ("ca", "cert", "key"))
    options = "strategy=knn&tls=yes&aws=eu-west-1&service=es&shards=3&replicas=0&natives=yes"
    options += "&proxy=http://proxy.example:3128"
    assert parse_address(f"opensearch://a.example,b.example:9201/p?{options}&{files}") == Address(
        (("a.example", 443), ("b.example", 9201)),
        "p",
        strategy="knn",
        tls=True,
        ca=str(tmp_path / "ca"),
        cert=str(tmp_path / "cert"),
        key=str(tmp_path / "key"),
        aws="eu-west-1",
        proxy="http://proxy.example:3128",
        shards=3,
        replicas=0,
        natives=True,
    )


@pytest.mark.parametrize(
    ("hosts", "tls"),
    [
        ("localhost", False),
        ("127.0.0.1:9201", False),
        ("[::1]:9200", False),
        ("localhost,127.0.0.1:9201", False),
        ("search.example.org", True),
        ("10.0.0.1:9200", True),
        ("localhost,search.example.org", True),  # one other host is enough
        ("localhost.example.org", True),
    ],
)
def test_tls_is_the_default_for_other_hosts(hosts: str, tls: bool) -> None:
    assert parse_address(f"opensearch://{hosts}/photos").tls is tls
    assert parse_address(f"opensearch://{hosts}/photos?tls=yes").tls is True
    assert parse_address(f"opensearch://{hosts}/photos?tls=no").tls is False


def test_way_is_a_former_name_of_strategy() -> None:
    assert parse_address(f"{LOCAL}?way=knn").strategy == "knn"
    assert parse_address(f"{LOCAL}?way=knn&strategy=script").strategy == "script"


@pytest.mark.parametrize("option", ["ca", "cert", "aws"])
def test_tls_is_the_default_with_options_that_need_it(option: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    options = {"ca": f"ca={file}", "cert": f"cert={file}&key={file}", "aws": "aws=eu-west-1"}
    assert parse_address(f"{LOCAL}?{options[option]}").tls is True


def test_default_port_is_9200_or_443_with_aws() -> None:
    assert parse_address("opensearch://localhost/p").hosts == (("localhost", 9200),)
    assert parse_address("opensearch://x.example/p?aws=eu-west-1").hosts == (("x.example", 443),)
    assert parse_address("opensearch://[::1]/p").hosts == (("[::1]", 9200),)


@pytest.mark.parametrize("name", ["p*", "p-*,-p-old", "a,b", "a%2Cb"])
def test_index_may_be_a_pattern_or_a_list(name: str) -> None:
    assert parse_address(f"opensearch://localhost/{name}").index == name.replace("%2C", ",")


def test_parse_address_decodes_percent_encoding(tmp_path: Path) -> None:
    file = tmp_path / "me@work & co.pem"
    file.touch()
    address = parse_address(f"opensearch://localhost/caf%C3%A9?ca={quote(str(file))}")
    assert (address.index, address.ca) == ("café", str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photos", "photos is not an address, expected opensearch://"),
        ("http://localhost:9200/photos", "is not an address"),
        (f"{LOCAL}#part", "is not an address"),
        ("opensearch:///photos", "has no usable host in ''"),
        ("opensearch://a,,b/photos", "has no usable host in ''"),
        ("opensearch://a:b/photos", "has no usable host in 'a:b'"),
        ("opensearch://a:0/photos", "has no usable host in 'a:0'"),
        ("opensearch://a:65536/photos", "has no usable host in 'a:65536'"),
        ("opensearch://a b/photos", "has no usable host in 'a b'"),
        ("opensearch://localhost", "names no index"),
        ("opensearch://localhost/", "names no index"),
        ("opensearch://localhost/Photos", "index name 'Photos' is not usable"),
        ("opensearch://localhost/_all", "index name '_all' is not usable"),
        ("opensearch://localhost/-p", "index name '-p' is not usable"),
        ("opensearch://localhost/..", "index name '..' is not usable"),
        ("opensearch://localhost/a,,b", "index name 'a,,b' is not usable"),
        ("opensearch://localhost/a,_b", "index name 'a,_b' is not usable"),
        ("opensearch://localhost/-a,b", "index name '-a,b' is not usable"),
        ("opensearch://localhost/a%2Fb", "index name 'a/b' is not usable"),
        ("opensearch://localhost/../b", r"the path '\.\.' before the index"),
        ("opensearch://localhost/a//b", "the path 'a/' before the index"),
        ("opensearch://localhost/a b/c", "the path 'a b' before the index"),
        ("opensearch://localhost/a/", "names no index"),
        ("opensearch://localhost/a%20b", "index name 'a b' is not usable"),
        (f"{LOCAL}?ways=knn", "unknown option 'ways', expected some of strategy, tls, ca"),
        (f"{LOCAL}?tls=1", "tls is '1', expected yes or no"),
        (f"{LOCAL}?natives=", "natives is '', expected yes or no"),
        (f"{LOCAL}?service=s3", "service is 's3', expected es"),
        (f"{LOCAL}?aws=eu-west-1&service=aoss", r"Serverless \(aoss\).*no refresh"),
        ("opensearch://a1.eu-west-1.aoss.amazonaws.com/p?aws=eu-west-1", "Serverless"),
        (f"{LOCAL}?proxy=proxy:3128", "proxy is 'proxy:3128', expected http://HOST:PORT or env"),
        (f"{LOCAL}?proxy=socks5://p:1", "expected http://HOST:PORT or env"),
        (f"{LOCAL}?shards=0", "shards is '0', expected a whole number from 1"),
        (f"{LOCAL}?shards=two", "shards is 'two', expected a whole number from 1"),
        (f"{LOCAL}?replicas=-1", "replicas is '-1', expected a whole number from 0"),
        (f"{LOCAL}?cert={__file__}", "needs both cert=FILE and key=FILE"),
        (f"{LOCAL}?key={__file__}", "needs both cert=FILE and key=FILE"),
        (f"{LOCAL}?ca=missing.pem", "ca is 'missing.pem'"),
        (f"{LOCAL}?ca=", "ca is ''"),
    ],
)
def test_invalid_address_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)


def test_address_of_a_server_needs_no_index() -> None:
    address = parse_address("opensearch://localhost:9201?tls=yes", index_needed=False)
    assert (address.index, str(address.with_index("photos"))) == (
        "",
        "opensearch://localhost:9201/photos?tls=yes",
    )


def test_with_index_keeps_server_and_options() -> None:
    address = parse_address("opensearch://a:1,b:2/photos?strategy=knn&shards=3")
    other = address.with_index("photos-000002")
    assert other == parse_address("opensearch://a:1,b:2/photos-000002?strategy=knn&shards=3")
    assert str(other) == "opensearch://a:1,b:2/photos-000002?strategy=knn&shards=3"
    assert other.server == address.server == "opensearch://a:1,b:2"


def test_path_before_the_index_is_that_of_a_reverse_proxy() -> None:
    address = parse_address("opensearch://example.org/search/v1/photos?tls=no")
    assert (address.prefix, address.index) == ("/search/v1", "photos")
    assert address.server == "opensearch://example.org:9200/search/v1"
    other = address.with_index("photos-000002")
    assert str(other) == "opensearch://example.org/search/v1/photos-000002?tls=no"
    assert other == parse_address(str(other))
    server = parse_address("opensearch://example.org/search/", index_needed=False)
    assert (server.prefix, server.index) == ("/search", "")
    assert str(server.with_index("p")) == "opensearch://example.org/search/p"


@pytest.mark.parametrize(
    "text",
    [
        f"opensearch://me:{SECRET}@localhost:9200/photos",
        f"opensearch://me:{SECRET}@a:9200,b:9200/photos",
        f"opensearch://me:{SECRET}/x@localhost/photos",  # characters that end the host
        f"opensearch://me:{SECRET}?x@localhost/photos",
        f"opensearch://me:{SECRET}#x@localhost/photos",
        f"opensearch://me:x@{SECRET}@localhost/photos",
        f"opensearch://me:9200?{SECRET}@localhost/photos",
        f"https://me:{SECRET}@localhost:9200/photos",
        f"me:{SECRET}@localhost:9200/photos",
        f"opensearch://me:{SECRET}\n@localhost/photos",
        f"{LOCAL}?password={SECRET}",
        f"{LOCAL}?user=me:{SECRET}",
    ],
)
def test_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_address(text)
    assert SECRET not in str(refused.value) + repr(refused.value)
    if "@" in text:
        assert "XMODAL_OPENSEARCH_USER" in str(refused.value)


def test_credentials_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(" pass wörd \r\n".encode())
    user = {"XMODAL_OPENSEARCH_USER": "me"}
    by_file = user | {"XMODAL_OPENSEARCH_PASSWORD_FILE": str(file)}
    assert credentials({}) is None
    assert credentials({"XMODAL_OPENSEARCH_PASSWORD": SECRET}) is None  # no user
    assert credentials(user | {"XMODAL_OPENSEARCH_PASSWORD": SECRET}) == ("me", SECRET)
    assert credentials(by_file) == ("me", " pass wörd ")  # without the end of the line
    assert credentials(by_file | {"XMODAL_OPENSEARCH_PASSWORD": SECRET}) == ("me", SECRET)


def test_credentials_without_a_readable_password_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe" + SECRET.encode())
    user = {"XMODAL_OPENSEARCH_USER": "me"}
    for environment, words in (
        ({}, "USER is me without a password"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(tmp_path / "no")}, "No such file"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(tmp_path)}, "Is a directory"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(binary)}, "is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=words) as refused:
            credentials(user | environment)
        assert SECRET not in str(refused.value)
