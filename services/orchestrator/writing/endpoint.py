"""A language model behind an OpenAI-compatible endpoint: one message, one reply.

Wire format: https://platform.openai.com/docs/api-reference/chat/create. No optional part of it is
used, since compatible endpoints differ there.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from dualprocess.connection import async_transport, bearer, certificates, setting_up

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
#: Of an error's body: a sentence, not a page.
_SHOWN = 300


class EndpointFault(Exception):
    """The endpoint did not reply. The message says why, and what its operator can do."""


class EndpointBusy(EndpointFault):
    """It may later: after ``seconds``, if it said so."""

    def __init__(self, sentence: str, seconds: int | None) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class _Message(BaseModel):
    content: str | None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class Endpoint:
    """``base_url`` ends where ``/chat/completions`` begins; ``model`` is the endpoint's name.

    Raises ``InvalidSetup`` for a key, or an environment, that nothing can be sent with.
    """

    def __init__(self, base_url: str, model: str, api_key: str | None) -> None:
        self.model = model
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        headers = bearer(api_key)
        # Whoever asks says how long; a model may think for minutes before its first byte.
        patience = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        with setting_up():
            self._http = httpx.AsyncClient(
                headers=headers,
                timeout=patience,
                verify=certificates(base_url),
                transport=async_transport(base_url),
            )

    async def close(self) -> None:
        await self._http.aclose()

    async def reply(self, text: str, picture: bytes | None = None) -> str:
        """What the model says to ``text`` and perhaps a PNG. Raises ``EndpointFault``."""
        body = {"model": self.model, "messages": [_message(text, picture)]}
        try:
            answer = await self._http.post(self._url, json=body)
        except httpx.HTTPError as error:
            log.warning("the language model at %s: %r", self._url, error)
            raise EndpointFault(f"it can't be reached ({type(error).__name__})") from error
        if not answer.is_success:
            raise _fault(answer)
        try:
            completion = _Completion.model_validate_json(answer.content)
        except ValidationError as error:
            raise EndpointFault(
                "the answer is not a chat completion; DUALPROCESS_LLM_BASE_URL must be the "
                "address before /chat/completions, like https://api.openai.com/v1"
            ) from error
        return completion.choices[0].message.content or ""


def _message(text: str, picture: bytes | None) -> dict[str, Any]:
    if picture is None:
        return {"role": "user", "content": text}
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


def _fault(answer: httpx.Response) -> EndpointFault:
    said = " ".join(answer.text.split())[:_SHOWN]
    log.warning("the language model answered %d: %s", answer.status_code, said)
    if answer.status_code in (401, 403):
        return EndpointFault(
            f"it refuses this service's key ({answer.status_code}); whoever runs the service sets "
            "DUALPROCESS_LLM_API_KEY"
        )
    if answer.status_code in (429, 503):
        pause = answer.headers.get("Retry-After", "")
        seconds = int(pause) if pause.isdecimal() and len(pause) < 6 else None
        return EndpointBusy(f"it is busy now ({answer.status_code})", seconds)
    return EndpointFault(f"it answered {answer.status_code}: {said}")
