"""A look at what the base model draws, before a job teaches it."""

from __future__ import annotations

from dualprocess.client import Client
from dualprocess.schemas import ImagesRequest, JobSpec

#: As on the page.
IMAGES = 4
_WAIT_SECONDS = 300.0


def look_at_base(client: Client, spec: JobSpec) -> None:
    """Draws the first images of the job's evaluation without its LoRA, and has its first teacher
    score them. The service remembers the score, and tells it with the job."""
    prompt = spec.prompt or next(iter(spec.prompts or []), None)
    if prompt is None:
        # The service says so when it gets the job.
        return
    first = spec.eval.seed or 0
    vlm = spec.vlm if isinstance(spec.vlm, str) else spec.vlm[0].name
    job = client.generate(
        ImagesRequest(
            prompt=prompt,
            generator=spec.generator,
            seeds=[(first + more) % 2**32 for more in range(IMAGES)],
            image=spec.image,
            questions=spec.questions,
            question_postfix=spec.question_postfix,
            vlm=vlm,
            wait=_WAIT_SECONDS,
        )
    )
    if not job.status.is_final:
        client.wait(job.id)
