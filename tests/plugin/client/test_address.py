"""Addresses: every option, every refusal in one line, and nothing secret in any of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from xmodal.errors import ConfigError
from xmodal_opensearch.client.address import Address, credentials, parse_address

HERE = "opensearch://localhost:9200/photos"
SECRET = "s3cr-t"


def test_an_address_on_this_machine_is_plain_and_without_options() -> None:
    assert parse_address(HERE) == Address((("localhost", 9200),), "photos")


def test_every_option_is_read(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    files = "&".join(f"{name}={tmp_path / name}" for name in ("ca", "cert", "key"))
    options = "strategy=knn&tls=yes&aws=eu-west-1&service=aoss&shards=3&replicas=0&natives=yes"
    assert parse_address(f"opensearch://a.example,b.example:9201/p?{options}&{files}") == Address(
        (("a.example", 443), ("b.example", 9201)),
        "p",
        way="knn",
        tls=True,
        ca=str(tmp_path / "ca"),
        cert=str(tmp_path / "cert"),
        key=str(tmp_path / "key"),
        aws="eu-west-1",
        service="aoss",
        shards=3,
        replicas=0,
        natives=True,
    )


@pytest.mark.parametrize(
    ("where", "tls"),
    [
        ("localhost", False),
        ("127.0.0.1:9201", False),
        ("[::1]:9200", False),
        ("localhost,127.0.0.1:9201", False),
        ("search.example.org", True),
        ("10.0.0.1:9200", True),
        ("localhost,search.example.org", True),  # one away from here is enough
        ("localhost.example.org", True),
    ],
)
def test_whatever_leaves_this_machine_is_encrypted(where: str, tls: bool) -> None:
    assert parse_address(f"opensearch://{where}/photos").tls is tls
    assert parse_address(f"opensearch://{where}/photos?tls=yes").tls is True
    assert parse_address(f"opensearch://{where}/photos?tls=no").tls is False


@pytest.mark.parametrize("option", ["ca", "cert", "aws"])
def test_an_option_that_needs_encryption_asks_for_it(option: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    given = {"ca": f"ca={file}", "cert": f"cert={file}&key={file}", "aws": "aws=eu-west-1"}
    assert parse_address(f"{HERE}?{given[option]}").tls is True


def test_ports_are_9200_and_443_of_amazon() -> None:
    assert parse_address("opensearch://localhost/p").hosts == (("localhost", 9200),)
    assert parse_address("opensearch://x.example/p?aws=eu-west-1").hosts == (("x.example", 443),)
    assert parse_address("opensearch://[::1]/p").hosts == (("[::1]", 9200),)


def test_a_name_may_be_written_with_percent_signs(tmp_path: Path) -> None:
    file = tmp_path / "me@work & co.pem"
    file.touch()
    address = parse_address(f"opensearch://localhost/caf%C3%A9?ca={quote(str(file))}")
    assert (address.index, address.ca) == ("café", str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photos", "photos is not an address, expected opensearch://localhost:9200/photos"),
        ("http://localhost:9200/photos", "is not an address"),
        (f"{HERE}#part", "is not an address"),
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
        ("opensearch://localhost/p*", r"index name 'p\*' is not usable"),
        ("opensearch://localhost/a,b", "index name 'a,b' is not usable"),
        ("opensearch://localhost/a%2Cb", "index name 'a,b' is not usable"),
        ("opensearch://localhost/a/b", "index name 'a/b' is not usable"),
        ("opensearch://localhost/a%20b", "index name 'a b' is not usable"),
        (f"{HERE}?ways=knn", "unknown option 'ways', expected some of way, tls, ca"),
        (f"{HERE}?tls=1", "tls is '1', expected yes or no"),
        (f"{HERE}?natives=", "natives is '', expected yes or no"),
        (f"{HERE}?service=s3", "service is 's3', expected es or aoss"),
        (f"{HERE}?shards=0", "shards is '0', expected a whole number from 1"),
        (f"{HERE}?shards=two", "shards is 'two', expected a whole number from 1"),
        (f"{HERE}?replicas=-1", "replicas is '-1', expected a whole number from 0"),
        (f"{HERE}?cert={__file__}", "needs both cert=FILE and key=FILE"),
        (f"{HERE}?key={__file__}", "needs both cert=FILE and key=FILE"),
        (f"{HERE}?ca=missing.pem", "ca is missing.pem, where there is no file"),
        (f"{HERE}?ca=", "ca is , where there is no file"),
    ],
)
def test_a_bad_address_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)


def test_only_an_address_of_an_index_needs_one() -> None:
    address = parse_address("opensearch://localhost:9201?tls=yes", index_needed=False)
    assert (address.index, str(address.named("photos"))) == (
        "",
        "opensearch://localhost:9201/photos?tls=yes",
    )


def test_the_same_server_has_other_indexes() -> None:
    address = parse_address("opensearch://a:1,b:2/photos?strategy=knn&shards=3")
    other = address.named("photos-000002")
    assert other == parse_address("opensearch://a:1,b:2/photos-000002?strategy=knn&shards=3")
    assert str(other) == "opensearch://a:1,b:2/photos-000002?strategy=knn&shards=3"
    assert other.handle.server == address.server == "opensearch://a:1,b:2"


@pytest.mark.parametrize(
    "text",
    [
        f"opensearch://me:{SECRET}@localhost:9200/photos",
        f"opensearch://me:{SECRET}@a:9200,b:9200/photos",
        f"opensearch://me:{SECRET}/x@localhost/photos",  # signs that end the name of a server
        f"opensearch://me:{SECRET}?x@localhost/photos",
        f"opensearch://me:{SECRET}#x@localhost/photos",
        f"opensearch://me:x@{SECRET}@localhost/photos",
        f"opensearch://me:9200?{SECRET}@localhost/photos",
        f"https://me:{SECRET}@localhost:9200/photos",
        f"me:{SECRET}@localhost:9200/photos",
        f"opensearch://me:{SECRET}\n@localhost/photos",
        f"{HERE}?password={SECRET}",
        f"{HERE}?user=me:{SECRET}",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_address(text)
    assert SECRET not in str(refused.value) + repr(refused.value)
    if "@" in text:
        assert "XMODAL_OPENSEARCH_USER" in str(refused.value)


def test_credentials_stand_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(" pass wörd \r\n".encode())
    user = {"XMODAL_OPENSEARCH_USER": "me"}
    by_file = user | {"XMODAL_OPENSEARCH_PASSWORD_FILE": str(file)}
    assert credentials({}) is None
    assert credentials({"XMODAL_OPENSEARCH_PASSWORD": SECRET}) is None  # nobody is named
    assert credentials(user | {"XMODAL_OPENSEARCH_PASSWORD": SECRET}) == ("me", SECRET)
    assert credentials(by_file) == ("me", " pass wörd ")  # only the end of the line goes
    assert credentials(by_file | {"XMODAL_OPENSEARCH_PASSWORD": SECRET}) == ("me", SECRET)


def test_credentials_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe" + SECRET.encode())
    user = {"XMODAL_OPENSEARCH_USER": "me"}
    for given, words in (
        ({}, "USER is me, and no password is given"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(tmp_path / "no")}, "No such file"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(tmp_path)}, "Is a directory"),
        ({"XMODAL_OPENSEARCH_PASSWORD_FILE": str(binary)}, "is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=words) as refused:
            credentials(user | given)
        assert SECRET not in str(refused.value)
