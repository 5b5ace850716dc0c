"""The forms of a job's LoRA, each for other tools, and the files of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

from dualprocess.errors import NoLora
from dualprocess.schemas import Job, JobKind

#: The name of the model card in the folder of a form.
CARD_FILE = "README.md"


class LoraForm(StrEnum):
    DIFFUSERS = "diffusers"
    KOHYA = "kohya"
    PEFT = "peft"

    @property
    def weights(self) -> str:
        """The file with the matrices."""
        return _WEIGHTS[self]


_DIFFUSERS = "pytorch_lora_weights.safetensors"
_WEIGHTS = {
    LoraForm.DIFFUSERS: _DIFFUSERS,
    LoraForm.KOHYA: "pytorch_lora_weights_kohya.safetensors",
    LoraForm.PEFT: "adapter_model.safetensors",
}
_PICTURE = re.compile(r"(base|lora)-(\d{1,10})\.png")


def pictures(job: Job) -> Iterator[tuple[int, str, str]]:
    """Seed, picture of the base model, picture with the LoRA: the names of the job's files."""
    found = [match for file in job.artifacts if (match := _PICTURE.fullmatch(file.name))]
    base, lora = (
        {int(match[2]): match[0] for match in found if match[1] == side}
        for side in ("base", "lora")
    )
    for seed in sorted(base.keys() & lora.keys()):
        yield seed, base[seed], lora[seed]


def files_of(job: Job, form: LoraForm) -> list[str]:
    """What is downloaded of the job: its LoRA in this form, and its pictures. Raises ``NoLora``."""
    stored = _DIFFUSERS if form is LoraForm.PEFT else form.weights
    have = {file.name for file in job.artifacts}
    if job.kind != JobKind.OPTIMIZE:
        raise NoLora(f"job {job.id} is of the kind {job.kind}, which makes no LoRA")
    if _DIFFUSERS not in have:
        raise NoLora(f"job {job.id} is {job.status} and has no LoRA")
    if stored not in have:
        raise NoLora(
            f"job {job.id} has no LoRA in the form {form}, in which its layers have no names; "
            f"take {LoraForm.DIFFUSERS} or {LoraForm.PEFT}"
        )
    config = ["adapter_config.json"] if form is LoraForm.PEFT else []
    shown = [name for _, *both in pictures(job) for name in both]
    return [*config, form.weights, *shown]
