"""The ComfyUI workflow, against what ComfyUI's source says of its nodes. ComfyUI is not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualprocess.cli import specs
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOW: dict[str, dict[str, Any]] = json.loads(
    (EXAMPLES / "comfyui" / "flux-lora.json").read_text()
)

#: Of each node, its required inputs by type (lower case: a value, not a link), and its outputs.
#: Source: ``INPUT_TYPES`` and ``RETURN_TYPES`` in ComfyUI's nodes.py and comfy_extras/nodes_sd3.py.
SIGNATURES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name": "str"}, ("MODEL", "CLIP", "VAE")),
    "LoraLoaderModelOnly": (
        {"model": "MODEL", "lora_name": "str", "strength_model": "float"},
        ("MODEL",),
    ),
    "CLIPTextEncode": ({"text": "str", "clip": "CLIP"}, ("CONDITIONING",)),
    "EmptySD3LatentImage": ({"width": "int", "height": "int", "batch_size": "int"}, ("LATENT",)),
    "KSampler": (
        {
            "model": "MODEL",
            "seed": "int",
            "steps": "int",
            "cfg": "float",
            "sampler_name": "str",
            "scheduler": "str",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "denoise": "float",
        },
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "str"}, ()),
}


def kind(value: object) -> str:
    """What an input gets: the type of the output that it is linked to, or of the value."""
    if isinstance(value, list):
        node, slot = value
        return SIGNATURES[WORKFLOW[node]["class_type"]][1][slot]
    return type(value).__name__


def node(kind: str) -> dict[str, Any]:
    """The inputs of the one node of this kind."""
    (found,) = (node for node in WORKFLOW.values() if node["class_type"] == kind)
    inputs: dict[str, Any] = found["inputs"]
    return inputs


@pytest.mark.parametrize("name", WORKFLOW)
def test_each_node_gets_what_it_takes(name: str) -> None:
    inputs, _ = SIGNATURES[WORKFLOW[name]["class_type"]]
    assert {key: kind(value) for key, value in WORKFLOW[name]["inputs"].items()} == inputs


def test_it_draws_as_the_job_did() -> None:
    job = resolve_job(specs.load(str(EXAMPLES / "paper" / "horizon.yaml")), load_presets())
    prompt, _ = node("KSampler")["positive"]
    assert [WORKFLOW[prompt]["inputs"]["text"]] == job.prompts
    latent = node("EmptySD3LatentImage")
    assert (latent["width"], latent["height"]) == (job.image.width, job.image.height)
    assert node("KSampler")["steps"] == job.image.num_inference_steps
    assert node("LoraLoaderModelOnly")["strength_model"] == 1.0
