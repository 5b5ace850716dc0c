"""The guard at the VLM: where its gradient is taken, which answers give one, what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import OFF, Guard, Guidance, guarded_loss, guide

SMILING = AskedQuestion("Is the man smiling?", "Yes")
SOFA = AskedQuestion("What color is the sofa?", "a red sofa")
POSTFIX = "Answer with Yes or No."


@pytest.fixture(scope="module")
def batch(images: dict[str, torch.Tensor]) -> torch.Tensor:
    """Far from black and white, so that an image that is moved a little stays in the range."""
    return torch.cat([images["low"], images["low"].flip(-1)]) * 0.5


def told(guidance: Guidance) -> tuple[float, list[list[float]]]:
    return guidance.loss, [[answer.loss for answer in row] for row in guidance.answers]


def probabilities(vlm: VlmFamily, batch: torch.Tensor, asked: AskedQuestion) -> list[float]:
    answers = guide(vlm, batch, [asked], POSTFIX).answers
    return [row[0].geometric_mean_probability for row in answers]


def worst_images(batch: torch.Tensor, gradient: torch.Tensor, distance: float) -> torch.Tensor:
    """Each image by itself, whatever the size of its gradient; a pixel moves by the root of its
    gradient's length."""
    lengths = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    steps = torch.where(lengths > 0, gradient / lengths * lengths.sqrt(), 0)
    scale = torch.linalg.vector_norm(steps, dim=(1, 2, 3), keepdim=True) / steps[0].numel() ** 0.5
    moved: torch.Tensor = batch + distance * steps / scale
    return moved


def test_an_answer_beyond_the_margin_gives_no_gradient(vlm: VlmFamily, batch: torch.Tensor) -> None:
    plain = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    least = min(probabilities(vlm, batch, SMILING) + probabilities(vlm, batch, SOFA))
    beyond = guide(vlm, batch, [SMILING, SOFA], POSTFIX, Guard(margin=least * 0.99))
    assert (beyond.gradient == 0).all()
    assert plain.gradient.abs().max() > 0
    assert told(beyond) == told(plain)


def test_the_others_give_their_plain_one(vlm: VlmFamily, batch: torch.Tensor) -> None:
    mean = {asked: max(probabilities(vlm, batch, asked)) for asked in (SMILING, SOFA)}
    low, high = sorted(mean, key=lambda asked: mean[asked])
    margin = (mean[low] + min(probabilities(vlm, batch, high))) / 2
    assert mean[low] < margin < min(probabilities(vlm, batch, high))
    both = guide(vlm, batch, [low, high], POSTFIX, Guard(margin=margin))
    alone = guide(vlm, batch, [low], POSTFIX)
    torch.testing.assert_close(both.gradient, alone.gradient / 2, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("distance", [0.01, 0.1])
def test_the_gradient_is_the_plain_one_where_the_answers_are_worse(
    vlm: VlmFamily, batch: torch.Tensor, distance: float
) -> None:
    plain = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    worst = guide(vlm, batch, [SMILING, SOFA], POSTFIX, Guard(worst_case=distance))
    assert told(worst) == told(plain)
    moved = worst_images(batch, plain.gradient, distance)
    assert (moved - batch).square().mean((1, 2, 3)).sqrt().tolist() == pytest.approx([distance] * 2)
    there = guide(vlm, moved, [SMILING, SOFA], POSTFIX)
    assert there.loss > plain.loss
    torch.testing.assert_close(worst.gradient, there.gradient, rtol=1e-3, atol=1e-7)


def test_margin_and_worst_case_together_look_at_the_worst_image(
    vlm: VlmFamily, batch: torch.Tensor
) -> None:
    """An answer that is right only exactly where the image is still teaches."""
    image = batch[:1]
    (here,) = probabilities(vlm, image, SMILING)
    plain = guide(vlm, image, [SMILING], POSTFIX)
    (there,) = probabilities(vlm, worst_images(image, plain.gradient, 0.02), SMILING)
    assert there < here
    guard = Guard(margin=(here + there) / 2, worst_case=0.02)
    assert (guide(vlm, image, [SMILING], POSTFIX, guard).gradient != 0).any()
    at_the_image = replace(guard, worst_case=0.0)
    assert (guide(vlm, image, [SMILING], POSTFIX, at_the_image).gradient == 0).all()


@pytest.mark.parametrize("sureness", [30.0, 200.0])
def test_an_answer_that_is_sure_gives_numbers(
    vlm: VlmFamily, batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch, sureness: float
) -> None:
    """Its gradient is nearly zero, or zero, so there is no direction to move in."""
    talk = vlm.converse(SMILING, POSTFIX, vlm.image_placeholder(vlm.pixel_values(batch[:1])))
    (token,) = (talk.input_ids[position] for position in talk.answer_positions)
    logits = vlm.logits

    def sure(hidden: torch.Tensor) -> torch.Tensor:
        raised = logits(hidden)
        more = torch.zeros_like(raised)
        more[..., token] = sureness
        return raised + more

    monkeypatch.setattr(vlm, "logits", sure)
    for guard in (Guard(worst_case=0.05), Guard(margin=0.95, worst_case=0.05)):
        guidance = guide(vlm, batch, [SMILING], POSTFIX, guard)
        assert guidance.loss < 1e-6
        assert torch.isfinite(guidance.gradient).all()


def test_a_small_gradient_moves_as_far(vlm: VlmFamily, batch: torch.Tensor) -> None:
    """The square of a gradient like 1e-30 is 0 as a float32; its direction is not."""
    weak = replace(SMILING, weight=1e-30)
    worst = guide(vlm, batch, [SMILING], POSTFIX, Guard(worst_case=0.05)).gradient
    together = guide(vlm, batch, [weak], POSTFIX, Guard(worst_case=0.05)).gradient
    torch.testing.assert_close(together, worst, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("guard", [Guard(margin=0.95), Guard(worst_case=0.03), Guard(0.95, 0.03)])
def test_images_in_bfloat16_get_their_gradient_in_it(
    vlm: VlmFamily, batch: torch.Tensor, guard: Guard
) -> None:
    whole = guide(vlm, batch.bfloat16().float(), [SMILING], POSTFIX, guard)
    half = guide(vlm, batch.bfloat16(), [SMILING], POSTFIX, guard)
    assert half.gradient.dtype == torch.bfloat16
    assert half.loss == pytest.approx(whole.loss, rel=1e-2)
    apart = (half.gradient.float() - whole.gradient).norm() / whole.gradient.norm()
    assert apart < 0.05


@pytest.mark.parametrize("guard", [OFF, Guard(0.95, 0.0), Guard(0.95, 0.05)])
def test_one_process_learns_the_same(vlm: VlmFamily, batch: torch.Tensor, guard: Guard) -> None:
    asked = [SMILING, replace(SOFA, weight=3)]
    apart = guide(vlm, batch, asked, POSTFIX, guard)
    images = batch.clone().requires_grad_()
    taught, answers = guarded_loss(vlm, images, asked, POSTFIX, guard)
    (gradient,) = torch.autograd.grad(taught, images)
    for row, theirs in zip(answers, apart.answers, strict=True):
        assert [one.loss for one in row] == pytest.approx([one.loss for one in theirs], rel=1e-5)
    torch.testing.assert_close(gradient, apart.gradient, rtol=1e-3, atol=1e-7)


def weighted(*weights: float) -> Sequence[AskedQuestion]:
    return [
        replace(asked, weight=weight)
        for asked, weight in zip((SMILING, SOFA), weights, strict=True)
    ]


def test_questions_count_by_their_weights(vlm: VlmFamily, batch: torch.Tensor) -> None:
    both = guide(vlm, batch, weighted(3, 1), POSTFIX)
    smiling, sofa = (guide(vlm, batch, [asked], POSTFIX) for asked in (SMILING, SOFA))
    assert both.loss == pytest.approx(0.75 * smiling.loss + 0.25 * sofa.loss, rel=1e-5)
    wanted = 0.75 * smiling.gradient + 0.25 * sofa.gradient
    torch.testing.assert_close(both.gradient, wanted, rtol=1e-3, atol=1e-7)
    # The reported values of each answer are its own.
    assert both.answers[0][1].loss == pytest.approx(sofa.answers[0][0].loss, rel=1e-5)


def test_only_the_balance_of_weights_counts(vlm: VlmFamily, batch: torch.Tensor) -> None:
    ones, eights = (guide(vlm, batch, weighted(w, w), POSTFIX) for w in (1, 8))
    assert torch.equal(ones.gradient, eights.gradient)
    assert told(ones) == told(eights)
    assert told(guide(vlm, batch, [SMILING, SOFA], POSTFIX)) == told(ones)
