"""Words of a VLM, through REST, Redis, worker and gRPC."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from dualprocess.schemas import Answers, Job, JobStatus
from services.local.ports import free_port
from tests.orchestrator.conftest import Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator, ScriptedVlm, png

#: A VLM that writes, in the place of the one that the site has.
WRITER = "qwen2.5-vl"
PROMPT = {"prompt": "a fox in the snow", "vlm": WRITER}
PICTURE = base64.b64encode(png("red")).decode()
ASK = {"image": PICTURE, "questions": ["What is it?", "Where?"], "vlm": "tiny-idefics2"}


def written(*pairs: tuple[str, str], restated: str = "Is there a fox in the snow?") -> str:
    listed = [{"question": question, "answer": answer} for question, answer in pairs]
    return json.dumps({"restated": restated, "questions": listed})


@pytest.fixture
async def writing(site: Site) -> Site:
    """A worker reaches the VLM under the name of one that writes as well."""
    site.settings.vlms[WRITER] = site.settings.vlms["tiny-idefics2"]
    site.start_worker()
    return site


def pictures(artifacts: str) -> list[Path]:
    return list(Path(httpx.URL(artifacts).path).rglob("image.png"))


async def post(api: Api, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await api.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_vlm_answers_about_an_image(api: Api, site: Site, vlm: ScriptedVlm) -> None:
    site.start_worker()
    vlm.replies = ["a red square", "everywhere"]
    told = await post(api, "/v1/answers", ASK | {"question_postfix": "Say.", "max_new_tokens": 9})
    assert told["answers"] == ["a red square", "everywhere"]
    job = Job.model_validate(told["job"])
    assert (job.kind, job.generator, job.vlms) == ("answers", "", ["tiny-idefics2"])
    assert job.result == Answers(answers=["a red square", "everywhere"])
    assert [(asked.questions[0], asked.question_postfix) for asked in vlm.asked] == [
        ("What is it?", "Say."),
        ("Where?", "Say."),
    ]
    assert {(asked.image, asked.max_new_tokens) for asked in vlm.asked} == {(png("red"), 9)}
    kept = await api.http.get(f"/v1/jobs/{job.id}/artifacts/image.png")
    assert kept.content == png("red")


async def test_words_not_ready_in_time_are_in_the_job_later(api: Api, site: Site) -> None:
    answer = await api.http.post("/v1/answers", json=ASK | {"wait": 0})
    assert answer.status_code == 202
    assert answer.json()["answers"] is None
    job = Job.model_validate(answer.json()["job"])
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    assert job.waiting_for == "a worker that serves tiny-idefics2; none is alive"
    site.start_worker()
    ended = await api.ended(job.id)
    assert ended.result == Answers(answers=["I see", "I see"])


async def test_words_go_ahead_of_what_trains(
    api: Api, site: Site, generator: ScriptedGenerator, vlm: ScriptedVlm
) -> None:
    training = await api.submit()
    asked = await post(api, "/v1/answers", ASK | {"wait": 0}, 202)
    generator.go.clear()
    site.start_worker(slots=1)
    assert (await api.ended(asked["job"]["id"])).status == JobStatus.SUCCEEDED
    generator.go.set()
    await api.ended(training.id)


async def test_a_job_of_words_waits_for_its_vlm_and_can_be_cancelled(
    api: Api, site: Site, vlm: ScriptedVlm
) -> None:
    vlm.away = True
    site.start_worker(lease_seconds=1.0)
    job_id = (await post(api, "/v1/answers", ASK | {"wait": 0}, 202))["job"]["id"]
    waiting = await api.until(job_id, lambda job: job.waiting_for and job.attempt)
    assert "nobody is at home (to speak)" in (waiting.waiting_for or "")
    await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (await api.ended(job_id)).status == JobStatus.CANCELLED


async def test_a_job_whose_vlm_is_away_keeps_nobody_else_waiting(
    api: Api, site: Site, vlm: ScriptedVlm
) -> None:
    asked = await post(api, "/v1/answers", ASK | {"vlm": "idefics2", "wait": 0}, 202)
    training = await api.submit()
    # Nobody listens there.
    vlms = {**site.settings.vlms, "idefics2": f"127.0.0.1:{free_port()}"}
    site.start_worker(slots=1, vlms=vlms)
    assert (await api.ended(training.id)).status == JobStatus.SUCCEEDED
    waiting = await api.job(asked["job"]["id"])
    assert (waiting.status, waiting.attempt) == (JobStatus.QUEUED, 0)
    assert waiting.waiting_for == "a worker that serves idefics2; none is alive"


async def test_a_vlm_that_is_late_each_time_ends_the_attempt(
    api: Api, site: Site, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.orchestrator.worker.words.SECONDS", 0.05)
    vlm.never_answers = True
    site.start_worker(attempts=1)
    problem = await post(api, "/v1/answers", ASK, 502)
    assert "gave no answer to speak in time, 3 times in a row" in problem["detail"]


async def test_a_job_of_words_is_no_company_on_a_generator(
    api: Api, site: Site, generator: ScriptedGenerator, vlm: ScriptedVlm
) -> None:
    """A job that kills the generator beside it is the only one to blame."""
    vlm.away = True
    generator.go.clear()
    asked = (await post(api, "/v1/answers", ASK | {"wait": 0}, 202))["job"]["id"]
    training = await api.submit()
    site.start_worker(slots=2)
    await api.until(asked, lambda job: job.waiting_for and job.attempt)
    await api.until(training.id, lambda job: job.step == 1)
    generator.die()
    generator.go.set()
    blamed = await api.until(training.id, lambda job: job.causes)
    assert blamed.causes == ["attempt 1: the generator tiny-flux: Socket closed"]
    vlm.away = False
    ended = await api.ended(training.id)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 2)
    assert (await api.ended(asked)).status == JobStatus.SUCCEEDED


async def test_a_job_that_is_cancelled_meanwhile_is_a_409(api: Api) -> None:
    asking = asyncio.create_task(post(api, "/v1/answers", ASK, 409))
    async with asyncio.timeout(10):
        while not (jobs := (await api.http.get("/v1/jobs")).json()["jobs"]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await api.http.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
    assert jobs[0]["id"] in (await asking)["title"]


async def test_what_the_vlm_refuses_is_its_own_sentence(
    api: Api, site: Site, vlm: ScriptedVlm
) -> None:
    vlm.refusal = "questions.0: '<image>' is a control token of this model; leave it out"
    site.start_worker()
    problem = await post(api, "/v1/answers", ASK, 422)
    assert problem["title"] == "The VLM tiny-idefics2 refuses this"
    assert "leave it out" in problem["detail"]


async def test_a_vlm_that_fails_each_time_is_a_502(api: Api, site: Site, vlm: ScriptedVlm) -> None:
    vlm.crashes = True
    site.start_worker()
    problem = await post(api, "/v1/answers", ASK, 502)
    assert "attempt 3: the VLM tiny-idefics2" in problem["detail"]
    assert "out of memory" in problem["detail"]


async def test_questions_are_written_checked_and_told_once(
    api: Api, writing: Site, vlm: ScriptedVlm
) -> None:
    reply = written(
        ("Is the fox red?", "yes."),
        ("is there a fox in the snow", "Yes"),
        ("Is the fox  RED?!", "Yes"),
        ("Does it rain?", "No"),
        ("Are there trees?", "Yes"),
    )
    vlm.replies = [f"Sure! Here you are:\n```json\n{reply}\n```"]
    told = await post(api, "/v1/questions", PROMPT | {"count": 3})
    assert told["questions"] == [
        {"question": "Is there a fox in the snow?", "answer": "Yes", "on_drawing": False},
        {"question": "Is the fox red?", "answer": "Yes", "on_drawing": False},
        {"question": "Does it rain?", "answer": "No", "on_drawing": False},
    ]
    (asked,) = vlm.asked
    assert "a fox in the snow" in asked.questions[0]
    assert "at most 3 questions" in asked.questions[0]
    assert Image.open(io.BytesIO(asked.image)).getcolors(1) is not None, "there is nothing to see"


async def test_a_question_one_has_is_kept_and_the_drawing_is_shown(
    api: Api, writing: Site, vlm: ScriptedVlm
) -> None:
    line = "Is the overlaid red line aligned with the horizon?"
    drawn = {"question": "Is the fox left of the overlaid line?", "answer": "Yes", "drawing": True}
    reply = json.loads(written((line.lower(), "No"))) | {"restated": "A fox in the snow?"}
    reply["questions"].append(drawn)
    vlm.replies = [json.dumps(reply)]
    first = {"question": line, "answer": "Yes", "on_drawing": True}
    told = await post(
        api,
        "/v1/questions",
        PROMPT | {"first": first, "visual_prompt": {"image": PICTURE}, "instructions": "Be brief."},
    )
    assert [question["question"] for question in told["questions"]] == [
        "A fox in the snow?",
        line,
        "Is the fox left of the overlaid line?",
    ]
    assert [question["answer"] for question in told["questions"]] == ["Yes", "Yes", "Yes"]
    assert [question["on_drawing"] for question in told["questions"]] == [False, True, True]
    (asked,) = vlm.asked
    assert asked.image == png("red")
    assert asked.questions[0].startswith("Be brief.\n\n")
    assert line in asked.questions[0]


@pytest.mark.parametrize(
    "bad", ["I can't.", '{"restated": "Is it', '{"questions": []}', '{"restated": " "}', "{" * 99]
)
async def test_a_bad_reply_is_asked_for_again_once(
    api: Api, writing: Site, vlm: ScriptedVlm, bad: str
) -> None:
    vlm.replies = [bad, written()]
    told = await post(api, "/v1/questions", PROMPT)
    assert [question["question"] for question in told["questions"]] == [
        "Is there a fox in the snow?"
    ]
    first, second = [asked.questions[0] for asked in vlm.asked]
    assert second.startswith(first), "a VLM would say the same to the same words"
    assert "could not be used" in second.removeprefix(first)


@pytest.mark.parametrize("path", ["/v1/questions", "/v1/prompts/expand"])
async def test_an_echo_is_no_reply(api: Api, writing: Site, vlm: ScriptedVlm, path: str) -> None:
    await post(api, path, PROMPT, 502)
    vlm.replies = [vlm.asked[-1].questions[0]] * 2
    assert "only repeats the form" in (await post(api, path, PROMPT, 502))["detail"]


async def test_two_bad_replies_are_a_502(api: Api, writing: Site, vlm: ScriptedVlm) -> None:
    vlm.replies = ["I can't.", "I still can't."]
    problem = await post(api, "/v1/questions", PROMPT, 502)
    assert WRITER in problem["title"]
    assert "twice wrote what can't be used: it holds no JSON object" in problem["detail"]
    assert len(vlm.asked) == 2


async def test_a_prompt_is_expanded(api: Api, writing: Site, vlm: ScriptedVlm) -> None:
    longer = "A red fox stands in deep snow at dusk."
    vlm.replies = [f'<think>{{"prompt": "short"}}</think>{{"prompt": "{longer}"}}']
    told = await post(api, "/v1/prompts/expand", PROMPT)
    assert told["prompt"] == longer
    job = await api.job(told["job"]["id"])
    assert job.result is not None
    assert job.result.model_dump() == {"prompt": longer}


async def test_a_prompt_that_is_too_long_for_its_generator_is_told_of_in_the_job(
    api: Api, writing: Site, vlm: ScriptedVlm
) -> None:
    vlm.replies = [json.dumps({"prompt": " ".join(["fox"] * 60)})] * 2
    told = await post(api, "/v1/prompts/expand", PROMPT | {"generator": "sd-1.4"})
    (warning,) = told["warnings"]
    assert "60 words, and sd-1.4 is sure to read 46" in warning
    assert told["job"]["warnings"] == [warning]
    assert "Write at most 46 words" in vlm.asked[0].questions[0]


TINY = {"prompt": "a circle", "vlm": "tiny-idefics2"}
RED = {"question": "Is it red?", "answer": "Yes"}
FIRST = RED | {"on_drawing": True}


@pytest.mark.parametrize(
    ("path", "body", "field", "remedy"),
    [
        ("/v1/questions", TINY, "vlm", "too small a model to write: name one of gemma3"),
        ("/v1/prompts/expand", TINY, "vlm", "set up a language model for the service"),
        ("/v1/questions", {"prompt": "a circle"}, "vlm", "DUALPROCESS_LLM_BASE_URL"),
        ("/v1/prompts/expand", PROMPT | {"vlm": "gpt"}, "vlm", "choose one of"),
        ("/v1/prompts/expand", {"prompt": "x" * 3900, "vlm": WRITER}, "prompt", "shorten it"),
        ("/v1/questions", PROMPT | {"count": 11}, "count", "10"),
        ("/v1/questions", PROMPT | {"first": FIRST}, "first", "send the drawing as visual_prompt"),
        ("/v1/questions", PROMPT | {"first": RED, "count": 1}, "first", "a count of 2 or more"),
        ("/v1/questions", PROMPT | {"visual_prompt": {"image": "R0lG"}}, "", "PNG or JPEG"),
        ("/v1/answers", ASK | {"vlm": "gpt"}, "vlm", "tiny-idefics2"),
        ("/v1/answers", ASK | {"questions": []}, "questions", "at least one"),
        ("/v1/answers", ASK | {"image": "R0lG"}, "image", "PNG or JPEG"),
        ("/v1/answers", ASK | {"image": "no base64!"}, "image", "base64"),
        (
            "/v1/answers",
            ASK | {"image": base64.b64encode(png("white", (4097, 4096))).decode()},
            "image",
            "too many",
        ),
        ("/v1/answers", ASK | {"max_tokens": 9}, "max_tokens", "'max_new_tokens'"),
    ],
)
async def test_what_can_not_be_asked_names_field_and_remedy(
    api: Api, path: str, body: dict[str, Any], field: str, remedy: str
) -> None:
    problem = await post(api, path, body | {"wait": 0}, 422)
    messages = {error["field"]: error["message"] for error in problem["errors"]}
    assert remedy in messages[field or "visual_prompt.image"]


async def test_models_say_who_writes(api: Api) -> None:
    listed = (await api.http.get("/v1/models")).json()
    writes = {vlm["name"]: vlm["writes"] for vlm in listed["vlms"]}
    assert (writes["tiny-idefics2"], writes[WRITER]) == (False, True)
    assert listed["writer"] is None


async def test_words_count_in_the_keys_quota_and_leave_nothing_when_refused(
    guarded: Guarded, artifacts: str
) -> None:
    owner, reader = await guarded.owner(queued=1), await guarded.owner("read")
    await post(owner, "/v1/answers", ASK | {"wait": 0}, 202)
    refused = await owner.http.post("/v1/answers", json=ASK | {"wait": 0})
    assert refused.status_code == 429
    assert (await reader.http.post("/v1/answers", json=ASK)).status_code == 403
    assert len(pictures(artifacts)) == 1
