"""All settings of a job, as fields of the page. They begin with the preset's defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from dualprocess.schemas import GeneratorInfo, ResolvedJobSpec
from dualprocess.schemas.settings import LoraStart

GUARD = "Guard"
#: The groups in the page's order, some with a sentence.
GROUPS: Mapping[str, str] = {
    "Image": "",
    "LoRA": "",
    "Optimiser": "",
    GUARD: "Keeps what no question asks about as the base model draws it. Anchor 0, margin 1 and "
    "worst case 0 turn it off; this is the paper's method.",
    "Pictures and scores": "",
    "The job": "",
}


@dataclass(frozen=True)
class Setting:
    #: Its path in a ``JobSpec``, like optimizer.lr.
    path: str
    group: str
    label: str
    info: str
    component: Callable[..., Component]
    #: Turns the field's value into the spec's.
    read: Callable[[Any], Any] = lambda value: value
    #: Turns the spec's value into the field's.
    show: Callable[[Any], Any] = lambda value: value

    def build(self, elem_id: str) -> Component:
        return self.component(label=self.label, info=self.info, elem_id=elem_id, min_width=150)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _written(text: Any) -> str | None:
    """The text; ``None`` if it is empty. It is not a ``gr.Number``, which sends 0 if empty."""
    return str("" if text is None else text).strip() or None


def _words(text: str | None) -> list[str] | None:
    return [word for word in (text or "").replace(",", " ").split() if word] or None


def _pairs(text: str | None) -> dict[str, str]:
    lines = [line for line in (text or "").splitlines() if line.strip()]
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _start(text: Any) -> dict[str, str] | None:
    job, slash, artifact = str(text or "").strip().partition("/")
    return {"job": job, **({"artifact": artifact} if slash else {})} if job or slash else None


def _start_shown(start: Mapping[str, Any]) -> str:
    job, artifact = start["job"], start["artifact"]
    own = LoraStart.model_fields["artifact"].default
    return str(job) if artifact == own else f"{job}/{artifact}"


_NUMBER = partial(gr.Number, value=None, step=0.1)
_FINE = partial(gr.Number, value=None, step=0.01)
_INTEGER = partial(gr.Number, value=None, precision=0)
_TEXT = partial(gr.Textbox, lines=1, max_lines=1)

SETTINGS: tuple[Setting, ...] = (
    Setting("image.width", "Image", "Width", "pixels", _INTEGER, _whole),
    Setting("image.height", "Image", "Height", "pixels", _INTEGER, _whole),
    Setting(
        "image.num_inference_steps", "Image", "Sampler steps", "more is slower", _INTEGER, _whole
    ),
    Setting("image.guidance_scale", "Image", "Guidance", "0: none", _NUMBER),
    Setting(
        "image.negative_prompt",
        "Image",
        "Negative prompt",
        "what the image should not show; needs guidance above 1",
        _TEXT,
    ),
    Setting("lora.rank", "LoRA", "Rank", "its size", _INTEGER, _whole),
    Setting("lora.alpha", "LoRA", "Alpha", "scale = weight × alpha / rank", _NUMBER),
    Setting("lora.weight", "LoRA", "Weight", "while it trains", _NUMBER),
    Setting(
        "lora.init",
        "LoRA",
        "Beginning",
        "initial values of lora_A; lora_B begins at 0",
        partial(gr.Dropdown, choices=["gaussian", "kaiming"]),
    ),
    Setting(
        "lora.dtype",
        "LoRA",
        "Precision of the file",
        "training uses float32; auto: bfloat16 if the generator is bfloat16",
        partial(gr.Dropdown, choices=["auto", "float32", "bfloat16"]),
    ),
    Setting(
        "lora.start",
        "LoRA",
        "Go on from a job",
        "id of a job to begin with its LoRA; id/file for another file of that job",
        _TEXT,
        _start,
        _start_shown,
    ),
    Setting(
        "lora.target_modules",
        "LoRA",
        "Layers",
        "ends of the names of the layers that get a LoRA",
        partial(gr.Textbox, lines=3, max_lines=8),
        _words,
        ", ".join,
    ),
    Setting("optimizer.steps", "Optimiser", "Steps", "how long it learns", _INTEGER, _whole),
    Setting("optimizer.batch", "Optimiser", "Batch", "images at once", _INTEGER, _whole),
    Setting("optimizer.accumulate", "Optimiser", "Accumulate", "batches a step", _INTEGER, _whole),
    Setting(
        "optimizer.lr",
        "Optimiser",
        "Learning rate",
        "too high breaks images",
        partial(gr.Number, value=None, step=0.00001),
    ),
    Setting("optimizer.weight_decay", "Optimiser", "Weight decay", "of AdamW", _NUMBER),
    Setting("optimizer.max_grad_norm", "Optimiser", "Gradient norm", "clipped to this", _NUMBER),
    Setting("optimizer.seed", "Optimiser", "Seed", "same seed, same LoRA", _INTEGER, _whole),
    Setting(
        "optimizer.noise_seeds",
        "Optimiser",
        "Noise seeds",
        "noise repeats after this many steps; empty: never",
        _TEXT,
        _written,
    ),
    Setting(
        "optimizer.checkpoint_every",
        "Optimiser",
        "Checkpoint every",
        "steps; 0: never",
        _INTEGER,
        _whole,
    ),
    Setting(
        "optimizer.timestep",
        "Optimiser",
        "Timestep",
        "of the sampler, at which a step trains",
        partial(gr.Dropdown, choices=["random", "first", "last"]),
    ),
    Setting(
        "guard.anchor",
        GUARD,
        "Anchor",
        "how strongly images are kept close to the base model's; 0: off",
        _FINE,
    ),
    Setting(
        "guard.margin",
        GUARD,
        "Margin",
        "an answer with at least this probability teaches no more; 1: off",
        _FINE,
    ),
    Setting(
        "guard.worst_case",
        GUARD,
        "Worst case",
        "how far from the image the VLM looks for its worst answers; 0: off, which is faster",
        _FINE,
    ),
    Setting("eval.images", "Pictures and scores", "Images", "at the end", _INTEGER, _whole),
    Setting(
        "eval.seed",
        "Pictures and scores",
        "First seed",
        "the others count up from it",
        _INTEGER,
        _whole,
    ),
    Setting(
        "eval.every", "Pictures and scores", "Preview every", "steps; 0: never", _INTEGER, _whole
    ),
    Setting(
        "stop_at_score",
        "Pictures and scores",
        "Enough at",
        "stop early at this probability, between 0 and 1 and below the margin; empty: never",
        _TEXT,
        _written,
    ),
    Setting(
        "question_postfix",
        "The job",
        "After every question",
        "tells the VLM how to answer",
        partial(_TEXT, value="Answer with Yes or No."),
    ),
    Setting(
        "name",
        "The job",
        "Name",
        "a name to find the job again",
        _TEXT,
        _written,
    ),
    Setting(
        "deadline", "The job", "Deadline", "seconds from now; empty: no deadline", _TEXT, _written
    ),
    Setting(
        "webhook.url",
        "The job",
        "Webhook",
        "an https address that gets a message when the job ends",
        _TEXT,
        _written,
    ),
    Setting(
        "webhook.secret",
        "The job",
        "Webhook secret",
        "whsec_…, signs the message",
        partial(_TEXT, type="password"),
        _written,
    ),
    Setting(
        "metadata",
        "The job",
        "Metadata",
        "name=value, one per line; returned unchanged",
        partial(gr.Textbox, lines=2, max_lines=6),
        _pairs,
        lambda pairs: "\n".join(f"{name}={value}" for name, value in pairs.items()),
    ),
)


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Sets ``value`` at ``path``; ``None`` leaves the default."""
    if value is None:
        return
    *parents, last = path.split(".")
    for parent in parents:
        spec = spec.setdefault(parent, {})
    spec[last] = value


def defaults(info: GeneratorInfo) -> dict[str, Any]:
    """The values of the fields for a generator, before anything was changed."""
    parts = ("image", "lora", "optimizer", "guard", "eval")
    return _shown(info.model_dump(include=set(parts)), only=parts)


def of_spec(spec: ResolvedJobSpec) -> dict[str, Any]:
    """The values of the fields for an earlier job."""
    return _shown(spec.model_dump(mode="json"))


def _shown(data: Mapping[str, Any], only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The values by path. With ``only``, those of these parts of a spec."""
    values = {}
    for setting in SETTINGS:
        head, *rest = setting.path.split(".")
        if only and (head not in only or setting.path == "lora.start"):
            continue
        value = data.get(head)
        for part in rest:
            value = value.get(part) if isinstance(value, dict) else None
        values[setting.path] = None if value is None else setting.show(value)
    return values
