"""A job as text for a person: a row of a list, or several lines."""

from __future__ import annotations

from collections.abc import Iterator

from dualprocess.schemas import (
    Answers,
    BaseScore,
    ExpandedPrompt,
    Job,
    JudgeScores,
    ResolvedAnswersSpec,
    ResolvedJobSpec,
    Score,
    WrittenQuestions,
)


def row(job: Job) -> tuple[str, ...]:
    """Id, kind, status, step and loss, scores, drift, diversity, name."""
    step = f"{job.step}/{job.steps}" if job.steps else ""
    loss = "" if job.loss is None else f"{job.loss:.3f}"
    scores = job.scores
    return (
        job.id,
        job.kind,
        job.status,
        f"{step} {loss}".strip(),
        _both(scores.base, scores.lora),
        *("" if value is None else f"{value:.2f}" for value in (scores.drift, scores.diversity)),
        _title(job),
    )


def lines(job: Job) -> Iterator[str]:
    """What is known about the job now."""
    yield f"job {job.id}: {job.status}"
    if job.position is not None:
        yield f"jobs ahead: {job.position}"
    if job.waiting_for:
        yield f"waits for {job.waiting_for}"
    if job.work is not None and not job.status.is_final:
        yield f"work: {job.work:,}"
    if job.loss is not None:
        yield f"step {job.step} of {job.steps}, loss {job.loss:.4f}"
    if job.skipped:
        yield f"steps skipped, since loss or gradient was not a number: {job.skipped}"
    yield from _weights(job)
    if job.base is not None:
        yield from base(job.base)
    yield from _scores(job)
    if job.stopped_because:
        yield f"ended early: {job.stopped_because}"
    yield from _said(job)
    for warning in job.warnings:
        yield f"warning: {warning}"
    if job.error:
        yield f"error: {job.error}"
    if job.artifacts:
        yield "files: " + ", ".join(artifact.name for artifact in job.artifacts)


def base(score: BaseScore) -> Iterator[str]:
    """What is known of the base model before anything is taught."""
    images = "1 image" if score.images == 1 else f"{score.images} images, the best {score.best:.3f}"
    yield f"the base model's own score: {score.probability:.3f} by {score.vlm} on {images}"
    if score.advice:
        yield score.advice


def images(job: Job) -> Iterator[str]:
    """What is known about the images of a job that has ended."""
    if score := job.scores.lora or job.scores.base:
        yield f"probability of the right answers: {score.probability.geometric_mean:.3f}"
    for one in job.scores.images:
        yield f"  seed {one.seed}: {one.probability.geometric_mean:.3f}"
    if job.base is not None and job.base.advice:
        yield job.base.advice
    for warning in job.warnings:
        yield f"warning: {warning}"


def _weights(job: Job) -> Iterator[str]:
    """Lines for the questions whose weight is not 1."""
    for question in job.spec.questions if isinstance(job.spec, ResolvedJobSpec) else []:
        if question.weight != 1:
            yield f"question with weight {question.weight:g}: {question.question} {question.answer}"


def _scores(job: Job) -> Iterator[str]:
    scores = job.scores
    if both := _both(scores.base, scores.lora):
        yield f"probability of the right answers, base → LoRA: {both}"
    if scores.judge is not None:
        yield from _judged(scores.judge)
    if scores.drift is not None:
        yield (
            f"drift: {scores.drift:.3f}, how far the LoRA's images are from the base model's "
            "images of the same seeds (0: the same; about 1: different)"
        )
    if scores.diversity is not None:
        yield (
            f"diversity: {scores.diversity:.3f}, how far the LoRA's images are from each other, "
            "compared with the base model's (below 1: more alike)"
        )


def _judged(judge: JudgeScores) -> Iterator[str]:
    yield f"the judge {judge.vlm}, base → LoRA: {_both(judge.base, judge.lora)}"
    if judge.gap is not None:
        yield (
            f"gap: {judge.gap:.3f}, the teacher's probability minus the judge's, with the LoRA "
            "(far above 0: the LoRA may only have fooled the teacher)"
        )


def _said(job: Job) -> list[str]:
    """The words that a job of questions, answers or expansion produced."""
    match job.result:
        case Answers(answers=answers):
            return answers
        case WrittenQuestions(questions=questions):
            return [f"{draft.question} {draft.answer}" for draft in questions]
        case ExpandedPrompt(prompt=prompt):
            return [prompt]
    return []


def _both(base: Score | None, lora: Score | None) -> str:
    parts = [score.probability.geometric_mean for score in (base, lora) if score is not None]
    return " → ".join(f"{part:.3f}" for part in parts)


def _title(job: Job) -> str:
    if job.name:
        return job.name
    match job.spec:
        case ResolvedJobSpec(prompts=prompts):
            return prompts[0]
        case ResolvedAnswersSpec(questions=questions):
            return questions[0]
        case spec:
            return spec.prompt
