"""Every wrong request is a problem that names the field and the remedy."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from dualprocess.schemas import ResolvedJobSpec
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api
from tests.orchestrator.scripted import png
from tests.redis_server import RedisServer


def _drawn(image: bytes | str) -> dict[str, Any]:
    text = image if isinstance(image, str) else base64.b64encode(image).decode()
    question = {"question": "?", "answer": "Yes", "visual_prompt": {"image": text}}
    return {"questions": [question]}


IMAGE_FIELD = "questions.0.visual_prompt.image"
TALKATIVE = {"questions": [{"question": "x" * 4000, "answer": "Yes"}] * 6}
WEIGHTLESS = {"questions": [{"question": "Is it red?", "answer": "Yes", "weight": 0}]}
NO_ANSWER = {"questions": [{"question": "Is it red?", "answer": " "}]}
TOO_MANY_PIXELS = png("white", (4097, 4096))

WRONG_SPECS = [
    ({"generator": "flux-9"}, "generator", "tiny-flux"),
    ({"vlm": "gpt"}, "vlm", "tiny-idefics2"),
    ({"questions": []}, "questions", "at least one"),
    (TALKATIVE, "questions", "have 24,018 characters together; write at most 20,000"),
    (NO_ANSWER, "questions.0.answer", "empty"),
    ({"propmt": "x"}, "propmt", "'prompt'"),
    ({"optimizer": {"step": 1}}, "optimizer.step", "'steps'"),
    ({"image": {"width": 67}}, "image.width", "64 or 72"),
    ({"image": {"guidance_scale": 3}}, "image.guidance_scale", "0"),
    ({"optimizer": {"steps": 0}}, "optimizer.steps", "greater than or equal to 1"),
    ({"optimizer": {"steps": 10**6}}, "optimizer.steps", "less than or equal to 10000"),
    ({"eval": {"every": 10**6}}, "eval.every", "less than or equal to 10000"),
    ({"optimizer": {"steps": True}}, "optimizer.steps", "must be a number"),
    ({"stop_at_score": True}, "stop_at_score", "must be a number"),
    ({"guard": "on"}, "guard", "write off, or an object with anchor, margin and worst_case"),
    ({"guard": True}, "guard", "write off, or an object"),
    ({"guard": 3}, "guard", "write off, or an object"),
    ({"guard": None}, "guard", "write off, or an object"),
    ({"guard": {"margin": 0}}, "guard.margin", "greater than 0"),
    ({"guard": {"margin": 1.5}}, "guard.margin", "less than or equal to 1"),
    ({"guard": {"anchor": -1}}, "guard.anchor", "greater than or equal to 0"),
    ({"guard": {"anchor": True}}, "guard.anchor", "must be a number"),
    ({"guard": {"worst_case": 2}}, "guard.worst_case", "less than or equal to 1"),
    ({"guard": {"worst": 0}}, "guard.worst", "'worst_case'"),
    ({"guard": {"margin": 0.9}, "stop_at_score": 0.9}, "guard.margin", "leave it out, or write 1"),
    ({"guard": {"margin": 0.5}, "stop_at_score": 1}, "guard.margin", "above stop_at_score (1)"),
    (WEIGHTLESS, "questions.0.weight", "greater than 0"),
    ({"optimizer": {"noise_seeds": 0}}, "optimizer.noise_seeds", "1"),
    ({"metadata": {"notes": "x" * 1001}}, "metadata.notes", "at most 1000 characters"),
    ({"prompt": None}, "prompt", "missing"),
    ({"prompts": ["a", "b"]}, "prompts", "leave one"),
    (_drawn("no base64!"), IMAGE_FIELD, "base64"),
    (_drawn(b"GIF89a, not a PNG"), IMAGE_FIELD, "PNG or JPEG"),
    (_drawn(png("red")[:60]), IMAGE_FIELD, "PNG or JPEG"),
    (_drawn(TOO_MANY_PIXELS), IMAGE_FIELD, "too many"),
    (_drawn(png("white", (30_000, 2))), IMAGE_FIELD, "8192 a side"),
]


def _assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    return problem


@pytest.mark.parametrize(
    ("changes", "field", "remedy"), WRONG_SPECS, ids=lambda value: str(value)[:40]
)
async def test_a_wrong_spec_names_field_and_remedy(
    api: Api, changes: dict[str, Any], field: str, remedy: str
) -> None:
    problem = _assert_problem(await api.http.post("/v1/jobs", json=SPEC | changes), 422)
    messages = {error["field"]: error["message"] for error in problem["errors"]}
    assert remedy in messages[field]


async def test_drawings_and_images_that_no_message_holds_are_refused(
    redis_server: RedisServer, artifacts: str
) -> None:
    noise = np.random.default_rng(0).integers(256, size=(1024, 1024, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    spec = SPEC | {
        "generator": "flux-schnell",
        "questions": _drawn(buffer.getvalue())["questions"] * 3,
        "image": {"width": 1024, "height": 1024},
        "optimizer": {"batch": 10},
    }
    app = create_app(ApiSettings(redis_url=redis_server.url, artifacts=artifacts))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        problem = _assert_problem(await http.post("/v1/jobs", json=spec), 422)
    (error,) = problem["errors"]
    assert error["field"] == "optimizer.batch"
    assert "write at most 9 and make accumulate larger" in error["message"]


async def test_a_drawing_is_kept_as_plain_pixels(api: Api) -> None:
    job = await api.submit(
        **_drawn("data:image/png;base64," + base64.b64encode(png("red")).decode())
    )
    assert isinstance(job.spec, ResolvedJobSpec)
    prompt = job.spec.questions[0].visual_prompt
    assert prompt is not None
    assert prompt.image == png("red")


async def test_no_json_is_no_request(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.http.post("/v1/jobs", content=b'{"prompt": ', headers=headers)
    assert _assert_problem(answer, 422)["errors"][0]["field"] == "body"


async def test_a_large_body_is_refused_before_it_is_parsed(api: Api) -> None:
    _assert_problem(await api.http.post("/v1/jobs", content=b"x" * (2 << 20)), 413)


async def test_a_large_body_of_unknown_length_is_refused(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * (1 << 16)

    headers = {"Content-Type": "application/json"}
    _assert_problem(await api.http.post("/v1/jobs", content=pieces(), headers=headers), 413)


async def test_an_idempotency_key_makes_one_job(api: Api) -> None:
    headers = {"Idempotency-Key": "mine"}
    answers = await asyncio.gather(
        *[api.http.post("/v1/jobs", json=SPEC, headers=headers) for _ in range(5)]
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await api.http.post("/v1/jobs", json=SPEC | {"prompt": "else"}, headers=headers)
    assert _assert_problem(other, 422)["errors"][0]["field"] == "Idempotency-Key"
    assert len((await api.http.get("/v1/jobs")).json()["jobs"]) == 1


async def test_jobs_are_listed_newest_first_in_pages(api: Api) -> None:
    ids = []
    for _ in range(5):
        ids.append((await api.submit()).id)
        await asyncio.sleep(0.002)
    await api.http.post(f"/v1/jobs/{ids[0]}/cancel")
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2, "status": "queued"}
    while True:
        page = (await api.http.get("/v1/jobs", params=query)).json()
        seen += [job["id"] for job in page["jobs"]]
        if not page.get("next"):
            break
        query["cursor"] = page["next"]
    assert seen == ids[:0:-1]


IMAGES = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}


async def test_questions_about_images_need_a_vlm(api: Api) -> None:
    body = IMAGES | {"questions": SPEC["questions"]}
    problem = _assert_problem(await api.http.post("/v1/images", json=body), 422)
    assert problem["errors"][0]["field"] == "vlm"


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({}, "best_of", "needs questions"),
        ({"questions": SPEC["questions"], "seeds": [1, 2, 3]}, "best_of", "write 3 or more"),
        ({"best_of": 65}, "best_of", "less than or equal to 64"),
        ({"best_of": 0}, "best_of", "greater than or equal to 1"),
        ({"best_of": True}, "best_of", "must be a number"),
    ],
)
async def test_the_best_of_what_cannot_be_ranked_is_refused(
    api: Api, changes: dict[str, Any], field: str, remedy: str
) -> None:
    body = IMAGES | {"vlm": "tiny-idefics2", "best_of": 2} | changes
    problem = _assert_problem(await api.http.post("/v1/images", json=body), 422)
    messages = {error["field"]: error["message"] for error in problem["errors"]}
    assert remedy in messages[field]


async def test_a_lora_must_exist_be_trained_and_fit(api: Api, redis: Client) -> None:
    untrained = await api.submit()
    foreign = await api.submit(generator="flux-schnell", image={"width": 512, "height": 512})
    queue = Queue(redis)
    await redis.hset(
        f"dualprocess:job:{foreign.id}:artifacts",
        "pytorch_lora_weights.safetensors",
        'p {"name": "pytorch_lora_weights.safetensors", "media_type": "x/y", "bytes": 1,'
        ' "sha256": "0"}',
    )
    await queue.cancel(foreign.id)
    loras = [{"job": "0" * 26}, {"job": untrained.id}, {"job": foreign.id}]
    answer = await api.http.post("/v1/images", json=IMAGES | {"loras": loras})
    errors = _assert_problem(answer, 422)["errors"]
    assert [error["field"] for error in errors] == [f"loras.{i}.job" for i in range(3)]
    for error, sentence in zip(errors, ("no job", "has no LoRA", "does not fit"), strict=True):
        assert sentence in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/jobs/" + "0" * 26, 404),
        ("GET", "/v1/jobs/UPPER", 422),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/jobs?limit=0", 422),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int) -> None:
    _assert_problem(await api.http.request(method, path), status)


async def test_health_and_metrics(api: Api) -> None:
    await api.submit()
    for path in ("/healthz", "/readyz", "/docs"):
        assert (await api.http.get(path)).status_code == 200
    text = (await api.http.get("/metrics")).text
    assert 'dualprocess_queue_depth{generator="tiny-flux",vlms="tiny-idefics2"} 1.0' in text


async def test_without_redis_the_api_says_when_to_come_back(tmp_path: Path) -> None:
    away = RedisServer(tmp_path)
    app = create_app(ApiSettings(redis_url=away.url, artifacts=(tmp_path / "a").as_uri()))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        for answer in (
            await http.post("/v1/jobs", json=SPEC),
            await http.get("/v1/jobs"),
            await http.get("/readyz"),
        ):
            _assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        assert (await http.get("/healthz")).status_code == 200
