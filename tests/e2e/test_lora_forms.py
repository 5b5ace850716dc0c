"""A job's LoRA in each form, pulled and pushed by the command line, loaded by other tools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from typer.testing import CliRunner

from dualprocess import Client, Job
from dualprocess.cli import app
from services.common.presets import load_presets
from tests.e2e.conftest import LORA_FILE, red_circle
from tests.e2e.hub_server import TOKEN, Hub, hub_server
from tests.e2e.stack import Stack

PICTURES = {"base-0.png", "lora-0.png"}
FORMS = {
    "diffusers": {LORA_FILE},
    "kohya": {"pytorch_lora_weights_kohya.safetensors"},
    "peft": {"adapter_config.json", "adapter_model.safetensors"},
}


@pytest.fixture(scope="module")
def trained(stack: Stack) -> Job:
    with Client(stack.url) as client:
        return client.wait(client.submit(red_circle(name="red *circle*")).id)


@pytest.fixture
def pulled(stack: Stack, trained: Job, tmp_path: Path) -> Callable[[str], Path]:
    def pull(form: str) -> Path:
        folder = tmp_path / form
        command = ["pull", trained.id, "--as", form, "--to", str(folder), "--url", stack.url]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return folder

    return pull


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_has_what_its_form_needs(pulled: Callable[[str], Path], form: str) -> None:
    names = {path.name for path in pulled(form).iterdir()}
    assert names == FORMS[form] | PICTURES | {"README.md"}


def test_peft_and_diffusers_draw_the_jobs_picture(pulled: Callable[[str], Path]) -> None:
    diffusers, peft = pulled("diffusers"), pulled("peft")
    model = load_presets().generator("tiny-flux").model

    def drawn(pipeline: FluxPipeline) -> np.ndarray:
        generator = torch.Generator("cpu").manual_seed(0)
        image = pipeline(
            "a circle",
            width=64,
            height=64,
            num_inference_steps=1,
            guidance_scale=0.0,
            max_sequence_length=32,
            generator=generator,
        ).images[0]
        return np.asarray(image).astype(int)

    own = np.asarray(Image.open(diffusers / "lora-0.png").convert("RGB")).astype(int)
    base = np.asarray(Image.open(diffusers / "base-0.png").convert("RGB")).astype(int)
    assert np.abs(own - base).max() > 1
    pipeline = FluxPipeline.from_pretrained(model)
    pipeline.load_lora_weights(diffusers)
    assert np.abs(drawn(pipeline) - own).max() <= 1
    pipeline = FluxPipeline.from_pretrained(model)
    PeftModel.from_pretrained(pipeline.transformer, peft)
    assert np.abs(drawn(pipeline) - own).max() <= 1


@pytest.fixture
def pushed(stack: Stack, trained: Job, tmp_path: Path) -> Callable[..., tuple[Hub, int, str]]:
    def push(
        *flags: str, token: str = TOKEN, repository: str = "someone/red"
    ) -> tuple[Hub, int, str]:
        with hub_server() as hub:
            environment = os.environ | {
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": token,
                "HF_HOME": str(tmp_path / "hub"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_OFFLINE": "0",
            }
            code = "from dualprocess.cli import app; app()"
            command = [sys.executable, "-c", code, "push", trained.id, repository, *flags]
            done = subprocess.run(
                [*command, "--url", stack.url],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        return hub, done.returncode, done.stdout + done.stderr

    return push


def test_a_pushed_repository_is_private_and_has_the_folder(
    pushed: Callable[..., tuple[Hub, int, str]], pulled: Callable[[str], Path], trained: Job
) -> None:
    hub, code, said = pushed()
    assert code == 0, said
    assert said.strip() == f"{hub.url}/someone/red"
    assert [(made["name"], made.get("visibility")) for made in hub.made] == [("red", "private")]
    own = {path.name: path.read_bytes() for path in pulled("diffusers").iterdir()}
    assert hub.files == own
    assert hub.messages == [f"LoRA of dualprocess job {trained.id}"]
    head = ModelCard(hub.heads[0]).data.to_dict()  # type: ignore[no-untyped-call]
    assert head["instance_prompt"] == "a circle"


def test_a_public_one_is_asked_for_and_a_wrong_token_is_told(
    pushed: Callable[..., tuple[Hub, int, str]],
) -> None:
    hub, code, said = pushed("--public", "--as", "peft")
    assert code == 0, said
    assert hub.made[0]["visibility"] == "public"
    assert FORMS["peft"] < hub.files.keys()
    hub, code, said = pushed(token="hf_wrong")
    assert (code, hub.files) == (1, {})
    assert "HF_TOKEN" in said
    hub, code, said = pushed(repository="no/such/name")
    assert (code, hub.made) == (1, [])
    assert "owner/name" in said
