"""Writes the trained pair as the folders that `from_pretrained` reads.

`python -m models.training.export`. Each folder is written to a temporary place first.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import nn

from models.training import checkpoint
from models.training.tokenizers import END_OF_UTTERANCE, IMAGE
from models.training.train_flux import Denoiser, latent_statistics, load_vae
from models.training.train_idefics2 import AttributeHead, build_vlm
from models.training.vlm_batches import IMAGE_TOKENS, tokenizer
from models.training.world import SIDE

MODELS = Path(__file__).parents[1]
FLUX = MODELS / "tiny-flux"
IDEFICS2 = MODELS / "tiny-idefics2"

# The hub's template of Idefics2.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '"
    + IMAGE
    + "' }}{% endif %}{% endfor %}"
    + END_OF_UTTERANCE
    + "\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def flux_pipeline() -> Any:
    """FluxPipeline of the last checkpoints."""
    state = checkpoint.load("flux")
    if state is None:
        raise FileNotFoundError("train first: python -m models.training.train_flux")
    denoiser = Denoiser()
    denoiser.load_state_dict(state["model"])
    vae = load_vae()
    mean, std = latent_statistics()
    vae.register_to_config(scaling_factor=1 / std, shift_factor=mean)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=denoiser.text_encoder.eval(),
        tokenizer=denoiser.clip,
        text_encoder_2=denoiser.text_encoder_2.eval(),
        tokenizer_2=denoiser.t5,
        transformer=denoiser.transformer.eval(),
    )


def idefics2() -> Any:
    """Idefics2ForConditionalGeneration of the last checkpoint."""
    state = checkpoint.load("idefics2")
    if state is None:
        raise FileNotFoundError("train first: python -m models.training.train_idefics2")
    both = nn.ModuleList([build_vlm(), AttributeHead()])
    both.load_state_dict(state["model"])
    return both[0].eval()


def main() -> None:
    pipeline, folder = flux_pipeline(), _aside(FLUX)
    pipeline.save_pretrained(folder)
    _move_into_place(folder, FLUX)

    model, folder = idefics2(), _aside(IDEFICS2)
    ids = tokenizer()
    # Answers end as in training, and as in the hub's Idefics2.
    ends = [ids.eos_token_id, ids.convert_tokens_to_ids(END_OF_UTTERANCE)]
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    ids.save_pretrained(folder)
    _write(folder / "preprocessor_config.json", _image_processor_config())
    _write(
        folder / "processor_config.json",
        {"image_seq_len": IMAGE_TOKENS, "processor_class": "Idefics2Processor"},
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _move_into_place(folder, IDEFICS2)


def _image_processor_config() -> dict[str, Any]:
    return {
        "image_processor_type": "Idefics2ImageProcessor",
        "processor_class": "Idefics2Processor",
        "do_convert_rgb": True,
        "do_image_splitting": False,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIDE, "longest_edge": SIDE},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _aside(folder: Path) -> Path:
    aside = checkpoint.RUNS / folder.name
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if (folder / "README.md").exists():
        shutil.copy(folder / "README.md", aside)
    return aside


def _move_into_place(aside: Path, folder: Path) -> None:
    old = checkpoint.RUNS / f"{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)


if __name__ == "__main__":
    main()
