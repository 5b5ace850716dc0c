"""A look at what the base model draws, before a job teaches it."""

from __future__ import annotations

from dualprocess.client import Client
from dualprocess.schemas import ImagesRequest, Job, JobSpec

#: As on the page.
IMAGES = 4
_WAIT_SECONDS = 300.0


def look_at_base(client: Client, spec: JobSpec) -> Job:
    """Draws the first images of the job's evaluation without its LoRA, and has its first teacher
    score them. The service remembers the score, and tells it with the job."""
    first = spec.eval.seed or 0
    vlm = spec.vlm if isinstance(spec.vlm, str) else spec.vlm[0].name
    job = client.generate(
        ImagesRequest(
            prompt=spec.prompt or (spec.prompts or [""])[0],
            generator=spec.generator,
            seeds=[(first + more) % 2**32 for more in range(IMAGES)],
            image=spec.image,
            questions=spec.questions,
            question_postfix=spec.question_postfix,
            vlm=vlm,
            wait=_WAIT_SECONDS,
        )
    )
    return job if job.status.is_final else client.wait(job.id)
