"""How a gRPC service proves who it is, and what it asks of others: certificates in files, a shared
token, or nothing."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc


class CredentialsError(ValueError):
    """Certificates or a token that can't be used as they are configured."""


@dataclass(frozen=True)
class Credentials:
    """Both ends of a connection have one of these; they are equal within one site.

    ``cert`` and ``key`` (PEM) are the certificate of this process, and ``ca`` signs the
    certificates of the others. A server with all three asks its clients for certificates: mutual
    TLS. ``token`` is sent with every call, and a server that has one refuses calls without it.
    """

    token: str | None = field(default=None, repr=False)
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    ca: bytes | None = None

    @property
    def is_mutual_tls(self) -> bool:
        return self.cert is not None and self.ca is not None

    @property
    def asks_who(self) -> bool:
        """Whether a server with these lets in only known callers."""
        return self.is_mutual_tls or self.token is not None

    def of_server(self) -> grpc.ServerCredentials | None:
        """``None`` to listen in plain text."""
        if self.cert is None or self.key is None:
            return None
        return grpc.ssl_server_credentials(
            [(self.key, self.cert)], self.ca, require_client_auth=self.ca is not None
        )

    def of_channel(self) -> grpc.ChannelCredentials | None:
        """``None`` to call in plain text. Without a ``ca`` the system's roots are trusted."""
        if self.cert is None and self.ca is None:
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


#: Neither proves nor asks anything.
OPEN = Credentials()


def read_credentials(
    *, cert: Path | None, key: Path | None, ca: Path | None, token: str | None
) -> Credentials:
    """Raises ``CredentialsError`` for a file that is missing or does not hold what its flag
    needs."""
    if (cert is None) != (key is None):
        given, missing = ("cert", "key") if key is None else ("key", "cert")
        raise CredentialsError(f"--tls-{given} needs --tls-{missing}; give both or neither")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise CredentialsError(
            "DUALPROCESS_GRPC_TOKEN must be printable ASCII and not empty; "
            "`openssl rand -hex 32` makes a good one"
        )
    credentials = Credentials(
        token=token,
        cert=_read("--tls-cert", cert),
        key=_read("--tls-key", key),
        ca=_read("--tls-ca", ca),
    )
    _check(cert, key, ca)
    return credentials


def _read(flag: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{flag} {path} can't be read: {error.strerror}") from error


def _check(cert: Path | None, key: Path | None, ca: Path | None) -> None:
    """Checks the files here: gRPC would only say that it could not bind or connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if cert is not None and key is not None:
        try:
            # An empty password, so that a key with a password does not make the service wait at a
            # prompt.
            context.load_cert_chain(cert, key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(
                f"--tls-cert {cert} and --tls-key {key} are not a PEM certificate with its key, "
                f"without a password: {error}"
            ) from error
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise CredentialsError(f"--tls-ca {ca} holds no PEM certificates: {error}") from error
