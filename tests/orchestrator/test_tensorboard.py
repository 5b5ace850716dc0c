"""What TensorBoard itself reads in the file that a job leaves for it."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dualprocess.schemas import Probability, QuestionScore, StepEvent, StepTimings
from services.orchestrator.worker import tensorboard
from tests.orchestrator.conftest import Api, Site

QUESTION = "Is the circle red?"


def step(number: int, *, attempt: int = 1, seconds: float = 1.0) -> StepEvent:
    probability = Probability(joint=0.25, geometric_mean=0.5)
    return StepEvent(
        attempt=attempt,
        step=number,
        steps=2,
        loss=1 / number,
        probability=probability,
        questions=[QuestionScore(question=QUESTION, answer="Yes", probability=probability)],
        grad_norm=2.0,
        timings=StepTimings(forward=0, vlm=0, wire=0, backward=0, total=seconds),
    )


async def test_tensorboard_reads_the_curves_of_a_job(api: Api, site: Site, tmp_path: Path) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    left = f"/v1/jobs/{job.id}/artifacts"
    logs = tmp_path / "logs" / tensorboard.FILE
    logs.parent.mkdir()
    logs.write_bytes((await api.http.get(f"{left}/{tensorboard.FILE}")).content)
    metrics = (await api.http.get(f"{left}/metrics.jsonl")).text.splitlines()
    read = EventAccumulator(str(logs.parent)).Reload()
    assert set(read.Tags()["scalars"]) == {
        "loss",
        "grad_norm",
        "probability",
        f"questions/1 {QUESTION}",
        "steps/drift",
        "evaluation/drift",
        "evaluation/diversity",
    }
    # What changed in the evaluation's images stands behind the last step.
    assert [(point.step, point.value) for point in read.Scalars("evaluation/diversity")] == [
        (3, 0.75)
    ]
    assert [point.value for point in read.Scalars("steps/drift")] == [0.125] * 3
    told = [(point.step, round(point.value, 6)) for point in read.Scalars("loss")]
    assert told == [(line["step"], round(line["loss"], 6)) for line in map(json.loads, metrics)]


def test_what_was_not_measured_is_no_curve(tmp_path: Path) -> None:
    steps = [step(1), step(2).model_copy(update={"drift": 0.5, "diversity": 0.75})]
    (tmp_path / tensorboard.FILE).write_bytes(tensorboard.events(steps, (0.25, None)))
    read = EventAccumulator(str(tmp_path)).Reload()
    curves = {tag: [(p.step, p.value) for p in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    changed = {tag: curve for tag, curve in curves.items() if "drift" in tag or "diversity" in tag}
    assert changed == {
        "steps/drift": [(2, 0.5)],
        "steps/diversity": [(2, 0.75)],
        "evaluation/drift": [(2, 0.25)],
    }


def test_neither_attempt_nor_clock_is_in_the_file() -> None:
    undisturbed = tensorboard.events([step(1), step(2)])
    assert tensorboard.events([step(1), step(2, attempt=2, seconds=9.0)]) == undisturbed


def test_a_question_names_its_curve_without_what_a_terminal_obeys() -> None:
    hostile = step(1)
    hostile.questions[0].question = "\x1b[2JIs it\nred\u202e?\x9b"
    written = tensorboard.events([hostile])
    assert b"questions/1 [2JIs it red?" in written
    assert b"\x1b" not in written
