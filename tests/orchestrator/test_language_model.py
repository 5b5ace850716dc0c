"""Questions and prompts that a language model writes, behind a real endpoint."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from dualprocess.cli import app as cli
from dualprocess.cli.specs import load
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.keys import ApiKeys
from services.orchestrator.store.redis import Client
from tests.orchestrator.chat_server import KEY, ChatServer, chatting, serving
from tests.orchestrator.conftest import Api, Guarded
from tests.orchestrator.scripted import png
from tests.redis_server import RedisServer

GOOD = json.dumps(
    {
        "restated": "Is there a fox in the snow?",
        "questions": [{"question": "Is the fox red?", "answer": "yes", "drawing": True}],
    }
)
PROMPT = {"prompt": "a fox in the snow"}


@pytest.fixture
async def chat() -> AsyncIterator[ChatServer]:
    async with chatting() as chat:
        yield chat


def settings(url: str, artifacts: str, chat: ChatServer, **more: Any) -> ApiSettings:
    return ApiSettings.model_validate(
        {
            "redis_url": url,
            "artifacts": artifacts,
            "llm_base_url": chat.base_url,
            "llm_model": "some-model",
            "llm_api_key": KEY,
            **more,
        }
    )


@pytest.fixture
async def app(
    redis: Client, redis_server: RedisServer, artifacts: str, chat: ChatServer
) -> AsyncIterator[FastAPI]:
    app = create_app(settings(redis_server.url, artifacts, chat))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[Api]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Api(http)


async def post(api: Api, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await api.http.post("/v1/questions", json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_it_writes_where_no_vlm_is_named(api: Api, chat: ChatServer) -> None:
    chat.replies = [GOOD]
    told = await post(api, PROMPT)
    assert told == {
        "questions": [
            {"question": "Is there a fox in the snow?", "answer": "Yes", "on_drawing": False},
            {"question": "Is the fox red?", "answer": "Yes", "on_drawing": False},
        ],
        "job": None,
    }
    (asked,) = chat.asked
    assert asked["model"] == "some-model"
    (message,) = asked["messages"]
    assert message["role"] == "user"
    assert "The prompt: a fox in the snow" in message["content"]
    assert (await api.http.get("/v1/jobs")).json()["jobs"] == [], "it needs no GPU, so no job"
    assert (await api.http.get("/v1/models")).json()["writer"] == "some-model"


async def test_it_is_shown_the_drawing(api: Api, chat: ChatServer) -> None:
    chat.replies = [GOOD]
    drawing = {"image": base64.b64encode(png("red")).decode()}
    told = await post(api, PROMPT | {"visual_prompt": drawing})
    assert [question["on_drawing"] for question in told["questions"]] == [False, True]
    text, picture = chat.asked[0]["messages"][0]["content"]
    assert '"drawing": false' in text["text"]
    assert picture["image_url"]["url"] == f"data:image/png;base64,{drawing['image']}"


async def test_it_expands_a_prompt_as_it_is_told(api: Api, chat: ChatServer) -> None:
    chat.replies = ['{"prompt": "A red fox in deep snow."}']
    body = PROMPT | {"instructions": "In five words."}
    answer = await api.http.post("/v1/prompts/expand", json=body)
    assert answer.json() == {"prompt": "A red fox in deep snow.", "warnings": [], "job": None}
    assert chat.asked[0]["messages"][0]["content"].startswith("In five words.\n\n")


@pytest.mark.parametrize(("generator", "words"), [("sd-1.4", 46), ("flux-schnell", 153)])
async def test_a_prompt_for_a_generator_is_no_longer_than_it_reads(
    api: Api, chat: ChatServer, generator: str, words: int
) -> None:
    longer, fitting = " ".join(["fox"] * (words + 1)), " ".join(["fox"] * words)
    chat.replies = [json.dumps({"prompt": longer}), json.dumps({"prompt": fitting})]
    body = PROMPT | {"generator": generator}
    told = (await api.http.post("/v1/prompts/expand", json=body)).json()
    assert told == {"prompt": fitting, "warnings": [], "job": None}
    first, second = [asked["messages"][0]["content"] for asked in chat.asked]
    assert f"Write at most {words} words" in first
    assert f"about {words + 1} words" in second
    # A warning says that a writer wrote too much, in other scripts as well.
    for prompt in (longer, "猫" * 7 * (words + 1)):
        chat.replies = [json.dumps({"prompt": prompt})] * 2
        told = (await api.http.post("/v1/prompts/expand", json=body)).json()
        assert told["prompt"] == prompt
        (warning,) = told["warnings"]
        assert f"{generator} is sure to read {words}" in warning


async def test_where_the_tokenizer_is_known_the_place_is_told(api: Api, chat: ChatServer) -> None:
    chat.replies = [json.dumps({"prompt": "a red circle above a blue square " * 6})] * 2
    body = PROMPT | {"generator": "tiny-flux"}
    told = (await api.http.post("/v1/prompts/expand", json=body)).json()
    (warning,) = told["warnings"]
    assert warning.startswith("prompt is too long for tiny-flux: it reads as far as “…")


async def test_an_unknown_generator_is_refused(api: Api, chat: ChatServer) -> None:
    answer = await api.http.post("/v1/prompts/expand", json=PROMPT | {"generator": "none"})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["field"] == "generator"
    assert "choose one of" in fault["message"]
    assert chat.asked == []


async def test_a_bad_reply_is_asked_for_again_once(api: Api, chat: ChatServer) -> None:
    chat.replies = ['{"restated": ', GOOD]
    assert len((await post(api, PROMPT))["questions"]) == 2
    assert "could not be used" in chat.asked[1]["messages"][0]["content"]


async def test_two_bad_replies_are_a_502(api: Api, chat: ChatServer) -> None:
    chat.replies = ['{"restated": ', '{"questions": []}', GOOD]
    problem = await post(api, PROMPT, 502)
    assert problem["title"] == "The language model some-model twice wrote what can't be used"
    assert "restated: Field required" in problem["detail"]
    assert len(chat.asked) == 2


async def test_one_that_takes_too_long_is_a_504(api: Api, chat: ChatServer) -> None:
    chat.go.clear()
    problem = await post(api, PROMPT | {"wait": 0.2}, 504)
    assert "took more than 0.2 seconds" in problem["title"]
    assert "longer `wait`" in problem["detail"]


@pytest.mark.parametrize(
    ("failure", "status", "says"),
    [
        (Response("no such model", 404), 502, "it answered 404: no such model"),
        (Response("<html>"), 502, "not a chat completion; DUALPROCESS_LLM_BASE_URL must be"),
        (JSONResponse({"choices": []}), 502, "not a chat completion"),
        (Response(status_code=429, headers={"Retry-After": "7"}), 503, "it is busy now"),
        (JSONResponse({}, 500), 502, "it answered 500"),
    ],
    ids=["404", "html", "no choices", "429", "500"],
)
async def test_what_the_endpoint_answers_instead_is_told(
    api: Api, chat: ChatServer, failure: Response, status: int, says: str
) -> None:
    chat.failure = failure
    answer = await api.http.post("/v1/questions", json=PROMPT)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert answer.headers.get("retry-after") == failure.headers.get("retry-after")


async def test_a_key_that_it_refuses_is_named_and_not_told(
    redis: Client, redis_server: RedisServer, artifacts: str, chat: ChatServer
) -> None:
    chosen = settings(redis_server.url, artifacts, chat, llm_api_key=SecretStr("sk-old"))
    assert "sk-old" not in repr(chosen)
    app = create_app(chosen)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        problem = await post(Api(http), PROMPT, 502)
    assert "DUALPROCESS_LLM_API_KEY" in problem["detail"]
    assert KEY not in problem["detail"]


async def test_nobody_at_the_address_is_a_502(
    redis: Client, redis_server: RedisServer, artifacts: str, chat: ChatServer
) -> None:
    app = create_app(settings(redis_server.url, artifacts, chat, llm_base_url="http://127.0.0.1:9"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        assert "it can't be reached" in (await post(Api(http), PROMPT, 502))["detail"]


async def test_a_key_may_have_as_many_written_at_once_as_it_may_have_running(
    redis: Client, redis_server: RedisServer, artifacts: str, chat: ChatServer
) -> None:
    app = create_app(settings(redis_server.url, artifacts, chat, auth=True))
    async with app.router.lifespan_context(app):
        guarded = Guarded(app, ApiKeys(redis))
        owner, other = await guarded.owner(running=1), await guarded.owner(running=1)
        chat.go.clear()
        chat.replies = [GOOD] * 3
        first = asyncio.create_task(post(owner, PROMPT))
        async with asyncio.timeout(10):
            while not chat.asked:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert "quota of running jobs" in (await post(owner, PROMPT, 429))["title"]
        passing = asyncio.create_task(post(other, PROMPT))
        chat.go.set()
        await asyncio.gather(first, passing)
        await post(owner, PROMPT)


async def test_the_command_line_writes_what_a_job_file_can_hold(
    app: FastAPI, chat: ChatServer, tmp_path: Path
) -> None:
    (tmp_path / "line.png").write_bytes(png("red"))
    chat.replies = [GOOD, '{"prompt": "A red fox in deep snow."}']

    async def run(url: str, *arguments: str) -> str:
        command = [*arguments, "--url", url]
        done = await asyncio.to_thread(CliRunner().invoke, cli, command)
        assert done.exit_code == 0, done.output
        return done.stdout

    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}"
        drawing = ["--drawing", str(tmp_path / "line.png"), "--question", "Is it on the line?"]
        questions = await run(url, "questions", "a fox in the snow", *drawing)
        expanded = await run(url, "expand", "a fox in the snow")
    assert expanded == "A red fox in deep snow.\n"
    file = tmp_path / "job.yaml"
    file.write_text(f"prompt: {expanded}generator: flux-dev\nvlm: idefics2\n{questions}")
    spec = load(str(file))
    assert [(one.question, one.answer, one.visual_prompt is None) for one in spec.questions] == [
        ("Is there a fox in the snow?", "Yes", True),
        ("Is it on the line?", "Yes", False),
        ("Is the fox red?", "Yes", False),
    ]
    assert spec.questions[1].visual_prompt is not None
    assert spec.questions[1].visual_prompt.image == png("red")


def test_an_endpoint_is_named_with_its_model(tmp_path: Path) -> None:
    environment = {
        "DUALPROCESS_LLM_BASE_URL": "http://llm/v1",
        "DUALPROCESS_LLM_API_KEY": KEY,
        "DUALPROCESS_ARTIFACTS": tmp_path.as_uri(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.orchestrator.api"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "api: --llm-base-url and --llm-model must be set together: set both, or none\n"
    )
