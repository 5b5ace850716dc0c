"""The limits of a body, in whatever pieces it comes; and how many faults an answer names."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dualprocess.schemas import ResolvedJobSpec
from tests.orchestrator.conftest import SPEC, Api, Guarded
from tests.orchestrator.scripted import png

JSON = {"Content-Type": "application/json"}
#: About 200 kB, as base64.
PICTURE = png("red", (8, 8)) + b"\x00" * 150_000


async def sent(api: Api, body: bytes, path: str = "/v1/jobs") -> dict[str, Any]:
    """The problem that the answer is."""
    answer = await api.http.post(path, content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    told: dict[str, Any] = answer.json()
    return told


def with_more(count: int) -> bytes:
    return json.dumps(SPEC | {f"f{number}": 1 for number in range(count)}).encode()


async def test_the_first_faults_are_told_and_how_many_there_are(api: Api) -> None:
    told = await sent(api, with_more(80))
    assert told["detail"] == (
        "80 fields can't be used as sent; these are the first 30; correct them first"
    )
    assert [error["field"] for error in told["errors"]] == [f"f{number}" for number in range(30)]


async def test_faults_of_many_specs_are_counted_too(api: Api) -> None:
    specs = [{f"f{number}": 1 for number in range(20)}] * 900
    told = await sent(api, json.dumps({"specs": specs}).encode(), "/v1/batches")
    assert told["detail"].startswith("20,700 fields can't be used as sent; these are the first 30")
    places = [error["field"] for error in told["errors"]]
    assert places[0] == "specs.0.questions"
    assert "specs.1.f0" in places


async def test_the_faults_of_specs_that_presets_find_are_counted_too(api: Api) -> None:
    specs = [SPEC | {"generator": "flux-9"}] * 50
    told = await sent(api, json.dumps({"specs": specs}).encode(), "/v1/batches")
    assert told["detail"].startswith("50 fields can't be used as sent; these are the first 30")
    assert len(told["errors"]) == 30


async def test_what_is_meant_is_guessed_for_a_few(api: Api) -> None:
    wrong = {f"promp{number}": 1 for number in range(20)}
    told = await sent(api, json.dumps(SPEC | wrong).encode())
    guessed = ["did you mean" in error["message"] for error in told["errors"]]
    assert guessed == [True] * 5 + [False] * 15


async def test_a_long_name_is_not_repeated(api: Api) -> None:
    told = await sent(api, json.dumps(SPEC | {"n" * 10_000: 1}).encode())
    (error,) = told["errors"]
    assert error == {
        "field": "n" * 199 + "…",
        "message": "is no field of this request; leave it out",
    }


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (with_more(101), "body", "has 107 fields; no part of a request may have more than 100"),
        (
            json.dumps(SPEC | {"metadata": {f"f{number}": "" for number in range(101)}}).encode(),
            "metadata",
            "has 101 fields",
        ),
        (json.dumps([0] * 50_001).encode(), "body", "more than 50,000 fields and items; send"),
        (b"[" * 33, "body", "has more than 32 lists and objects inside each other"),
        (b"]", "body", "is not JSON: it has a closing bracket without an opening one"),
        (b" " * 9_000_000, "body", "more than 8 MiB of spaces, numbers and brackets"),
        (b'"' + rb"\n" * 2_000_001 + b'"', "body", "more than 2,000,000 characters written with"),
        ('"' + "é" * 4_500_000 + '"', "body", "more than 8 MiB of characters outside of ASCII"),
        (b'{"prompt": ', "body", "is not JSON: EOF while parsing a value"),
        (b'{"prompt": "\xff"}', "body", "is not JSON: invalid unicode code point"),
        (rb'{"prompt": "\ud800"}', "body", "is not JSON: "),
        (b'{"prompt": %s}' % (b"1" * 5000), "body", "is not JSON: number out of range"),
        ("{}".encode("utf-16"), "body", "is not JSON: expected value"),
    ],
    ids=lambda value: str(value[:20]),
)
async def test_a_body_beyond_the_limits_is_named(
    guarded: Guarded, body: bytes | str, field: str, message: str
) -> None:
    owner = await guarded.owner(body_bytes=1 << 24)
    told = await sent(owner, body if isinstance(body, bytes) else body.encode())
    (error,) = told["errors"]
    assert error["field"] == field
    assert message in error["message"]


async def test_a_byte_order_mark_is_no_fault(api: Api) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(SPEC).encode()
    assert (await api.http.post("/v1/jobs", content=body, headers=JSON)).status_code == 202


async def test_who_may_not_ask_is_told_that_and_not_what_is_wrong(guarded: Guarded) -> None:
    reader = await guarded.owner("read")
    answer = await reader.http.post("/v1/jobs", content=b"{}", headers=JSON)
    assert answer.status_code == 403


async def test_faults_of_headers_and_body_are_told_together(api: Api) -> None:
    headers = JSON | {"Idempotency-Key": "k" * 201}
    answer = await api.http.post("/v1/batches", content=b'{"sped": 1}', headers=headers)
    assert [error["field"] for error in answer.json()["errors"]] == ["sped", "idempotency-key"]


def _escaped(text: str) -> str:
    return text.replace("/", r"\/").replace("+", r"\u002B").replace("=", r"\u003d")


def _in_lines(text: str) -> str:
    return r"\r\n".join(text[begin : begin + 76] for begin in range(0, len(text), 76))


def _as_url(text: str) -> str:
    return "data:image/png;base64," + text.replace("/", "%2F").replace("+", "%2b")


@pytest.mark.parametrize("written", [str, _escaped, _in_lines, _as_url])
@pytest.mark.parametrize("size", [7, 1000, 65_536])
async def test_a_picture_is_the_same_however_it_comes(api: Api, written: Any, size: int) -> None:
    text = written(base64.b64encode(PICTURE).decode())
    spec = SPEC | {
        "prompt": 'a café, \\ and "quotes" / 日本語',
        "questions": [{"question": "?", "answer": "Yes", "visual_prompt": {"image": "HERE"}}],
    }
    body = json.dumps(spec).replace("HERE", text).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), size):
            yield body[begin : begin + size]

    answer = await api.http.post("/v1/jobs", content=pieces(), headers=JSON)
    assert answer.status_code == 202, answer.text
    stored = ResolvedJobSpec.model_validate(answer.json()["spec"])
    assert stored.prompts == [spec["prompt"]]
    prompt = stored.questions[0].visual_prompt
    assert prompt is not None
    assert prompt.image == png("red", (8, 8))


@pytest.mark.parametrize("wrong", ["!", "é", "=AAA"])
async def test_a_long_picture_that_is_none_is_refused(api: Api, wrong: str) -> None:
    text = base64.b64encode(PICTURE).decode()
    image = text[:100_000] + wrong + text[100_000:]
    answer = await asked(api, image)
    assert "must be a picture file in base64" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("field", ["prompt", "generator", "name"])
async def test_a_long_text_is_too_long_wherever_only_words_belong(api: Api, field: str) -> None:
    body = json.dumps(SPEC | {field: "a" * 200_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 1000):
            yield body[begin : begin + 1000]

    answer = await api.http.post("/v1/jobs", content=pieces(), headers=JSON)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def asked(api: Api, image: str) -> httpx.Response:
    body = json.dumps({"image": image, "questions": ["?"], "vlm": "tiny-idefics2"}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 4096):
            yield body[begin : begin + 4096]

    answer = await api.http.post("/v1/answers", content=pieces(), headers=JSON)
    assert answer.status_code == 422
    return answer
