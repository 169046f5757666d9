"""TLS, passwords, client certificates and signatures, at an endpoint in front of the real node."""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from uuid import uuid4

import pytest
import trustme
from opensearchpy import exceptions
from support.endpoint import Asked, Endpoint, Reply, passed_on

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.errors import translated
from xmodal_opensearch.client.server import Server, passing
from xmodal_opensearch.index.store import open_opensearch

SECRET = "pässwörd-日本"  # not to be said in Latin-1
CODE = BinaryCodes.from_hex(["0f"])


class Papers(NamedTuple):
    """Files of an authority, and of a client that it vouches for."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def papers(authority: trustme.CA, tmp_path: Path) -> Papers:
    files = Papers(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    client = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(files.ca)
    client.cert_chain_pems[0].write_to_path(files.cert)
    client.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is named, whoever runs the tests."""
    for name in ("USER", "PASSWORD", "PASSWORD_FILE"):
        monkeypatch.delenv(f"XMODAL_OPENSEARCH_{name}", raising=False)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def tls(authority: trustme.CA, *names: str, clients: bool = False) -> ssl.SSLContext:
    """The server's side of a connection; with ``clients`` only for those with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    if clients:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def greet(asked: Asked) -> Reply:
    return Reply()


def knock(endpoint: Endpoint, options: str) -> None:
    """Connect, and go."""
    where = f"opensearch://127.0.0.1:{endpoint.port}?{options}"
    Server(parse_address(where, index_needed=False)).close()


@pytest.fixture
def guarded(authority: trustme.CA, node_url: str) -> Iterator[Endpoint]:
    """The real node behind TLS."""
    with Endpoint(passed_on(node_url), tls(authority)) as endpoint:
        yield endpoint


def test_an_index_behind_tls_is_as_any_other(
    guarded: Endpoint, papers: Papers, rest: Callable[..., object]
) -> None:
    name = f"t-{uuid4().hex[:8]}"
    where = f"opensearch://127.0.0.1:{guarded.port}/{name}?ca={papers.ca}"
    try:
        with open_opensearch(where, bits=8, create=True) as index:
            index.add(["a"], image=CODE)
            assert [hit.id for hit in index.search(CODE, 1, target="image")[0]] == ["a"]
    finally:
        rest("DELETE", f"/{name}-*")


def test_a_certificate_that_nobody_vouches_for_is_refused(guarded: Endpoint) -> None:
    with pytest.raises(
        ServerFailure, match=r"could not be verified: name .* with \?ca=FILE"
    ) as refused:
        knock(guarded, "tls=yes")
    assert (refused.value.reason, guarded.asked) == ("certificate", [])
    assert "\n" not in str(refused.value)


def test_a_certificate_of_another_authority_or_another_host_is_refused(
    authority: trustme.CA, papers: Papers
) -> None:
    for context in (tls(trustme.CA()), tls(authority, "other.example.org")):
        with Endpoint(greet, context) as endpoint:
            with pytest.raises(ServerFailure, match="could not be verified"):
                knock(endpoint, f"ca={papers.ca}")
        assert endpoint.asked == []


def test_plain_and_encrypted_do_not_meet(guarded: Endpoint) -> None:
    with pytest.raises(ServerFailure, match=r"no server answers at .* while connecting"):
        knock(guarded, "tls=no")
    with Endpoint(greet) as plain:
        with pytest.raises(ServerFailure, match=r"use plain http with \?tls=no"):
            knock(plain, "tls=yes")


def test_a_client_shows_its_certificate(authority: trustme.CA, papers: Papers) -> None:
    with Endpoint(greet, tls(authority, clients=True)) as endpoint:
        knock(endpoint, f"ca={papers.ca}&cert={papers.cert}&key={papers.key}")
        assert len(endpoint.asked) == 1
        with pytest.raises(
            ServerFailure, match=r"ask for a client certificate|asks for a client|no server"
        ) as refused:
            knock(endpoint, f"ca={papers.ca}")
        assert "\n" not in str(refused.value)
        assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("EOF occurred in violation of protocol (_ssl.c:2427)", True),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", True),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", False),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", False),
    ],
)
def test_a_node_that_stops_under_tls_is_asked_again(said: str, again: bool) -> None:
    error = exceptions.SSLError("N/A", said, OSError(said))
    assert passing(error) is again
    assert passing(translated(error, "opensearch://x", "trying")) is again


def test_files_that_are_no_certificates_are_refused(guarded: Endpoint, papers: Papers) -> None:
    papers.ca.write_text("no certificate")
    with pytest.raises((ConfigError, ServerFailure)) as refused:
        knock(guarded, f"ca={papers.ca}")
    assert "\n" not in str(refused.value)


def test_user_and_password_arrive_in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "mé")
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", SECRET)
    with Endpoint(greet) as endpoint:
        knock(endpoint, "tls=no")
    told = endpoint.asked[0].headers["authorization"]
    assert told == "Basic " + base64.b64encode(f"mé:{SECRET}".encode()).decode()


def test_nobody_is_named_by_default() -> None:
    with Endpoint(greet) as endpoint:
        knock(endpoint, "tls=no")
    assert "authorization" not in endpoint.asked[0].headers


def test_requests_are_signed_for_amazon(
    monkeypatch: pytest.MonkeyPatch, node_url: str, rest: Callable[..., object]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "me")  # a signature stands alone
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", "x")
    name = f"t-{uuid4().hex[:8]}-é%41"  # signs that may be quoted twice, or not at all
    with Endpoint(passed_on(node_url)) as endpoint:
        where = f"opensearch://127.0.0.1:{endpoint.port}/{quote(name)}?tls=no&aws=eu-west-1"
        try:
            with open_opensearch(where, bits=8, create=True) as index:
                index.add(["a"], image=CODE)
                found = index.search(CODE[[0, 0]], 1, target="image")
                assert [hits[0].id for hits in found] == ["a", "a"]
        finally:
            rest("DELETE", f"/{name[:10]}-*")
    for asked in endpoint.asked:
        assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert asked.headers["authorization"] == signed_again(asked, "eu-west-1", "es")


def signed_again(asked: Asked, region: str, service: str) -> str:
    """The signature by Amazon's own library of what arrived here."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    told = asked.headers["authorization"]
    names = told.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: asked.headers[name] for name in names if name != "x-amz-date"}
    url = f"http://{asked.headers['host']}{asked.path}"
    request = AWSRequest(asked.method, url, data=asked.body or None, headers=headers)
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), service, region)
    request.headers["X-Amz-Date"] = asked.headers["x-amz-date"]
    request.context["timestamp"] = asked.headers["x-amz-date"]
    signer._inject_signature_to_request(
        request,
        signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        ),
    )
    return str(request.headers["Authorization"])


def test_the_service_of_a_signature_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with Endpoint(greet) as endpoint:
        knock(endpoint, "tls=no&aws=eu-west-1&service=aoss")
    assert "/eu-west-1/aoss/aws4_request" in endpoint.asked[0].headers["authorization"]


def test_a_signature_needs_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    address = parse_address("opensearch://127.0.0.1:9/p?aws=eu-west-1")
    with pytest.raises(ConfigError, match=r"aws=eu-west-1 .* find no credentials here: set AWS_"):
        Server(address)


@pytest.mark.parametrize("status", [200, 401])
def test_nothing_secret_is_said_anywhere(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XMODAL_OPENSEARCH_USER", "me")
    monkeypatch.setenv("XMODAL_OPENSEARCH_PASSWORD", SECRET)
    caplog.set_level(logging.DEBUG)  # of the client, of urllib3, of everybody
    caplog.set_level(logging.DEBUG, "opensearch")
    said = ""
    with Endpoint(lambda asked: Reply(status)) as endpoint:
        address = parse_address(f"opensearch://127.0.0.1:{endpoint.port}", index_needed=False)
        try:
            server = Server(address)
            said += repr(server) + repr(server.address) + repr(vars(server))
            server.close()
        except ServerFailure as error:
            said += str(error) + repr(error) + repr(error.__cause__)
    token = endpoint.asked[0].headers["authorization"].removeprefix("Basic ")
    said += caplog.text + repr([vars(record) for record in caplog.records])
    assert caplog.records and said
    assert SECRET not in said and token not in said
