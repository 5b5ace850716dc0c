"""The SDK's calls that return words, or the job that will have them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from dualprocess import (
    AnswersRequest,
    ApiError,
    Client,
    DraftQuestion,
    ExpansionRequest,
    JobNotReady,
    Question,
    QuestionsRequest,
    ServiceUnavailable,
    VisualPrompt,
)
from tests.client.conftest import Talking
from tests.client.test_client import JOB, problem

DRAWING = VisualPrompt(image=b"a PNG")
ASK = AnswersRequest(image=b"a PNG", questions=["What is it?"], vlm="tiny-idefics2", wait=7)
WAITING: dict[str, Any] = JOB | {
    "kind": "answers",
    "status": "queued",
    "generator": "",
    "waiting_for": "a worker",
    "spec": {
        "vlm": "tiny-idefics2",
        "questions": ["What is it?"],
        "question_postfix": "",
        "max_new_tokens": 64,
    },
}


def test_written_questions_carry_the_drawing_that_they_are_asked_of(talking_to: Talking) -> None:
    sent: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        drafts = [
            {"question": "Is it a fox?", "answer": "Yes", "on_drawing": False},
            {"question": "Does it agree with the line?", "answer": "Yes", "on_drawing": True},
        ]
        return httpx.Response(200, json={"questions": drafts, "job": None})

    first = DraftQuestion(question="Does it agree?", answer="Yes", on_drawing=True)
    request = QuestionsRequest(prompt="a fox", visual_prompt=DRAWING, first=first)
    assert talking_to(handle).write_questions(request) == [
        Question(question="Is it a fox?", answer="Yes"),
        Question(question="Does it agree with the line?", answer="Yes", visual_prompt=DRAWING),
    ]
    # Fields that are left out are the service's to choose.
    assert sent[0].keys() == {"prompt", "visual_prompt", "first"}


def test_answers_and_prompts_are_plain(talking_to: Talking) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        words: dict[str, Any] = {"answers": ["a fox"]}
        if request.url.path == "/v1/prompts/expand":
            words = {"prompt": "a red fox", "warnings": ["It is too long."]}
        return httpx.Response(200, json=words | {"job": WAITING | {"status": "succeeded"}})

    client = talking_to(handle)
    assert client.ask(ASK) == ["a fox"]
    assert client.expand_prompt(ExpansionRequest(prompt="a fox")) == "a red fox"
    told = client.expansion(ExpansionRequest(prompt="a fox", generator="sd-1.4"))
    assert told == ("a red fox", ["It is too long."])


def test_words_not_ready_are_an_error_with_the_job(talking_to: Talking) -> None:
    calls: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(202, json={"answers": None, "job": WAITING})

    with pytest.raises(JobNotReady, match="is queued and waits for a worker") as caught:
        talking_to(handle).ask(ASK)
    assert caught.value.job.id == JOB["id"]
    assert calls[0].extensions["timeout"]["read"] > ASK.wait
    assert len(calls) == 1


def test_what_failed_is_not_asked_twice(talking_to: Talking) -> None:
    calls: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return problem(502, detail="it holds no JSON object")

    with pytest.raises(ServiceUnavailable, match="it holds no JSON object"):
        talking_to(handle).expand_prompt(ExpansionRequest(prompt="a fox"))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.ask(ASK),
        lambda client: client.write_questions(QuestionsRequest(prompt="a fox")),
        lambda client: client.expand_prompt(ExpansionRequest(prompt="a fox")),
    ],
)
def test_an_answer_of_somebody_else_is_an_error(talking_to: Talking, call: Any) -> None:
    client: Client = talking_to(lambda request: httpx.Response(200, json={}))
    with pytest.raises(ApiError, match="check the service's address"):
        call(client)
