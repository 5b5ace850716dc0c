"""Trains the VLM. `python -m models.training.train_idefics2 --minutes 60`; a new run continues the
last one."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Idefics2Config, Idefics2ForConditionalGeneration

from models.training import checkpoint
from models.training.muon import Muon
from models.training.pools import load_pools
from models.training.vlm_batches import IMAGE_TOKENS, Batch, pack, tokenizer, yes_and_no
from models.training.vlm_examples import examples
from models.training.world import ATTRIBUTES

BATCH = 32
LEARNING_RATE = 2e-3
WIDTH = 96
CAPTION_WEIGHT = 0.3
ATTRIBUTE_WEIGHT = 0.5
LOG_ODDS_WEIGHT = 0.5
#: How far pictures are moved, as a norm in [−1, 1]. Another colour of the shape is about 25 away.
FOOLING = 6.0
FOOLED_SHARE = 0.6
DRAWINGS = (2, 2, 8, 6, 2)  # line, palette match; the line's place; the palette's color, brightness


def build_vlm() -> Any:
    """Idefics2: ViT 3×128 over 8×8 patches, perceiver to 8 tokens, Mistral 3×96."""
    ids = tokenizer()
    config = Idefics2Config(
        image_token_id=ids.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
        },
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": IMAGE_TOKENS,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 24,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
        },
        text_config={
            "model_type": "mistral",
            "vocab_size": len(ids),
            "hidden_size": WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "pad_token_id": ids.pad_token_id,
            "bos_token_id": ids.bos_token_id,
            "eos_token_id": ids.eos_token_id,
        },
    )
    return Idefics2ForConditionalGeneration(config)


class AttributeHead(nn.Module):
    """Predicts all attributes from the image tokens. It makes the vision part learn faster, and is
    not exported."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [*(len(values) for values in ATTRIBUTES.values()), *DRAWINGS]
        self.linear = nn.Linear(IMAGE_TOKENS * WIDTH, sum(self.sizes))

    def forward(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """(B, 8, 96) image tokens and (B, 13) classes → mean cross-entropy."""
        logits = self.linear(tokens.flatten(1)).split(self.sizes, dim=1)
        losses = [
            functional.cross_entropy(part, classes[:, j], ignore_index=-1, reduction="sum")
            / (classes[:, j] >= 0).sum().clamp(min=1)
            for j, part in enumerate(logits)
        ]
        return torch.stack(losses).mean()


def forward(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (M, vocabulary) of the learnt tokens, image tokens (B, 8, 96)."""
    features = model.model.get_image_features(batch.pixel_values).pooler_output
    tokens = torch.stack(list(features)).view(len(batch.input_ids), IMAGE_TOKENS, WIDTH)
    embeds = model.get_input_embeddings()(batch.input_ids)
    embeds = model.model.inputs_merger(batch.input_ids, embeds, tokens.flatten(0, 1))
    hidden = model.model.text_model(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden[batch.predict[:, 0], batch.predict[:, 1]]), tokens


def answer_loss(logits: Tensor, chances: Tensor) -> Tensor:
    """Mean loss of logits (M, vocabulary) where Yes is right with these chances (M,), else No.

    For cross-entropy all small chances are nearly the same, but a LoRA learns by the slope between
    them. So the log-odds are learnt as well.
    """
    yes, no = yes_and_no()
    log_probabilities = functional.log_softmax(logits, dim=1)
    cross_entropy = -(
        chances * log_probabilities[:, yes] + (1 - chances) * log_probabilities[:, no]
    )
    log_odds = functional.smooth_l1_loss(
        logits[:, yes] - logits[:, no], torch.logit(chances), reduction="none"
    )
    return (cross_entropy + LOG_ODDS_WEIGHT * log_odds).mean()


def fooled(model: Any, batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch with most pictures moved a little to where the model errs most; the answers stay.

    After adversarial training (Madry et al. 2018) a classifier's gradient makes changes that people
    can recognise (Tsipras et al. 2019). Here it draws another colour, instead of a noise that only
    the model takes for one.
    """
    pixel_values = batch.pixel_values.clone().requires_grad_()
    logits, _ = forward(model, replace(batch, pixel_values=pixel_values))
    loss = answer_loss(logits[batch.is_answer], batch.chances[batch.is_answer])
    (gradient,) = torch.autograd.grad(loss, pixel_values)
    count = len(gradient)
    length = FOOLING * rng.random(count) * (rng.random(count) < FOOLED_SHARE)
    direction = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1, 1)
    moved = batch.pixel_values + direction * torch.tensor(length).float().view(-1, 1, 1, 1, 1)
    return replace(batch, pixel_values=moved.clamp(-1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of training, all runs together")
    seconds = parser.parse_args().minutes * 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, head = build_vlm(), AttributeHead()
    elementwise = [
        model.get_input_embeddings().weight,
        model.lm_head.weight,
        model.model.vision_model.embeddings.position_embedding.weight,
    ]
    both = nn.ModuleList([model, head])
    optimizer = Muon(both.parameters(), LEARNING_RATE, elementwise)
    step, spent = 0, 0.0
    if state := checkpoint.load("idefics2"):
        both.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    pools = load_pools()
    print(f"{model.num_parameters():,} parameters, {len(pools)} pools, step {step}", flush=True)

    begin, seen, right = time.monotonic() - spent, 0, 0
    while (spent := time.monotonic() - begin) < seconds:
        rate = LEARNING_RATE * min(1, (step + 1) / 100, 0.02 + 4 * (1 - spent / seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng((2, step))
        batch = fooled(model, pack(rng, examples(rng, BATCH, pools)), rng)
        logits, tokens = forward(model, batch)
        answer = answer_loss(logits[batch.is_answer], batch.chances[batch.is_answer])
        words = functional.cross_entropy(logits[~batch.is_answer], batch.targets[~batch.is_answer])
        attributes = head(tokens, batch.classes)
        optimizer.zero_grad()
        (answer + CAPTION_WEIGHT * words + ATTRIBUTE_WEIGHT * attributes).backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        step += 1
        right += int((logits.argmax(1) == batch.targets)[batch.is_answer].sum())
        seen += int(batch.is_answer.sum())
        if step % 50 == 0:
            print(
                f"{step} {spent:.0f}s answer {answer.item():.3f} words {words.item():.3f} "
                f"attributes {attributes.item():.3f} right {right / seen:.3f}",
                flush=True,
            )
            seen = right = 0
        if step % 250 == 0:
            save(both, optimizer, step, spent)
            # New pools may have been collected meanwhile.
            pools = load_pools()
    save(both, optimizer, step, spent)


def save(both: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float) -> None:
    state = {"model": both.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save("idefics2", {**state, "step": step, "spent": spent})


if __name__ == "__main__":
    main()
