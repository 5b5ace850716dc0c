"""Words that a language model writes into the page's fields."""

from __future__ import annotations

import json

from playwright.sync_api import Browser, expect

from tests.orchestrator.chat_server import ChatServer
from tests.ui.browsing import Visit, give_key, type_into

WRITTEN = {
    "restated": "Is there a fox in the snow?",
    "questions": [{"question": "Is the fox red?", "answer": "Yes", "drawing": False}],
}


def test_a_prompt_is_expanded_and_questions_are_written(
    browser: Browser, url: str, keys: dict[str, str], chat: ChatServer
) -> None:
    visit = Visit(browser, url)
    page = visit.open()
    give_key(page, keys["ben"])
    expect(page.locator("#teach-write")).to_be_enabled()
    type_into(page.locator("#teach-prompt textarea"), "a fox in the snow")
    page.get_by_role("button", name="Writer and instructions").click()
    type_into(page.locator("#teach-questioning textarea"), "Ask about the fox only.")
    type_into(page.get_by_role("textbox", name="Question 1"), "Is it winter?")
    chat.replies = [json.dumps(WRITTEN)]
    page.click("#teach-write")
    questions = page.locator(".dp-question textarea")
    expect(questions).to_have_count(3)
    asked = [question.input_value() for question in questions.all()]
    assert asked == ["Is it winter?", "Is there a fox in the snow?", "Is the fox red?"]
    told = json.dumps(chat.asked[-1]["messages"])
    assert "Ask about the fox only." in told
    assert "Is it winter?" in told
    chat.replies = [json.dumps({"prompt": "a red fox in deep snow"})]
    page.click("#teach-expand")
    expect(page.locator("#teach-prompt textarea")).to_have_value("a red fox in deep snow")
    # What the generator on the page does not read to its end is written, and told of.
    longer = "a red fox " * 300
    chat.replies = [json.dumps({"prompt": longer})] * 2
    page.click("#teach-expand")
    expect(page.locator("#teach-prompt textarea")).to_have_value(longer.strip())
    expect(page.locator(".dp-faults").first).to_contain_text("is sure to read")
    page.locator("#teach-prompt textarea").fill("a red fox in deep snow")
    # A bad reply is asked for once more; then the page says so.
    chat.replies = ["no", "none"]
    page.click("#teach-expand")
    expect(page.locator(".dp-faults").first).to_contain_text("some-model")
    assert page.input_value("#teach-prompt textarea") == "a red fox in deep snow"
    visit.context.close()
