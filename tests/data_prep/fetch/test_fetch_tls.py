"""TLS: the checked address is connected to, and the certificate is judged by the name in the URL."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from data_prep.fetch.config import FetchConfig
from data_prep.fetch.fetcher import Fetcher
from data_prep.fetch.outcome import Fetched, FetchFailure


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for pictures.example and 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    names: list[x509.GeneralName] = [
        x509.DNSName("pictures.example"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "both.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


class TlsSite:
    """Answers every request with what the client asked for: the name by SNI, and the Host header."""

    def __init__(self, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.context.sni_callback = lambda sock, name, _: self.names.append(name)
        self.names: list[str | None] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(plain,), daemon=True).start()

    def answer(self, plain: socket.socket) -> None:
        body = b""
        try:
            with plain, self.context.wrap_socket(plain, server_side=True) as sock, sock.makefile("rb") as file:
                while line := file.readline():
                    if line.lower().startswith(b"host:"):
                        body = line[5:].strip()
                    if line == b"\r\n":
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            return  # the client did not like the certificate


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[TlsSite]:
    one = TlsSite(certificate)
    yield one
    one.listener.close()


def fetcher(**settings: object) -> Fetcher:
    values = {"allow_private": True, "robots_txt": False, "host_rate": 0, "retries": 0, **settings}
    return Fetcher(FetchConfig.model_validate(values), lookup=lambda host: ["127.0.0.1"])


def test_name_and_host_are_kept(tls_site: TlsSite, certificate: Path) -> None:
    with fetcher(ca_file=str(certificate)) as one:
        for _ in range(2):  # the second on the same connection
            outcome = one.fetch(f"https://pictures.example:{tls_site.port}/x")
            assert isinstance(outcome, Fetched), outcome
            assert outcome.content == f"pictures.example:{tls_site.port}".encode()
        assert isinstance(one.fetch(f"https://127.0.0.1:{tls_site.port}/x"), Fetched)
    assert tls_site.names == ["pictures.example", None]


def test_strange_certificates_are_refused(tls_site: TlsSite, certificate: Path) -> None:
    with fetcher() as trusting_the_system, fetcher(ca_file=str(certificate)) as trusting_it:
        outcomes = [
            trusting_the_system.fetch(f"https://pictures.example:{tls_site.port}/x"),
            trusting_it.fetch(f"https://other.example:{tls_site.port}/x"),
        ]
    for outcome in outcomes:
        assert isinstance(outcome, FetchFailure)
        assert (outcome.reason, outcome.transient) == ("tls_failed", False), outcome


def test_plain_http_on_a_tls_port_and_the_reverse(tls_site: TlsSite, site, make_answer) -> None:
    site.pages["*"] = make_answer()
    with fetcher(connect_timeout=2, read_timeout=2) as one:
        outcomes = [
            one.fetch(f"http://127.0.0.1:{tls_site.port}/x"),
            one.fetch(f"https://pictures.example:{site.port}/x"),
        ]
    assert all(isinstance(outcome, FetchFailure) for outcome in outcomes), outcomes
    assert {outcome.reason for outcome in outcomes} <= {"http_invalid", "interrupted", "tls_failed", "timeout"}
