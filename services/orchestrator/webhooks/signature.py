"""Standard Webhooks' headers: https://www.standardwebhooks.com, "Signature scheme"."""

from __future__ import annotations

import base64
import hashlib
import hmac

from dualprocess.schemas.webhooks import secret_bytes


def signed_headers(message_id: str, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    """``timestamp`` is the attempt's, in seconds. The signature is HMAC-SHA256 over
    ``id.timestamp.body``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(secret_bytes(secret), signed, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
