"""Checks a job's webhook before the job is accepted."""

from __future__ import annotations

from dualprocess.schemas import FieldError, Webhook
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.webhooks.addresses import AddressPolicy, AddressRefused


async def complete_webhook(
    webhook: Webhook | None, policy: AddressPolicy, secret: str | None
) -> Webhook | None:
    """The webhook with a secret: its own, else ``secret``. Raises ``InvalidSpec`` for an address
    that is refused now (it is checked again at each delivery), and if there is no secret."""
    if webhook is None:
        return None
    try:
        url = policy.parsed(webhook.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        await policy.addresses(url.raw_host.decode(), port, scheme=url.scheme)
    except AddressRefused as error:
        raise InvalidSpec(FieldError(field="webhook.url", message=str(error))) from error
    if webhook.secret is None and secret is None:
        message = (
            "is missing, and this service has no secret of its own; send whsec_ and 24 to 64 "
            "random bytes in base64"
        )
        raise InvalidSpec(FieldError(field="webhook.secret", message=message))
    return webhook.model_copy(update={"secret": webhook.secret or secret})
