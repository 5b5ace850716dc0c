"""The webhook that is told about a job's end, as https://www.standardwebhooks.com defines it."""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from dualprocess.schemas.fields import Model

SECRET_PREFIX = "whsec_"  # noqa: S105  # what every secret begins with
_SECRET_BYTES = range(24, 65)


def secret_bytes(secret: str) -> bytes:
    """The key in a secret. Raises ``ValueError`` if it has none."""
    payload = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if payload == secret or len(key) not in _SECRET_BYTES:
        raise ValueError(
            "must be whsec_ and 24 to 64 random bytes in base64, as `echo whsec_$(openssl rand "
            "-base64 32)` makes one"
        )
    return key


def _is_secret(secret: str) -> str:
    secret_bytes(secret)
    return secret


Secret = Annotated[str, AfterValidator(_is_secret)]
WebhookUrl = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000),
    Field(description="An https address on the public internet."),
]


class Webhook(Model):
    """The address that gets a message when a job has ended, and the secret that signs the
    message."""

    url: WebhookUrl
    secret: Annotated[
        Secret | None,
        Field(
            repr=False,
            json_schema_extra={"writeOnly": True},
            description="Signs each message; never shown again. By default the service's own "
            "secret is used.",
        ),
    ] = None


class WebhookStatus(StrEnum):
    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class WebhookState(Model):
    """State of the message: waiting for the job's end, pending, delivered, or given up."""

    url: str
    status: WebhookStatus
    attempts: Annotated[int, Field(description="How often it was sent.")] = 0
    error: Annotated[str | None, Field(description="Why the last attempt failed.")] = None
