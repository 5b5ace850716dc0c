"""Whether a LoRA is needed: what a base model's own score says about teaching it."""

from __future__ import annotations

from collections.abc import Sequence

from dualprocess.schemas import BaseScore, ImageScore, ResolvedImagesSpec, ResolvedJobSpec, Score
from services.orchestrator.store.base_scores import Asked

#: From this mean on, nearly every image is right already.
HIGH = 0.9
#: Below this mean, and where no single image is more probably right than wrong, there is hardly an
#: image from which to learn.
LOW = 0.05
_SOMETIMES = 0.5


def asked_of(spec: ResolvedJobSpec | ResolvedImagesSpec) -> Asked | None:
    """What a score of the spec's base model is about; ``None`` if it asks nothing. Of several
    prompts and teachers it is the first, as in the evaluation and on the page."""
    if isinstance(spec, ResolvedJobSpec):
        prompt, vlm = spec.prompts[0], spec.vlm[0].name
    else:
        prompt, vlm = spec.prompt, spec.vlm or ""
    if not vlm:
        return None
    return Asked(spec.generator, prompt, spec.image, spec.questions, spec.question_postfix, vlm)


def base_score(vlm: str, mean: Score, each: Sequence[ImageScore]) -> BaseScore:
    """The score of a base model's images, with what it says about teaching."""
    probability = mean.probability.geometric_mean
    best = max(one.probability.geometric_mean for one in each)
    return BaseScore(
        vlm=vlm,
        images=len(each),
        probability=probability,
        best=best,
        advice=_advice(len(each), probability, best),
    )


def _advice(images: int, probability: float, best: float) -> str | None:
    # Rounded as they are shown.
    probability, best = round(probability, 2), round(best, 2)
    if probability >= HIGH:
        return (
            f"The base model's own images already have the right answers (probability "
            f"{probability:.2f}): there is nearly nothing to teach. Use them, or ask for more."
        )
    if probability < LOW and best < _SOMETIMES:
        return (
            f"None of the base model's {images} images shows what the questions ask for "
            f"(probability {probability:.2f}, the best {best:.2f}): there is little to learn "
            "from. First bring the prompt nearer to it, until an image shows it sometimes."
        )
    if images > 1 and best >= HIGH:
        return (
            f"The best of the base model's {images} images is right (probability {best:.2f}, the "
            f"mean {probability:.2f}): for a few good images, the best of many seeds are enough "
            "without a LoRA."
        )
    return None
