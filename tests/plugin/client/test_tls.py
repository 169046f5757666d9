"""TLS, passwords, client certificates and signatures, at an endpoint in front of a real node."""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from uuid import uuid4

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from opensearchpy import exceptions
from support.endpoint import Endpoint, Reply, Request, forward_to

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.errors import to_xmodal_error
from xmodal_opensearch.client.server import Server, is_retryable
from xmodal_opensearch.index.store import open_opensearch

SECRET = "pässwörd-日本"  # cannot be encoded in Latin-1
CODE = BinaryCodes.from_hex(["0f"])


class Certificates(NamedTuple):
    """Files: certificate of an authority; certificate and key of a client that it signed."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path) -> Certificates:
    files = Certificates(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    client = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(files.ca)
    client.cert_chain_pems[0].write_to_path(files.cert)
    client.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without credentials."""
    for name in ("USER", "PASSWORD", "PASSWORD_FILE"):
        monkeypatch.delenv(f"XMODAL_OPENSEARCH_{name}", raising=False)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def tls(authority: trustme.CA, *names: str, clients: bool = False) -> ssl.SSLContext:
    """A server's TLS context; with ``clients`` it requires client certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    if clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def greet(request: Request) -> Reply:
    return Reply()


def connect(endpoint: Endpoint, options: str) -> None:
    """Connect to the endpoint and close the connection."""
    address = f"opensearch://127.0.0.1:{endpoint.port}?{options}"
    Server(parse_address(address, index_needed=False)).close()


@pytest.fixture
def tls_endpoint(authority: trustme.CA, node_url: str) -> Iterator[Endpoint]:
    """A TLS endpoint in front of the real node."""
    with Endpoint(forward_to(node_url), tls(authority)) as endpoint:
        yield endpoint


def test_index_works_over_tls(
    tls_endpoint: Endpoint, certificates: Certificates, rest: Callable[..., object]
) -> None:
    name = f"t-{uuid4().hex[:8]}"
    uri = f"opensearch://127.0.0.1:{tls_endpoint.port}/{name}?ca={certificates.ca}"
    try:
        with open_opensearch(uri, bits=8, create=True) as index:
            index.add(["a"], image=CODE)
            assert [hit.id for hit in index.search(CODE, 1, target="image")[0]] == ["a"]
    finally:
        rest("DELETE", f"/{name}-*")


def test_certificate_of_an_unknown_authority_is_refused(tls_endpoint: Endpoint) -> None:
    with pytest.raises(ServerFailure, match=r"\?ca=FILE") as refused:
        connect(tls_endpoint, "tls=yes")
    assert (refused.value.reason, tls_endpoint.requests) == ("certificate", [])
    assert "\n" not in str(refused.value)


def test_certificate_of_another_authority_or_host_is_refused(
    authority: trustme.CA, certificates: Certificates
) -> None:
    for context in (tls(trustme.CA()), tls(authority, "other.example.org")):
        with Endpoint(greet, context) as endpoint:
            with pytest.raises(ServerFailure, match="could not be verified"):
                connect(endpoint, f"ca={certificates.ca}")
        assert endpoint.requests == []


def test_plain_http_and_tls_are_not_mixed(tls_endpoint: Endpoint) -> None:
    with pytest.raises(ServerFailure, match=r"add \?tls=yes") as hinted:
        connect(tls_endpoint, "tls=no")
    assert hinted.value.reason == "tls"
    with Endpoint(greet) as plain:
        with pytest.raises(ServerFailure, match=r"\?tls=no"):
            connect(plain, "tls=yes")


def test_client_certificate_is_sent(authority: trustme.CA, certificates: Certificates) -> None:
    with Endpoint(greet, tls(authority, clients=True)) as endpoint:
        connect(endpoint, f"ca={certificates.ca}&cert={certificates.cert}&key={certificates.key}")
        assert len(endpoint.requests) == 1
        with pytest.raises(ServerFailure, match=r"client certificate|no server") as refused:
            connect(endpoint, f"ca={certificates.ca}")
        assert "\n" not in str(refused.value)
        assert len(endpoint.requests) == 1


def test_unusable_file_of_a_client_certificate_is_named(
    authority: trustme.CA, certificates: Certificates, tmp_path: Path
) -> None:
    ca, cert, key = certificates
    other, encrypted, text = tmp_path / "other.pem", tmp_path / "encrypted.pem", tmp_path / "text"
    authority.issue_cert("other@example.org").private_key_pem.write_to_path(other)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    text.write_text("no certificate")
    for files, words in (
        ((ca, key, cert), f"cert is {key}, .*: exchange cert and key"),
        ((ca, cert, ca), f"key is {ca}, expected a private key .*: it is a certificate"),
        ((ca, text, key), f"cert is {text}, expected a certificate"),
        ((ca, cert, text), f"key is {text}, expected a private key"),
        ((ca, cert, other), f"key is {other}, which is not the key of the certificate {cert}"),
        ((ca, cert, encrypted), f"key is {encrypted}, which is encrypted"),
        ((text, cert, key), f"ca is {text}, expected certificates"),
    ):
        options = "&".join(f"{k}={v}" for k, v in zip(("ca", "cert", "key"), files, strict=True))
        address = parse_address(f"opensearch://127.0.0.1:9?{options}", index_needed=False)
        with pytest.raises(ConfigError, match=words) as refused:
            Server(address)
        assert "\n" not in str(refused.value)


def test_certificates_that_have_expired_are_named(
    authority: trustme.CA, certificates: Certificates
) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = authority.issue_cert("client@example.org", not_before=past, not_after=past)
    expired.cert_chain_pems[0].write_to_path(certificates.cert)
    expired.private_key_pem.write_to_path(certificates.key)
    options = f"ca={certificates.ca}&cert={certificates.cert}&key={certificates.key}"
    with Endpoint(greet, tls(authority, clients=True)) as endpoint:
        with pytest.raises(ServerFailure, match=r"client certificate .* has expired"):
            connect(endpoint, options)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_before=past, not_after=past).configure_cert(server)
    with Endpoint(greet, server) as endpoint:
        with pytest.raises(ServerFailure, match="certificate of the server has expired"):
            connect(endpoint, f"ca={certificates.ca}")


@pytest.mark.parametrize(
    ("reason", "retryable"),
    [
        ("EOF occurred in violation of protocol (_ssl.c:2427)", True),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", True),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", False),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", False),
    ],
)
def test_connection_that_ends_under_tls_is_retryable(reason: str, retryable: bool) -> None:
    error = exceptions.SSLError("N/A", reason, OSError(reason))
    assert is_retryable(error) is retryable
    assert is_retryable(to_xmodal_error(error, "opensearch://x", "trying")) is retryable


def test_invalid_certificate_file_is_refused(
    tls_endpoint: Endpoint, certificates: Certificates
) -> None:
    certificates.ca.write_text("no certificate")
    with pytest.raises((ConfigError, ServerFailure)) as refused:
        connect(tls_endpoint, f"ca={certificates.ca}")
    assert "\n" not in str(refused.value)


def test_user_and_password_are_sent_in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "mé")
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", SECRET)
    with Endpoint(greet) as endpoint:
        connect(endpoint, "tls=no")
    header = endpoint.requests[0].headers["authorization"]
    assert header == "Basic " + base64.b64encode(f"mé:{SECRET}".encode()).decode()


def test_no_authorization_is_sent_by_default() -> None:
    with Endpoint(greet) as endpoint:
        connect(endpoint, "tls=no")
    assert "authorization" not in endpoint.requests[0].headers


def test_requests_are_signed_for_aws(
    monkeypatch: pytest.MonkeyPatch, node_url: str, rest: Callable[..., object]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "me")  # not sent with a signature
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", "x")
    name = f"t-{uuid4().hex[:8]}-é%41"  # characters that must be quoted once
    with Endpoint(forward_to(node_url)) as endpoint:
        uri = f"opensearch://127.0.0.1:{endpoint.port}/{quote(name)}?tls=no&aws=eu-west-1"
        try:
            with open_opensearch(uri, bits=8, create=True) as index:
                index.add(["a"], image=CODE)
                found = index.search(CODE[[0, 0]], 1, target="image")
                assert [hits[0].id for hits in found] == ["a", "a"]
        finally:
            rest("DELETE", f"/{name[:10]}-*")
    for request in endpoint.requests:
        header = request.headers["authorization"]
        assert header.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert header == expected_signature(request, "eu-west-1", "es")


def expected_signature(received: Request, region: str, service: str) -> str:
    """The signature of a received request by botocore."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    header = received.headers["authorization"]
    names = header.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: received.headers[name] for name in names if name != "x-amz-date"}
    url = f"http://{received.headers['host']}{received.path}"
    request = AWSRequest(received.method, url, data=received.body or None, headers=headers)
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), service, region)
    request.headers["X-Amz-Date"] = received.headers["x-amz-date"]
    request.context["timestamp"] = received.headers["x-amz-date"]
    signer._inject_signature_to_request(
        request,
        signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        ),
    )
    return str(request.headers["Authorization"])


def test_aws_without_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_address("opensearch://127.0.0.1:9/p?aws=eu-west-1")
    with pytest.raises(ConfigError, match=r"aws=eu-west-1.*AWS_ACCESS_KEY_ID"):
        Server(address)


@pytest.mark.parametrize("status", [200, 401])
def test_secrets_are_in_no_message_or_log(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "me")
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", SECRET)
    caplog.set_level(logging.DEBUG)  # of every logger
    caplog.set_level(logging.DEBUG, "opensearch")
    output = ""
    with Endpoint(lambda request: Reply(status)) as endpoint:
        address = parse_address(f"opensearch://127.0.0.1:{endpoint.port}", index_needed=False)
        try:
            server = Server(address)
            output += repr(server) + repr(server.address) + repr(vars(server))
            server.close()
        except ServerFailure as error:
            output += str(error) + repr(error) + repr(error.__cause__)
    token = endpoint.requests[0].headers["authorization"].removeprefix("Basic ")
    output += caplog.text + repr([vars(record) for record in caplog.records])
    assert caplog.records and output
    assert SECRET not in output and token not in output
