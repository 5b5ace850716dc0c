"""Limits the bodies that the page sends to Gradio, since Gradio reads them on the event loop."""

from __future__ import annotations

from starlette.types import Message, Receive

from services.orchestrator.json_outline import Outline, TooMuch

#: The most bytes of a body. Drawings are the large part of it.
MAX_BYTES = 24 * 1024 * 1024


async def within_limits(receive: Receive) -> Receive:
    """A ``receive`` that gives the same body again. Raises ``TooMuch`` after all of it came."""
    outline, pieces, size = Outline(), list[bytes](), 0
    fault: TooMuch | None = None
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _then(message, receive)
        piece = message.get("body", b"")
        size += len(piece)
        if fault is None:
            try:
                outline.feed(piece)
                pieces.append(piece)
                if size > MAX_BYTES:
                    raise TooMuch(f"has more than {MAX_BYTES >> 20} MiB; make drawings smaller")
            except TooMuch as error:
                fault = error
                pieces.clear()
        if not message.get("more_body", False):
            break
    if fault is not None:
        raise fault
    return _then({"type": "http.request", "body": b"".join(pieces), "more_body": False}, receive)


def _then(message: Message, receive: Receive) -> Receive:
    """A ``receive`` that gives this message first."""
    messages = [message]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
