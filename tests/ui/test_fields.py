"""Jobs become fields of the page and fields become jobs, and nothing is lost."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dualprocess.cli import specs
from dualprocess.schemas import (
    GuardOptions,
    JobSpec,
    JobStatus,
    Probability,
    QuestionScore,
    SkippedStepEvent,
    StepEvent,
    StepTimings,
)
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.ui import numbers, spec
from services.orchestrator.ui.curves import chart
from services.orchestrator.ui.progress import Progress
from services.orchestrator.ui.templates import TEMPLATES, TINY_PAIR, Controls

EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = load_presets()

RICH = {
    "prompts": ["a circle", "a square"],
    "questions": [
        {"question": "Is it red?", "answer": "Yes"},
        {"question": "Is it", "answer": "A", "weight": 2.5},
    ],
    "question_postfix": "In one word.",
    "generator": "sd-1.4",
    "vlm": [{"name": "idefics2", "weight": 2}, {"name": "gemma3", "weight": 0.5}],
    "judge": "qwen2.5-vl",
    "image": {"width": 384, "guidance_scale": 5, "negative_prompt": "text"},
    "lora": {"rank": 4, "init": "kaiming", "target_modules": ["to_k", "to_q"]},
    "optimizer": {
        "lr": 1e-4,
        "steps": 3,
        "noise_seeds": 3,
        "timestep": "first",
        "checkpoint_every": 0,
    },
    "guard": {"anchor": 0.37, "margin": 0.96, "worst_case": 0.05},
    "eval": {"images": 2, "every": 0},
    "stop_at_score": 0.9,
    "deadline": 60,
    "name": "rich",
    "metadata": {"project": "a = b"},
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_comes_back_as_it_was(path: Path) -> None:
    there_and_back(specs.load(str(path)))


def test_every_setting_comes_back_as_it_was() -> None:
    there_and_back(JobSpec.model_validate(RICH))


def test_a_guard_that_is_off_stays_off() -> None:
    shown = there_and_back(JobSpec.model_validate(RICH | {"guard": "off"}))
    assert [shown[f"guard.{name}"] for name in ("anchor", "margin", "worst_case")] == [0, 1, 0]


def test_an_emptied_weight_is_the_default() -> None:
    assert spec.question({"question": "Red?", "answer": "Yes", "weight": None}) == {
        "question": "Red?",
        "answer": "Yes",
    }


@pytest.mark.parametrize("artifact", ["pytorch_lora_weights.safetensors", "start.safetensors"])
def test_a_start_comes_back_as_the_same_file(artifact: str) -> None:
    start = {"job": "0" * 26, "artifact": artifact}
    there_and_back(JobSpec.model_validate(RICH | {"lora": {"start": start}}))


def there_and_back(asked: JobSpec) -> dict[str, Any]:
    """What the fields show on the way."""
    resolved = resolve_job(asked, PRESETS)
    shown = spec.shown(resolved)
    assert resolve_job(spec.job_spec(shown), PRESETS) == resolved
    return shown


@pytest.mark.parametrize(
    ("template", "example"), [("tiny-horizon", "horizon-line"), ("tiny-palette", "palette")]
)
def test_the_tiny_templates_draw_what_the_tiny_vlm_knows(template: str, example: str) -> None:
    (question,) = TEMPLATES[template].questions((64, 64), Controls())
    _, _, data = question["drawing"].partition(",")
    known = Image.open(EXAMPLES / "visual_prompts" / f"{example}.png").convert("RGB")
    drawn = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert np.array_equal(np.asarray(drawn), np.asarray(known))


def test_the_tiny_templates_are_the_examples() -> None:
    examples = [specs.load(str(path)) for path in EXAMPLES.glob("*.yaml")]
    known = {
        (one.prompt, one.questions[0].question): one.guard.model_dump(exclude_unset=True)
        if isinstance(one.guard, GuardOptions)
        else {}
        for one in examples
    }
    tiny = [template for template in TEMPLATES.values() if template.tiny]
    guards = {(template.prompt, template.question): template.guard for template in tiny}
    assert guards == known
    assert any(guards.values())
    assert {(one.generator, one.vlm) for one in examples} == {TINY_PAIR}


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("1, 5 9", [1, 5, 9]), ("7-7", [7])]
)
def test_seeds_as_people_write_them(text: str, seeds: list[int]) -> None:
    assert numbers.seeds(text, "seeds") == seeds


@pytest.mark.parametrize("text", ["", "x", "-3", "1-", "0-99", "1.5"])
def test_what_are_no_seeds_says_how_to_write_them(text: str) -> None:
    with pytest.raises(numbers.NotNumbers, match="seeds"):
        numbers.seeds(text, "seeds")


def test_steps_told_again_after_an_interruption_replace_the_first() -> None:
    progress = Progress(JobStatus.RUNNING, steps=4)
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 1.0)):
        progress.take(_step(step, loss))
    assert progress.losses == [(1, 5.0), (2, 1.0)]
    assert progress.probabilities == [[(1, 0.5), (2, 0.5)]]
    assert progress.seconds_left == pytest.approx(2 * 2.0)


def test_a_skipped_step_is_a_gap_in_the_curves() -> None:
    told = [_step(1, 5.0), _SKIPPED, _step(3, 3.0)]
    progress = Progress(JobStatus.SUCCEEDED, steps=3)
    progress.take_metrics("".join(f"{event.model_dump_json()}\n" for event in told))
    assert progress.losses == [(1, 5.0), (3, 3.0)]
    assert progress.probabilities == [[(1, 0.5), (3, 0.5)]]
    (line,) = chart("Loss", [("loss", progress.losses)], 3, top=10.0).lines
    assert line.raw == "0.0,60.0 320.0,84.0"


def test_drift_and_diversity_are_drawn_where_steps_tell_them() -> None:
    told = [_step(1, 5.0), _step(2, 4.0, drift=0.1), _step(3, 3.0, drift=0.2, diversity=0.9)]
    running = Progress(JobStatus.RUNNING, steps=3)
    for event in (*told, told[1]):
        running.take(event)
    assert (running.drift, running.diversity) == ([(2, 0.1)], [])
    ended = Progress(JobStatus.SUCCEEDED, steps=3)
    ended.take_metrics("".join(f"{event.model_dump_json()}\n" for event in told))
    assert (ended.drift, ended.diversity) == ([(2, 0.1), (3, 0.2)], [(3, 0.9)])


def test_a_skipped_step_counts_as_gone_by() -> None:
    progress = Progress(JobStatus.RUNNING, steps=4)
    for event in (_step(1, 5.0), _SKIPPED):
        progress.take(event)
    assert progress.step == 2
    assert progress.seconds_left == pytest.approx(2 * 2.0)


_SKIPPED = SkippedStepEvent(attempt=1, step=2, steps=4, reason="the loss (nan) is not finite")


def _step(
    step: int, loss: float, drift: float | None = None, diversity: float | None = None
) -> StepEvent:
    right = Probability(joint=0.5, geometric_mean=0.5)
    return StepEvent(
        attempt=1,
        step=step,
        steps=4,
        loss=loss,
        probability=right,
        questions=[QuestionScore(question="Red?", answer="Yes", probability=right)],
        grad_norm=1.0,
        timings=StepTimings(forward=1, vlm=0.5, wire=0, backward=0.5, total=2),
        drift=drift,
        diversity=diversity,
    )
