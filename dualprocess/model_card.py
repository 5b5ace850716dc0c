"""The model card of a job's LoRA: a ``README.md`` with the head that a hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from dualprocess import printable
from dualprocess.lora_forms import LoraForm, pictures
from dualprocess.schemas import GeneratorInfo, Job, QuestionScore, ResolvedJobSpec, Score

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#!|<>~&$@])")


def model_card(job: Job, base: GeneratorInfo | None, form: LoraForm) -> str:
    """Of a folder with the job's pictures and its LoRA in ``form``.

    ``base`` is the job's generator; ``None`` if the service has no such preset any more. Texts of
    the job are escaped. What is private stays out: ``metadata``, the owner, drawings, and a file
    that the LoRA began with.
    """
    spec = job.spec
    assert isinstance(spec, ResolvedJobSpec), "only an optimise job has a LoRA"
    head = yaml.safe_dump(_head(job, spec, base, form), allow_unicode=True, sort_keys=False)
    return "\n".join([f"---\n{head}---", "", *_body(job, spec, base, form)])


def _head(
    job: Job, spec: ResolvedJobSpec, base: GeneratorInfo | None, form: LoraForm
) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if base is not None and base.license is not None:
        head |= {"license": base.license.id}
        head |= {"license_name": base.license.name} if base.license.name else {}
        head |= {"license_link": base.license.link} if base.license.link else {}
    if base is not None and base.is_on_hub:
        head |= {"base_model": base.model, "base_model_relation": "adapter"}
    prompt = printable.lines(spec.prompts[0])
    head |= {
        "library_name": "peft" if form is LoraForm.PEFT else "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": prompt,
        "tags": ["text-to-image", "lora", "diffusers", "template:diffusion-lora", "dualprocess"],
        "widget": [{"text": prompt, "output": {"url": lora}} for _, _, lora in pictures(job)],
    }
    return {key: value for key, value in head.items() if value != []}


def _body(
    job: Job, spec: ResolvedJobSpec, base: GeneratorInfo | None, form: LoraForm
) -> Iterator[str]:
    yield f"# {_text(job.name or spec.prompts[0])}"
    yield ""
    name = base.model if base is not None and base.is_on_hub else spec.generator
    teachers = ", ".join(_text(use.name) for use in spec.vlm)
    yield (
        f"A LoRA of rank {spec.lora.rank} for {_text(name)}. Its loss were the answers of "
        f"{teachers} about its images."
    )
    if base is not None and base.license is None:
        yield "Its use is bound by the licence of the base model."
    yield from _heading("Prompt" if len(spec.prompts) == 1 else "Prompts")
    yield from (f"- {_text(prompt)}" for prompt in spec.prompts)
    yield from _shown(job)
    yield from _heading("How to load it")
    yield from _loading(spec, base, form)
    yield from _measured(job, spec)
    yield from _heading("How it was made")
    yield (
        "With [dualprocess](https://arxiv.org/abs/2506.01955): this spec, as "
        "`dualprocess submit FILE` takes it, makes it again."
    )
    drawings = sum(question.visual_prompt is not None for question in spec.questions)
    left_out = [f"the drawings of {drawings} questions"] if drawings else []
    if spec.lora.start is not None and spec.lora.start.file is not None:
        left_out.append("the file that the LoRA began with")
    if left_out:
        yield f"Left out: {' and '.join(left_out)}."
    yield ""
    yield from _fenced("yaml", _spec(spec))


def _shown(job: Job) -> Iterator[str]:
    rows = list(pictures(job))
    if not rows:
        return
    yield from _heading("Pictures")
    yield "| seed | base model | with the LoRA |"
    yield "| --- | --- | --- |"
    for seed, base, lora in rows:
        yield f"| {seed} | ![base model, seed {seed}]({base}) | ![LoRA, seed {seed}]({lora}) |"


def _loading(spec: ResolvedJobSpec, base: GeneratorInfo | None, form: LoraForm) -> Iterator[str]:
    if form is LoraForm.KOHYA:
        yield f"Copy `{form.weights}` into ComfyUI's `models/loras`, and load it with strength 1."
        return
    model = base.model if base is not None and base.is_on_hub else f"path/to/{spec.generator}"
    load = {
        LoraForm.DIFFUSERS: [
            "# This folder, or the name of the repository.",
            f'pipeline.load_lora_weights(".", weight_name="{form.weights}")',
        ],
        LoraForm.PEFT: [
            'denoiser = getattr(pipeline, "unet", None) or pipeline.transformer',
            "# This folder, or the name of the repository.",
            'PeftModel.from_pretrained(denoiser, ".")',
        ],
    }[form]
    image = spec.image
    sent = {
        "width": image.width,
        "height": image.height,
        "num_inference_steps": image.num_inference_steps,
        "guidance_scale": image.guidance_scale,
    } | ({"negative_prompt": image.negative_prompt} if image.negative_prompt else {})
    yield from _fenced(
        "python",
        "\n".join(
            [
                "import torch",
                "from diffusers import DiffusionPipeline",
                *(["from peft import PeftModel"] if form is LoraForm.PEFT else []),
                "",
                f"pipeline = DiffusionPipeline.from_pretrained({model!r})",
                *load,
                "pipeline(",
                f"    {spec.prompts[0]!r},",
                *(f"    {name}={value!r}," for name, value in sent.items()),
                f'    generator=torch.Generator("cpu").manual_seed({spec.eval.seed}),',
                ').images[0].save("image.png")',
            ]
        ),
    )


def _measured(job: Job, spec: ResolvedJobSpec) -> Iterator[str]:
    scores = job.scores
    asked = {f"teacher, {', '.join(use.name for use in spec.vlm)}": (scores.base, scores.lora)}
    if scores.judge is not None:
        asked[f"judge, {scores.judge.vlm}"] = scores.judge.base, scores.judge.lora
    known = {who: (base, lora) for who, (base, lora) in asked.items() if base and lora}
    if known:
        yield from _heading("Scores")
        yield "Probability of the right answer, and the share of images with it."
        yield ""
        yield "| asked | question | base model | with the LoRA |"
        yield "| --- | --- | --- | --- |"
        for who, (base, lora) in known.items():
            yield from _rows(who, base, lora)
    if scores.drift is not None:
        yield ""
        yield (
            f"Drift {scores.drift:.3f}: how far an image is from the base model's of the same seed "
            "(0: the same picture, about 1: another)."
        )
    if scores.diversity is not None:
        yield ""
        yield (
            f"Diversity {scores.diversity:.2f}: how far two images are from each other, compared "
            "with the base model (below 1: more alike)."
        )


def _rows(who: str, base: Score, lora: Score) -> Iterator[str]:
    pairs = [*zip(base.questions, lora.questions, strict=False)]
    for before, after in pairs:
        asked = f"{_text(before.question)} → {_text(before.answer)}"
        yield f"| {_text(who)} | {asked} | {_score(before)} | {_score(after)} |"
    if len(pairs) > 1:
        yield f"| {_text(who)} | all | {_score(base)} | {_score(lora)} |"


def _score(score: Score | QuestionScore) -> str:
    share = "" if score.correct is None else f", {score.correct:.0%}"
    return f"{score.probability.geometric_mean:.3f}{share}"


def _spec(spec: ResolvedJobSpec) -> str:
    left_out: Any = {
        "metadata": True,
        "questions": {"__all__": {"visual_prompt"}},
        "lora": {"start": {"file"}},
    }
    described = spec.model_dump(mode="json", exclude=left_out, exclude_none=True)
    if described["lora"].get("start", {}).get("job") is None:
        described["lora"].pop("start", None)
    return yaml.safe_dump(described, allow_unicode=True, sort_keys=False, width=100).rstrip()


def _heading(text: str) -> list[str]:
    return ["", f"## {text}", ""]


def _fenced(language: str, text: str) -> list[str]:
    """A block of code that nothing in it can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text, fence]


def _text(text: str) -> str:
    """On one line, and nothing in it is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", printable.line(text))
