"""AllowedHosts: every notation of an address that is not public is refused."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from xmodal.errors import ConfigError, DataError
from xmodal.web.allowed_hosts import AllowedHosts, is_public, normalise_host

NOT_PUBLIC = [
    # the special-purpose registries of IANA, an address of each block
    *("0.0.0.0", "0.1.2.3", "10.20.30.40", "100.64.0.1", "100.127.255.254", "127.0.0.1"),
    *("127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1"),
    *("192.0.0.192", "192.0.2.7", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.3", "203.0.113.9", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"),
    "168.63.129.16",
    *("::", "::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1"),
    *("ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "2001:2::1"),
    *("2001:10::1", "2001:20::1", "64:ff9b:1::10.0.0.1"),
    # IPv4 addresses inside of IPv6 addresses
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:10.0.0.1", "::127.0.0.1", "::10.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"),
    *("2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1"),
    *("2001:0:a00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    *("2600::5efe:10.0.0.1", "2600::200:5efe:10.0.0.1"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(DataError, match="not public"):
        AllowedHosts().resolve(normalise_host(address.partition("%")[0]), 80)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))
    assert AllowedHosts().resolve(address, 443) == [ip_address(address)]
    with pytest.raises(DataError, match="port 9200 of a public host"):
        AllowedHosts().resolve(address, 9200)


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "017700000001", "0x7f.0.0.1", "0177.0.0.1", "127.1"),
        *("0x7f.1", "127.0.0.01", "10.0.0.0x1", "134744072", "0x", "1.1.1.1.1", "256.1.1.1"),
        *("１０.1", "0x7F.0.0.1", "foo.0x1", "photos.example.1"),
    ],
)  # fmt: skip
def test_numbers_in_other_notations_are_no_hosts(host: str) -> None:
    with pytest.raises(DataError, match="is a number"):
        normalise_host(host)


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "a%41", "a@b", "a\\b", "a..b", "-a", "fe80::1%25eth0/", "a" * 64, "a\0"],
)
def test_invalid_hosts(host: str) -> None:
    with pytest.raises(DataError, match="no valid host"):
        normalise_host(host)


@pytest.mark.parametrize(
    ("host", "normalised"),
    [
        ("Photos.Example.ORG.", "photos.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("１２７.0.0.1", "127.0.0.1"),  # digits of full width, as a name server would read them
        ("①②⑦。0。0。①", "127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::FFFF:7f00:1", str(ip_address("::ffff:127.0.0.1"))),
        ("my_host-2", "my_host-2"),
    ],
)
def test_normalised_hosts(host: str, normalised: str) -> None:
    assert normalise_host(host) == normalised


def answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the system's resolver find these addresses for every name."""

    def find(host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", find)


def test_only_allowed_addresses_of_a_name_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "10.0.0.1", "8.8.4.4", "127.0.0.1", "8.8.4.4")
    assert AllowedHosts().resolve("a.example", 80) == [ip_address("8.8.4.4")]
    rules = AllowedHosts.parse(["10.0.0.0/24"])
    assert rules.resolve("a.example", 80) == [ip_address("10.0.0.1"), ip_address("8.8.4.4")]
    answer_with(monkeypatch, "10.0.1.1")
    with pytest.raises(DataError, match=r"10\.0\.1\.1, .*--allow-host a\.example"):
        rules.resolve("a.example", 80)


def test_allowed_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = AllowedHosts.parse(
        ["Intranet", "*.cdn.example", "bücher.example", " 192.168.7.0/24 ", "127.0.0.2", "[::1]"]
    )
    for name in ("intranet", "a.cdn.example", "b.a.cdn.example", "xn--bcher-kva.example"):
        assert rules.has_name(name, 12_345)
        rules.check_unresolved(name, 12_345)
    for name in ("cdn.example", "acdn.example", "intranet.evil.example", "example"):
        assert not rules.has_name(name, 80)
        with pytest.raises(DataError, match="a proxy resolves this name"):
            rules.check_unresolved(name, 80)
    for address in ("192.168.7.200", "127.0.0.2", "::1"):
        assert rules.resolve(address, 9999) == [ip_address(address)]
        rules.check_unresolved(address, 9999)
    for address in ("192.168.8.1", "127.0.0.1", "::ffff:127.0.0.2"):
        for check in (rules.resolve, rules.check_unresolved):
            with pytest.raises(DataError, match="not public"):
                check(address, 80)
    answer_with(monkeypatch, "127.0.0.1")
    assert rules.resolve("intranet", 8089) == [ip_address("127.0.0.1")]


@pytest.mark.parametrize(
    "rule", ["", "*", "*.", "10.0.0.1/8", "http://a.example", "a.example:0", "0x7f.1", "a/b"]
)
def test_invalid_rules(rule: str) -> None:
    with pytest.raises(ConfigError, match="the allowed host is"):
        AllowedHosts.parse([rule])


def test_rules_with_a_port() -> None:
    rules = AllowedHosts.parse(["a.example:9000", "*.b.example:81", "10.0.0.7:99", "[::1]:8089"])
    for name, port in (("a.example", 9000), ("x.b.example", 81)):
        assert rules.has_name(name, port) and not rules.has_name(name, 80)
    for address, port in (("10.0.0.7", 99), ("::1", 8089)):
        assert rules.resolve(address, port) == [ip_address(address)]
        with pytest.raises(DataError, match="not public"):
            rules.resolve(address, 80)


LISTED = AllowedHosts.parse(
    ["photos.example", "*.cdn.example:9000", "10.1.0.0/16"], listed_only=True, option="--from"
)


def test_listed_hosts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "8.8.8.8")
    assert LISTED.resolve("photos.example", 443) == [ip_address("8.8.8.8")]
    assert LISTED.resolve("a.cdn.example", 9000) == [ip_address("8.8.8.8")]
    refused = [("other.example", 443), ("photos.example", 22), ("a.cdn.example", 443)]
    answer_with(monkeypatch, "10.1.2.3")
    assert LISTED.resolve("inside.example", 8080) == [ip_address("10.1.2.3")]
    answer_with(monkeypatch, "10.2.2.3")
    refused += [("inside.example", 8080), ("10.2.2.3", 80)]
    for host, port in refused:
        for check in (LISTED.resolve, LISTED.check_unresolved):
            with pytest.raises(DataError, match=r"not allowed: see --from$"):
                check(host, port)


def test_names_that_are_not_listed_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DataError, match=r"not allowed: see --from$"):
        LISTED.resolve("missing.example", 80)  # the same message as for a name that exists
    with pytest.raises(OSError, match="Name or service"):
        LISTED.resolve("photos.example", 80)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(DataError, match="not allowed"):
        AllowedHosts.parse(["photos.example"], listed_only=True).resolve("other.example", 80)
