"""Ids are those of each model's own template, processor and tokenizer, with one BOS."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from tests.vlm.conftest import picture
from tests.vlm.rows import ROWS, Row

ASKED = AskedQuestion("Is the man smiling?", "Yes, he is")
POSTFIX = "Answer with Yes or No."
QUESTION = f"{ASKED.question} {POSTFIX}"

# What the templates on the hub make of one user turn with an image and a text, up to where the
# answer begins; the image as the token that their processors expand.
HUB: dict[str, str] = {
    "gemma3": f"<bos><start_of_turn>user\n<start_of_image>{QUESTION}<end_of_turn>\n"
    "<start_of_turn>model\n",
    "llava-1.5": "A chat between a curious human and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the human's questions. "
    f"USER: <image>\n{QUESTION} ASSISTANT: ",
    "pixtral": f"<s>[INST][IMG]{QUESTION}[/INST]",
    "smolvlm2": f"<|im_start|>User:<image>{QUESTION}<end_of_utterance>\nAssistant: ",
}
ROW = {row.preset: row for row in ROWS}


@cache
def loaded(row: Row) -> VlmFamily:
    return row.load()


def expanded(vlm: VlmFamily, name: str, pixel_values: torch.Tensor) -> str:
    """The template with the image's token as the model's own processor expands it."""
    text = HUB[name]
    height, width = pixel_values.shape[-2:]
    match name:
        case "gemma3":
            # As Gemma3Processor.full_image_sequence; it takes 256 tokens for granted.
            tokens = "<image_soft_token>" * vlm.model.config.mm_tokens_per_image
            whole = f"\n\n<start_of_image>{tokens}<end_of_image>\n\n"
            return text.replace("<start_of_image>", whole)
        case "pixtral":
            # As PixtralProcessor.replace_image_token, whose module asks for torchvision.
            patch = vlm.model.config.vision_config.patch_size
            rows = [["[IMG]"] * (width // patch) + ["[IMG_BREAK]"]] * (height // patch)
            tokens = "".join(token for row in rows for token in row)
            return text.replace("[IMG]", tokens.removesuffix("[IMG_BREAK]") + "[IMG_END]")
        case "smolvlm2":
            count = (height // 16 // 2) * (width // 16 // 2)
            boundary = "<fake_token_around_image>"
            whole = get_image_prompt_string(0, 0, count, boundary, "<image>", "<global-img>")
            return text.replace("<image>", whole)
        case _:
            patches = (height // 14) * (width // 14)
            return text.replace("<image>", "<image>" * patches)


@pytest.mark.parametrize("name", HUB)
@pytest.mark.parametrize("image", ["photo", "wide"])
def test_ids_are_those_of_the_models_own_template(
    images: dict[str, torch.Tensor], name: str, image: str
) -> None:
    vlm = loaded(ROW[name])
    pixel_values = vlm.processed(picture(images[image]))
    talk = vlm.converse(ASKED, POSTFIX, vlm.image_placeholder(pixel_values))
    text = expanded(vlm, name, pixel_values) + ASKED.answer
    # The templates on the hub that begin with BOS are tokenised without adding another.
    theirs = vlm.tokenizer(text, add_special_tokens=name not in ("gemma3", "pixtral"))["input_ids"]
    assert talk.input_ids == theirs
    assert talk.input_ids.count(vlm.tokenizer.bos_token_id) == 1
    features = vlm.image_features(pixel_values)
    placed = talk.input_ids.count(vlm.model.config.image_token_id)
    assert placed == features.shape[1]
    said = vlm.tokenizer.decode([talk.input_ids[i] for i in talk.answer_positions])
    assert said.strip() == ASKED.answer
