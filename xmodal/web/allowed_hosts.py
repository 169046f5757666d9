"""Hosts from which pictures may be downloaded: public ones, and those that are allowed by name.

Addresses in documents come from others, so that a download must not reach machines that only this
one can reach (server-side request forgery). Names are resolved once, the addresses are checked, and
the connection is made to a checked address, so that a second, different answer of the name server
(DNS rebinding) has no effect.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from xmodal.errors import ConfigError, DataError

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""Last label of a host that is an IPv4 address: decimal, octal or hexadecimal."""

PORTS = (80, 443, 8000, 8080, 8443)
"""Ports that are requested of public hosts: services of other protocols have other ports."""
NAT64 = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that contain an IPv4 address of the internet (RFC 6052)."""
UNICAST = IPv6Network("2000::/3")
"""Global unicast. Outside of it are IPv4-mapped and IPv4-compatible addresses, unique local,
link-local, site-local and multicast ones."""
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, and metadata of a cloud
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # internal services of a cloud
            "2001::/23",  # protocol assignments, among them Teredo
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ),
    )
)
"""Networks that some versions of ``ipaddress`` or some systems treat as public."""
ISATAP = (0x00005EFE, 0x02005EFE)
"""Upper half of the interface identifiers that contain an IPv4 address (RFC 5214)."""


def is_public(address: IPAddress) -> bool:
    """Return whether an address is of a host of the public internet.

    An address that contains an IPv4 address (IPv4-mapped, 6to4, Teredo, ISATAP) is not public; one
    of NAT64 is if the IPv4 address is.
    """
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in UNICAST or (int(address) >> 32) & 0xFFFFFFFF in ISATAP:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(_contains(network, address) for network in NOT_PUBLIC)
    )


def normalise_host(host: str) -> str:
    """Return the host of an address in lower case, in ASCII, without a dot at the end.

    An IP address is returned in its usual notation. Raises DataError for a host that is neither a
    name nor an IP address, such as an IPv4 address as one number, or with octal or hexadecimal
    numbers.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if not NAME.fullmatch(name):
        raise DataError("the address has no valid host")
    if NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise DataError(
                "its host is a number, expected a name or an IP address in the usual notation"
            ) from None
    return name


@dataclass(frozen=True)
class AllowedHosts:
    """Rules for hosts of downloads; without any, public addresses alone are allowed.

    ``names``: hosts that are allowed whatever their addresses are, each with its port, or None;
    ``.example.org`` stands for all names that end in it. ``networks``: allowed addresses, likewise.
    ``listed_only``: for downloads that requests of others cause. Public addresses need a rule too,
    a rule without a port allows PORTS alone, and messages do not contain what was resolved.
    ``option``: the option of the command line that adds a rule, for messages.
    """

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()
    listed_only: bool = False
    option: str = "--allow-host"

    @classmethod
    def parse(
        cls, rules: Iterable[str], *, listed_only: bool = False, option: str = "--allow-host"
    ) -> AllowedHosts:
        """Return the rules given as names (also ``*.example.org``), IP addresses and networks.

        Networks are in CIDR notation, such as 10.1.0.0/16. Names and IP addresses may be followed
        by a port, ``[::1]:8080``. Raises ConfigError.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        for rule in rules:
            text, port = _split_port(rule.strip())
            try:
                networks.append((ip_network(text.strip("[]")), port))
                continue
            except ValueError:
                pass
            try:
                star = "." if text.startswith("*.") else ""
                names.add((star + normalise_host(text.removeprefix("*.")), port))
            except DataError:
                raise ConfigError(
                    f"the allowed host is {rule!r}, expected a name such as photos.example.org or "
                    "*.example.org, an IP address, or a network such as 10.1.0.0/16"
                ) from None
        return cls(frozenset(names), tuple(networks), listed_only, option)

    def has_name(self, host: str, port: int) -> bool:
        """Return whether a host, as :func:`normalise_host` returns it, is allowed by its name."""
        labels = host.split(".")
        names = {host, *("." + ".".join(labels[n:]) for n in range(1, len(labels)))}
        return any(name in names and self._fits(port, of_rule) for name, of_rule in self.names)

    def in_networks(self, address: IPAddress, port: int) -> bool:
        """Return whether an address is in one of the networks."""
        return any(
            _contains(network, address) and self._fits(port, of_rule)
            for network, of_rule in self.networks
        )

    def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Return the allowed addresses of a host, as :func:`normalise_host` returns it.

        The time limits are those of the system's resolver. Raises DataError if no address is
        allowed, and OSError if the host has none.
        """
        secret = self.listed_only and not self.has_name(host, port)
        if secret and not self.networks:
            raise DataError(self._advice("", host))
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            if secret:  # whether a name exists is not told either
                raise DataError(self._advice("", host)) from None
            raise
        addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
        refusals = [self._refusal(host, address, port) for address in addresses]
        allowed = [one for one, refusal in zip(addresses, refusals, strict=True) if not refusal]
        if not allowed:
            raise DataError(self._advice(refusals[0], host))
        return allowed

    def check_unresolved(self, host: str, port: int) -> None:
        """Raise DataError unless a host is allowed by its name, or is an allowed IP address."""
        if self.has_name(host, port):
            return
        try:
            refusal = self._refusal(host, ip_address(host), port)
        except ValueError:
            refusal = "a proxy resolves this name, so that its address cannot be checked"
        if refusal:
            raise DataError(self._advice(refusal, host))

    def _refusal(self, host: str, address: IPAddress, port: int) -> str:
        """Return why a connection is refused, or ""."""
        if self.has_name(host, port) or self.in_networks(address, port):
            return ""
        if self.listed_only:
            return "not listed"
        if not is_public(address):
            return f"the host has the address {address}, which is not public"
        if port not in PORTS:
            return f"port {port} of a public host, expected one of {', '.join(map(str, PORTS))}"
        return ""

    def _advice(self, refusal: str, host: str) -> str:
        """Return the message for a refused host."""
        if self.listed_only:
            return f"its host, or the port, is not allowed: see {self.option}"
        return f"{refusal}: allow it with {self.option} {host}"

    def _fits(self, port: int, of_rule: int | None) -> bool:
        """Return whether a port is that of a rule."""
        if of_rule is None:
            return not self.listed_only or port in PORTS
        return port == of_rule


def _split_port(rule: str) -> tuple[str, int | None]:
    """Return a rule without its port, and the port; an IPv6 address with a port has brackets."""
    host, colon, port = rule.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return rule, None
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return rule, None
    return host, int(port)


def _contains(network: Network, address: IPAddress) -> bool:
    return network.version == address.version and address in network
