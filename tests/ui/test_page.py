"""The page in a browser, on the real stack."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dualprocess import Client, EvalOptions, GuardOptions, OptimizerOptions
from dualprocess.schemas import Job, JobStatus, ResolvedJobSpec
from tests.e2e.conftest import LORA_FILE, red_circle
from tests.e2e.stack import Stack
from tests.ui.browsing import Visit, part, type_into

#: More than a test waits for.
ENDLESS = "5000"


@pytest.fixture(scope="module")
def learned(stack: Stack) -> Job:
    """A job that ended earlier. Its steps were so large that its images have become alike."""
    guard = GuardOptions(anchor=0.001, margin=1, worst_case=0)
    large = red_circle(name="large steps", guard=guard).model_copy(
        update={"optimizer": OptimizerOptions(steps=10, lr=8e-3), "eval": EvalOptions(images=2)}
    )
    with Client(stack.url) as client:
        job = client.wait(client.submit(large).id)
    assert job.warnings
    return job


def test_teach_watch_reload_stop_download_use_compare(
    visit: Visit, stack: Stack, learned: Job, tmp_path: Path
) -> None:
    page = visit.tab()
    # A first visit explains itself, and its example is ready to go.
    expect(page.get_by_text("Say how one can tell")).to_be_visible()
    assert page.input_value("#teach-prompt textarea") == "a circle"
    expect(page.locator("#teach-write")).to_be_disabled()
    expect(page.locator("#teach-no-words")).to_contain_text("Nobody here can write")
    page.click("#teach-look")
    expect(page.locator("#teach-drawn img")).to_have_count(4)
    expect(page.locator("#teach-drawn")).to_contain_text("probable")
    page.click("#teach-best")
    expect(page.locator("#teach-drawn h3")).to_contain_text("The best 4 of 16")
    expect(page.locator("#teach-drawn img")).to_have_count(4)
    expect(page.locator("#teach-drawn")).to_contain_text("All 16 together, right answers")
    expect(page.locator("#teach-drawn figcaption").first).to_contain_text("%")
    expect(page.locator("#teach-drawn .dp-advice")).to_contain_text(
        "the best of many seeds are enough"
    )

    set_number(page, "optimizer-steps", ENDLESS)
    set_number(page, "eval-every", "2")
    set_number(page, "eval-images", "2")
    # The guard has the preset's values.
    anchor = page.locator("#teach-guard-anchor input")
    preset = anchor.input_value()
    assert float(preset) > 0
    page.click("#teach-guard-off")
    for name, off in {"anchor": "0", "margin": "1", "worst_case": "0"}.items():
        expect(page.locator(f"#teach-guard-{name} input")).to_have_value(off)
    page.click("#teach-guard-preset")
    expect(anchor).to_have_value(preset)
    page.click("#teach-start")
    pictures = page.locator(".dp-pair .dp-lora img")
    pictures.wait_for()
    first = pictures.get_attribute("src")
    expect(pictures).not_to_have_attribute("src", str(first))
    expect(page.locator("#dp-panel-curves svg")).to_have_count(3)
    expect(page.locator("#dp-panel-curves")).to_contain_text("Drift and diversity")
    expect(page.locator("#dp-panel-head")).to_contain_text(f"of {ENDLESS}")
    expect(page.locator("#dp-panel-head")).to_contain_text("left")
    expect(page.locator("#dp-panel-head .dp-advice")).to_contain_text("on 16 images of the base")

    page.reload()
    pictures.wait_for()
    expect(page.locator("#dp-panel-head")).to_contain_text("running")
    assert page.input_value("#teach-prompt textarea") == "a circle"
    other = visit.tab()
    part(other, "Gallery")
    other.locator(".dp-card", has_text="running").click()
    expect(other.locator("#dp-panel-head")).to_contain_text("running")

    page.click("#teach-stop")
    page.wait_for_selector("#dp-panel-outcome a")
    expect(page.locator("#dp-panel-head")).to_contain_text("cancelled")
    other.wait_for_selector("#dp-panel-outcome a")
    # The same seeds, base above LoRA, and in words what else changed.
    above, below = page.locator("#dp-panel-pictures .dp-samples tr:has(img)").all()
    for row, name in ((above, "base"), (below, "LoRA")):
        expect(row).to_contain_text(name)
        expect(row.locator("img")).to_have_count(2)
    for name in ("drift", "diversity"):
        expect(page.locator(".dp-changed")).to_contain_text(name)
    job_id = page.url.partition("job=")[2]
    with Client(stack.url) as client:
        assert client.job(job_id).status == JobStatus.CANCELLED
        lora = client.read_artifact(job_id, LORA_FILE)
    with page.expect_download() as coming:
        page.get_by_text("LoRA for diffusers").click()
    kept = tmp_path / coming.value.suggested_filename
    coming.value.save_as(kept)
    assert kept.name == LORA_FILE
    assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(lora).digest()

    page.get_by_role("button", name="Make images with it").click()
    page.wait_for_selector("#use-loras input[type=range]")
    type_into(page.locator("#use-seeds input, #use-seeds textarea"), "7, 9")
    page.click("#use-make")
    made = page.locator("#use-grid img")
    expect(made).to_have_count(4)
    base, _, taught, _ = (image.get_attribute("src") for image in made.all())
    assert base != taught
    expect(page.locator("#use-grid")).to_contain_text("right answer")

    part(page, "Gallery")
    card = page.locator(".dp-card", has_text="large steps")
    for told in ("diversity", "1 warning"):
        expect(card).to_contain_text(told)
    expect(card.locator("img")).to_have_count(4)
    card.click()
    expect(page.locator("#dp-panel-head .dp-warning")).to_have_text(learned.warnings)

    part(page, "Compare")
    expect(page.locator(".dp-sides section")).to_have_count(2)
    for different in (ENDLESS, "Anchor"):
        expect(page.locator(".dp-differences")).to_contain_text(different)
    expect(page.locator(".dp-sides .dp-changed")).to_have_count(2)
    expect(page.locator(".dp-sides .dp-warning")).to_have_text(learned.warnings)


def test_faults_stand_at_their_fields(visit: Visit) -> None:
    page = visit.tab()
    page.fill("#teach-prompt textarea", "")
    page.click("#teach-look")
    expect(page.locator("#teach-prompt .dp-fault")).to_contain_text("is empty")
    page.get_by_role("textbox", name="Question 1").fill("")
    page.get_by_label("Weight of question 1").fill("0")
    page.click("#teach-start")
    for spot in ("#teach-prompt", ".dp-questions .dp-question"):
        expect(page.locator(f"{spot} .dp-fault")).to_contain_text("is empty")
    expect(page.locator(".dp-weight .dp-fault")).to_contain_text("greater than 0")
    expect(page.locator("#teach-prompt textarea")).to_have_attribute("aria-invalid", "true")
    # A fault that only the service finds is shown at its field, which is unfolded for that.
    page.locator("[data-template=green-square]").click()
    expect(page.locator("#teach-prompt textarea")).to_have_value("a square")
    set_number(page, "image-width", "65")
    page.get_by_role("button", name="All settings").click()
    page.click("#teach-start")
    fault = page.locator("#teach-image-width .dp-fault")
    expect(fault).to_contain_text("64")
    described = page.locator("#teach-image-width input").get_attribute("aria-describedby")
    assert described == fault.get_attribute("id")
    expect(page.locator("#teach-prompt .dp-fault")).to_have_count(0)


def test_at_the_address_of_a_deleted_job_one_can_begin_anew(visit: Visit, stack: Stack) -> None:
    with Client(stack.url) as client:
        job = client.wait(client.submit(red_circle(steps=1)).id)
        client.delete(job.id)
    page = visit.tab(f"/ui/?job={job.id}")
    assert page.input_value("#teach-prompt textarea") == "a circle"
    expect(page.locator(".dp-faults")).to_contain_text("There is no job")
    page.locator("#teach-generator input").click()
    expect(page.get_by_role("option", name="tiny-flux")).to_be_visible()


TEMPLATES = {
    "tiny-horizon": "a circle",
    "palette": "a reading corner with an armchair by the window",
    "line-weight": "an ink drawing of a sailing boat",
    "horizon": "a lighthouse at the sea",
    "relative-depth": "a street café with two tables",
    "composition": "a fox under the moon",
}


def test_templates_build_their_question_and_drawing(visit: Visit) -> None:
    page = visit.tab()
    drawn = set()
    for name, prompt in TEMPLATES.items():
        page.locator(f"[data-template={name}]").click()
        expect(page.locator("#teach-prompt textarea")).to_have_value(prompt)
        drawn.add(page.locator(".dp-drawn img").get_attribute("src"))
    # The two horizons are the same line.
    assert len(drawn) == len(TEMPLATES) - 1
    # A card may bring a guard, and the next one takes it away again.
    page.get_by_role("button", name="All settings").click()
    anchor = page.locator("#teach-guard-anchor input")
    expect(anchor).not_to_have_value("")
    preset = anchor.input_value()
    page.locator("[data-template=tiny-horizon]").click()
    expect(anchor).to_have_value("4")
    page.locator("[data-template=commonsense]").click()
    expect(anchor).to_have_value(preset)
    expect(page.locator(".dp-drawn img")).to_have_count(0)
    # A point is moved by keys; the drawing follows.
    page.locator("[data-template=relative-depth]").click()
    picture = page.locator(".dp-drawn img")
    before = picture.get_attribute("src")
    page.get_by_role("button", name="A: 30 % from the left").press("ArrowRight")
    expect(picture).not_to_have_attribute("src", str(before))


def test_a_drawing_by_hand_goes_with_the_job(visit: Visit, stack: Stack) -> None:
    page = visit.tab()
    set_number(page, "optimizer-steps", "1")
    set_number(page, "eval-images", "1")
    page.get_by_role("button", name="Draw on it").click()
    canvas = page.locator("canvas").bounding_box()
    assert canvas is not None
    page.mouse.move(canvas["x"] + 20, canvas["y"] + 100)
    page.mouse.down()
    page.mouse.move(canvas["x"] + 300, canvas["y"] + 100, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_label("How the drawing of question 1").select_option("transparent")
    page.get_by_label("Weight of question 1").fill("2.5")
    page.click("#teach-start")
    page.wait_for_url("**job=*")
    with Client(stack.url) as client:
        spec = client.job(page.url.partition("job=")[2]).spec
    assert isinstance(spec, ResolvedJobSpec)
    (asked,) = spec.questions
    assert asked.weight == 2.5
    assert asked.visual_prompt is not None
    assert asked.visual_prompt.mode == "transparent"
    assert asked.visual_prompt.image.startswith(b"\x89PNG")


def test_on_a_phone_nothing_sticks_out_and_everything_has_a_name(
    browser: Browser, stack: Stack, learned: Job
) -> None:
    phone = Visit(browser, stack.url, width=360, height=740)
    page = phone.tab()
    page.get_by_role("button", name="All settings").click()
    page.locator("[data-template=composition]").click()
    page.locator(".dp-marks button").first.wait_for()
    shown = {
        "Teach": "#teach-metadata",
        "Gallery": ".dp-card",
        "Use": "#use-loras option[value]",
        "Compare": "#compare-left",
    }
    for name, spot in shown.items():
        part(page, name)
        page.locator(spot).first.wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert json.loads(page.evaluate(_NAMELESS)) == []
    phone.context.close()


#: Visible fields and buttons without a name for those who don't see the page.
_NAMELESS = """() => {
  const named = (one) =>
    one.ariaLabel?.trim() || one.title || one.getAttribute('aria-labelledby') ||
    [...(one.labels || [])].some((label) => label.innerText.trim()) ||
    (one.tagName === 'BUTTON' && one.innerText.trim());
  const all = [...document.querySelectorAll('input, select, textarea, button')];
  return JSON.stringify(all
    .filter((one) => one.offsetParent && one.type !== 'hidden' && !named(one))
    .map((one) => one.outerHTML.slice(0, 200)));
}"""


def set_number(page: Page, setting: str, value: str) -> None:
    """Changes one of the settings, which are folded away at first."""
    field = page.locator(f"#teach-{setting} input")
    if not field.is_visible():
        page.get_by_role("button", name="All settings").click()
    expect(field).not_to_have_value("")
    type_into(field, value)
    field.blur()


pytestmark = pytest.mark.timeout(170)
