"""Against values recorded from plain transformers calls, float32 on a CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import guide
from services.vlm.score import score
from tests.vlm.conftest import PARITY, picture

QUESTIONS = {
    "q1": (AskedQuestion("Is the man smiling?", "Yes"), "Answer with Yes or No."),
    "q2": (AskedQuestion("What color is the sofa?", "a red sofa"), ""),
}
CASES = [("photo", "q1"), ("photo", "q2"), ("low", "q1"), ("low", "q2")]
CASES += [("smooth", "q1"), ("smooth", "q2"), ("wide", "q1")]
# The one image that its processor resizes: the recorded losses then differ by PIL's rounding.
RESIZED = {"wide"}


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(PARITY / "vlm-idefics2.safetensors")
    return tensors


@pytest.fixture(scope="module")
def facts() -> Any:
    return json.loads((PARITY / "vlm-idefics2.json").read_text())


@pytest.mark.parametrize(("image", "question"), CASES)
def test_ids_loss_answer_and_gradient(
    vlm: VlmFamily,
    images: dict[str, torch.Tensor],
    recorded: dict[str, torch.Tensor],
    facts: Any,
    image: str,
    question: str,
) -> None:
    asked, postfix = QUESTIONS[question]
    key = f"{image}.{question}"
    talk = vlm.converse(asked, postfix, vlm.image_placeholder(images[image]))
    assert talk.input_ids == recorded[f"{key}.input_ids"][0].tolist()
    assert talk.answer_positions == facts["results"][key]["answer_positions"]

    guidance = guide(vlm, images[image], [asked], postfix)
    answer = guidance.answers[0][0]
    log_probabilities = recorded[f"{key}.logprobs"]
    assert guidance.loss == pytest.approx(recorded[f"{key}.loss_diff"].item(), abs=1e-4)
    if image not in RESIZED:
        joint = log_probabilities.sum().exp().item()
        assert answer.joint_probability == pytest.approx(joint, rel=1e-4)
    assert answer.geometric_mean_probability == pytest.approx(2.718281828**-answer.loss, rel=1e-5)
    greedy = vlm.tokenizer.decode(recorded[f"{key}.greedy_ids"], skip_special_tokens=True)
    assert answer.predicted == greedy.strip()
    if f"{key}.grad" in recorded:
        wanted = recorded[f"{key}.grad"]
        assert ((guidance.gradient - wanted).norm() / wanted.norm()).item() < 1e-3


@pytest.mark.parametrize(("image", "question"), CASES)
def test_score_sees_what_the_processor_sees(
    vlm: VlmFamily,
    images: dict[str, torch.Tensor],
    recorded: dict[str, torch.Tensor],
    image: str,
    question: str,
) -> None:
    asked, postfix = QUESTIONS[question]
    (answer,) = score(vlm, picture(images[image]), [asked], postfix)
    assert answer.loss == pytest.approx(recorded[f"{image}.{question}.loss"].item(), abs=1e-4)


@pytest.mark.parametrize("image", ["photo", "low", "smooth", "wide"])
def test_pixel_values(
    vlm: VlmFamily,
    images: dict[str, torch.Tensor],
    recorded: dict[str, torch.Tensor],
    image: str,
) -> None:
    ours = vlm.pixel_values((images[image] + 1) / 2)
    theirs = vlm.processed(picture(images[image]))
    assert ours.shape == theirs.shape == recorded[f"{image}.resized_u8"].shape
    assert (ours - theirs).abs().mean() <= 0.005
    assert (ours - theirs).abs().max() <= 0.25


@pytest.mark.parametrize("side", [(300, 256), (256, 1024), (777, 333), (64, 20)])
def test_sizes_of_any_aspect(vlm: VlmFamily, side: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    image = (image * 255).round() / 255
    ours, theirs = vlm.pixel_values(image), vlm.processed(picture(image * 2 - 1))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() <= 0.005


def test_ids_are_those_of_the_models_own_processor(vlm: VlmFamily) -> None:
    """Apart from one space that transformers 5 puts behind the image's closing token."""
    processor = AutoProcessor.from_pretrained(PARITY / "models" / "idefics2")
    processor.image_processor.do_image_splitting = False
    asked, postfix = QUESTIONS["q1"]
    text = f"User:<image>{asked.question} {postfix}<end_of_utterance>\nAssistant: {asked.answer}"
    theirs = processor(text=text)["input_ids"][0]
    closing = vlm.tokenizer.convert_tokens_to_ids("<fake_token_around_image>")
    behind = len(theirs) - theirs[::-1].index(closing)
    assert vlm.tokenizer.convert_ids_to_tokens(theirs[behind]) == "▁"
    ours = vlm.converse(asked, postfix, vlm.image_placeholder(torch.zeros(0))).input_ids
    assert ours == theirs[:behind] + theirs[behind + 1 :]
