"""Certificates: whether they are valid, and for how long."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from dualprocess.connection import certificates_fault
from services.common.credentials import CredentialsError
from services.common.settings import GrpcSettings
from services.orchestrator.doctor.finding import Finding, fine, problem, warning

_SOON_DAYS = 14


def of_tls(settings: GrpcSettings) -> list[Finding]:
    found = []
    if fault := certificates_fault():
        found.append(problem("tls", fault, "as it says"))
    try:
        settings.credentials()
    except CredentialsError as error:
        return [*found, problem("tls", str(error), "as it says")]
    if settings.tls_cert is None or settings.tls_key is None:
        how = "a token" if settings.grpc_token else "neither certificates nor a token"
        return [*found, fine("tls", f"this process has {how} for generators and VLMs")]
    if settings.tls_ca is None:
        return [
            *found,
            fine(
                "tls",
                f"{settings.tls_cert} fits its key; without --tls-ca no peer needs a certificate",
            ),
        ]
    return [*found, _of_certificate(settings.tls_cert, settings.tls_key, settings.tls_ca)]


def _of_certificate(cert: Path, key: Path, ca: Path) -> Finding:
    try:
        ends = _shaken_hands(cert, key, ca)
    except ssl.SSLCertVerificationError as error:
        return problem(
            "tls",
            f"--tls-cert {cert} is not accepted by --tls-ca {ca}: {error.verify_message}",
            "issue one that is valid now, from the authority that the others trust",
        )
    except ssl.SSLError as error:
        return problem("tls", f"--tls-cert {cert}: {error.reason}", "issue another one")
    days = (ends - time.time()) / 86400
    said = f"{ca} accepts {cert}, for {days:.0f} more days"
    if days < _SOON_DAYS:
        return warning("tls", said, "issue a new one, and restart the services with it")
    return fine("tls", said)


def _shaken_hands(cert: Path, key: Path, ca: Path) -> float:
    """Connects to itself in memory, as a peer would, and returns when the certificate expires."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(cert, key, password="")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.load_verify_locations(ca)
    theirs.check_hostname = False
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(up, down, server_side=True)
    client = theirs.wrap_bio(down, up)
    ends = {client, server}
    # A handshake takes a few turns; one that fails raises.
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    told = client.getpeercert()
    assert told is not None
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))
