"""What the page shows of a job that has ended."""

from __future__ import annotations

from datetime import UTC, datetime

from dualprocess.schemas import (
    Artifact,
    Job,
    JobKind,
    JobSpec,
    JobStatus,
    JudgeScores,
    Probability,
    QuestionScore,
    Score,
    Scores,
)
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.ui import panel
from services.orchestrator.ui.progress import Progress


def test_the_gap_to_the_judge_stands_beside_the_scores() -> None:
    judge = JudgeScores(vlm="gemma3", base=_score(0.1), lora=_score(0.3), gap=0.62)
    told = panel.outcome(_job(Scores(base=_score(0.1), lora=_score(0.92), judge=judge)))
    assert "the judge, gemma3" in told
    assert "+62 points" in told
    assert "drift" not in told


def test_every_form_of_the_lora_can_be_taken() -> None:
    names = ["pytorch_lora_weights.safetensors", "samples.png"]
    files = [Artifact(name=name, media_type="x/y", bytes=1, sha256="0" * 64) for name in names]
    made = ["adapter_model.safetensors", "adapter_config.json"]
    trained = _job(Scores()).model_copy(update={"artifacts": files})
    for name in (*names, *made):
        assert f"/artifacts/{name}" in panel.outcome(trained)
    without = trained.model_copy(update={"artifacts": files[1:]})
    assert "adapter" not in panel.outcome(without)


def test_of_an_older_job_nothing_is_made_up() -> None:
    told = panel.outcome(_job(Scores(base=_score(0.1), lora=_score(0.9))))
    assert "What else changed" not in told


def test_a_warning_is_a_sentence_at_the_head_as_it_was_written() -> None:
    job = _job(Scores(), ["Raise guard.anchor to <0.4>."])
    assert "Raise guard.anchor to &lt;0.4&gt;." in panel.head(job, Progress.of(job))


def _job(scores: Scores, warnings: list[str] | None = None) -> Job:
    asked = JobSpec.model_validate(
        {
            "prompt": "a circle",
            "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
            "generator": "tiny-flux",
            "vlm": "tiny-idefics2",
            "judge": "gemma3",
        }
    )
    return Job(
        id="0" * 26,
        kind=JobKind.OPTIMIZE,
        status=JobStatus.SUCCEEDED,
        generator="tiny-flux",
        vlms=["tiny-idefics2", "gemma3"],
        created_at=datetime.now(UTC),
        spec=resolve_job(asked, load_presets()),
        artifacts=[],
        scores=scores,
        warnings=warnings or [],
    )


def _score(value: float) -> Score:
    right = Probability(joint=value, geometric_mean=value)
    one = QuestionScore(question="Is the circle red?", answer="Yes", probability=right, correct=1)
    return Score(probability=right, correct=1, questions=[one])
