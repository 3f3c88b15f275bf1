"""Who the QUIC server is, and how the client knows: one certificate a process, pinned by its fingerprint.

Rule 1: the certificate is made once a process. A process that forks makes it before: `certificate` is then inherited.
Rule 2: it is signed by itself. What makes it good is its fingerprint, which came through signalling, as WebRTC's does
        (RFC 8122); no authority and no clock has a say.
Rule 3: secrets are written in the key log format, so that a capture can be read. It is a laboratory: nothing that
        these keys protect is secret.
"""

from __future__ import annotations

import io
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

ALPN = "testbed"
IDLE_TIMEOUT = 60.0
"""Seconds; more than any attempt takes."""
DATAGRAM_SIZE = 1200
"""Bytes: what a path of 1280 carries, with a relay's header too (RFC 9000 §14)."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate and its key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey
    fingerprint: str


@cache
def certificate() -> ServerCertificate:
    """The certificate of this process."""
    # Ed25519: signing and checking take a tenth of a millisecond, and the certificate fits into the first flight.
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ALPN)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )
    return ServerCertificate(made, key, fingerprint_of(made))


def fingerprint_of(made: x509.Certificate) -> str:
    """The first 128 bits of the certificate's SHA-256, in hexadecimal: short enough for a signalling message."""
    return made.fingerprint(SHA256())[:16].hex()


def client_configuration(token: bytes, secrets: io.StringIO) -> QuicConfiguration:
    """A client's. `token` goes into its Initial packets: the server takes them by it. `secrets`: the key log."""
    configuration = _configuration(secrets, is_client=True)
    configuration.token = token
    configuration.verify_mode = ssl.CERT_NONE  # the fingerprint is compared instead
    return configuration


def server_configuration(secrets: io.StringIO) -> QuicConfiguration:
    """A server's."""
    configuration, own = _configuration(secrets, is_client=False), certificate()
    configuration.certificate, configuration.private_key = own.certificate, own.key
    return configuration


def _configuration(secrets: io.StringIO, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        idle_timeout=IDLE_TIMEOUT,
        is_client=is_client,
        max_datagram_size=DATAGRAM_SIZE,
        max_datagram_frame_size=DATAGRAM_SIZE,
        secrets_log_file=secrets,
        # One version: the keys of each are set up at every start.
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )
