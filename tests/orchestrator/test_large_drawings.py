"""Drawings that are too large together are refused; while they are read, others are served."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from services.orchestrator.api import pictures
from tests.orchestrator.conftest import SPEC, Api
from tests.orchestrator.scripted import png

LARGEST = png("white", (4096, 4096))
JOB = ("/v1/jobs", SPEC)
IMAGES = (
    "/v1/images",
    {"prompt": "a circle", "generator": "tiny-flux", "vlm": "tiny-idefics2", "seeds": [1]},
)
routes = pytest.mark.parametrize(("route", "body"), [JOB, IMAGES], ids=["jobs", "images"])


def drawn(*images: bytes) -> dict[str, Any]:
    prompts = [{"image": base64.b64encode(image).decode()} for image in images]
    return {
        "questions": [
            {"question": f"Question {index}?", "answer": "Yes", "visual_prompt": prompt}
            for index, prompt in enumerate(prompts)
        ]
    }


@routes
async def test_others_are_served_while_drawings_are_read(
    api: Api, route: str, body: dict[str, Any]
) -> None:
    faulty = body | drawn(LARGEST, LARGEST, b"no picture")
    reading = asyncio.create_task(api.http.post(route, json=faulty))
    served = 0
    while not reading.done():
        assert (await api.http.get("/healthz")).is_success
        await asyncio.sleep(0.01)
        served += 1
    assert reading.result().status_code == 422
    assert served > 10


@routes
async def test_drawings_have_so_many_pixels_together(
    api: Api, route: str, body: dict[str, Any]
) -> None:
    answer = await api.http.post(route, json=body | drawn(*[LARGEST] * 5, b"no picture"))
    assert answer.status_code == 422
    message = "have drawings of more than 67 million pixels together; send smaller ones"
    assert answer.json()["errors"] == [{"field": "questions", "message": message}]


@routes
async def test_drawings_have_so_many_bytes_together(
    api: Api, route: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = png("red", (64, 64))
    monkeypatch.setattr(pictures, "MAX_DRAWN_BYTES", 2 * len(picture))
    body = body | {"wait": 0} if route == "/v1/images" else body
    accepted = await api.http.post(route, json=body | drawn(picture, picture))
    assert accepted.status_code == 202, accepted.text
    refused = await api.http.post(route, json=body | drawn(picture, picture, picture))
    assert refused.status_code == 422
    [fault] = refused.json()["errors"]
    assert fault["field"] == "questions"
    assert "together, as PNG; send smaller or plainer ones" in fault["message"]
