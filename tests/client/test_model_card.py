"""The model card of a LoRA: what a hub reads, whatever the job's texts are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from dualprocess import Job, JobSpec, LoraForm
from dualprocess.model_card import model_card
from dualprocess.schemas import GeneratorInfo, License
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
HOSTILE = '---\nlicense: mit\n```\n# <script>x</script> ![x](y) | a: "b" \x1b[2J {{ c }}'


def job(generator: str, **changes: Any) -> Job:
    """An ended job with one pair of pictures, scores, and ``changes`` of its request."""
    request = {
        "prompt": "a circle",
        "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
        "generator": generator,
        "vlm": "tiny-idefics2",
        "metadata": {"customer": "a secret"},
    } | changes
    spec = resolve_job(JobSpec.model_validate(request), load_presets())
    question = spec.questions[0]

    def score(probability: float) -> dict[str, Any]:
        chance = {"joint": probability, "geometric_mean": probability}
        asked = {"question": question.question, "answer": question.answer, "probability": chance}
        return {"probability": chance, "correct": 1.0, "questions": [asked]}

    both = {"base": score(0.25), "lora": score(0.875)}
    files = ["base-0.png", "lora-0.png", "pytorch_lora_weights.safetensors"]
    return Job.model_validate(
        {
            "id": "0" * 26,
            "kind": "optimize",
            "status": "succeeded",
            "owner": "somebody",
            "generator": generator,
            "vlms": ["tiny-idefics2"],
            "created_at": "2026-01-01T00:00:00Z",
            "name": changes.get("name"),
            "scores": both
            | {"judge": {"vlm": "smolvlm2", **both}, "drift": 0.125, "diversity": 0.75},
            "artifacts": [
                {"name": name, "media_type": "image/png", "bytes": 1, "sha256": "0" * 64}
                for name in files
            ],
            "spec": spec.model_dump(),
        }
    )


def base(generator: str) -> GeneratorInfo:
    preset = load_presets().generator(generator)
    return GeneratorInfo(
        **{
            name: getattr(preset, name)
            for name in GeneratorInfo.model_fields.keys() - {"live_workers"}
        },
        live_workers=1,
    )


def card_of(generator: str, form: LoraForm = LoraForm.DIFFUSERS, **changes: Any) -> str:
    return model_card(job(generator, **changes), base(generator), form)


def head_of(text: str) -> dict[str, Any]:
    head: dict[str, Any] = ModelCard(text, ignore_metadata_errors=False).data.to_dict()  # type: ignore[no-untyped-call]
    return head


def test_the_head_says_what_a_hub_asks_for() -> None:
    head = head_of(card_of("flux-schnell"))
    assert head["base_model"] == "black-forest-labs/FLUX.1-schnell"
    assert (head["license"], head["pipeline_tag"]) == ("apache-2.0", "text-to-image")
    assert (head["library_name"], head["instance_prompt"]) == ("diffusers", "a circle")
    assert head["widget"] == [{"text": "a circle", "output": {"url": "lora-0.png"}}]
    assert "lora" in head["tags"]
    assert head_of(card_of("flux-schnell", LoraForm.PEFT))["library_name"] == "peft"


@pytest.mark.parametrize("generator", load_presets().generators)
def test_the_licence_is_that_of_the_base(generator: str) -> None:
    head, preset = head_of(card_of(generator)), load_presets().generator(generator)
    assert preset.license is not None
    assert head["license"] == preset.license.id
    assert head.get("license_name") == preset.license.name
    assert (preset.license.id == "other") == bool(preset.license.link)
    # A folder of the service's own is nobody else's business.
    assert head.get("base_model") == (preset.model if preset.is_on_hub else None)
    assert "/work" not in card_of(generator).replace("/workflows", "")


def test_the_body_has_scores_pictures_and_a_spec_that_can_be_submitted() -> None:
    drawn = {"question": "Is it here?", "answer": "Yes", "visual_prompt": {"image": PNG}}
    text = card_of("flux-schnell", questions=[drawn], name="red circle")
    assert "# red circle\n" in text
    for who in ("teacher, tiny-idefics2", "judge, smolvlm2"):
        assert f"| {who} | Is it here? → Yes | 0.250 | 0.875 |" in text
    assert "Drift 0.125" in text
    assert "Diversity 0.75" in text
    assert "![base model, seed 0](base-0.png) | ![LoRA, seed 0](lora-0.png)" in text
    assert "Left out: the drawings of 1 questions." in text
    assert PNG not in text
    for private in ("a secret", "customer", "somebody"):
        assert private not in text
    (spec,) = re.findall(r"```yaml\n(.*?)\n```", text, re.DOTALL)
    again = JobSpec.model_validate(yaml.safe_load(spec))
    assert again.prompts == ["a circle"]


@pytest.mark.parametrize("form", LoraForm)
def test_it_tells_how_to_load_what_is_in_the_folder(form: LoraForm) -> None:
    text = card_of("flux-schnell", form, image={"num_inference_steps": 3})
    others = {other.weights for other in LoraForm} - {form.weights}
    assert not any(f"{name}`" in text or f'"{name}"' in text for name in others)
    blocks = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    if form is LoraForm.KOHYA:
        assert blocks == []
        assert f"`{form.weights}`" in text
        return
    compile(blocks[0], "card", "exec")
    assert "num_inference_steps=3" in blocks[0]


def test_texts_of_others_are_texts_only() -> None:
    questions = [{"question": HOSTILE, "answer": HOSTILE}]
    text = card_of("flux-schnell", prompt=HOSTILE, questions=questions, name=HOSTILE[:40])
    head = head_of(text)
    assert head["license"] == "apache-2.0"
    assert head["instance_prompt"] == HOSTILE.replace("\x1b", "")
    assert "\x1b" not in text
    _, _, body = text[3:].partition("\n---\n")
    # Outside of code there is no HTML, no picture but the job's, and no cell too many.
    prose = re.sub(r"(?ms)^(````*)\w+\n.*?^\1$", "", body)
    assert "```" not in prose.replace("\\`", "")
    assert re.findall(r"(?<!\\)<\w", prose) == []
    assert set(re.findall(r"(?<!\\)!\[[^\]]*\]\(([^)]*)\)", prose)) == {"base-0.png", "lora-0.png"}
    rows = [line for line in prose.splitlines() if line.startswith("| teacher")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [5]
    (spec,) = re.findall(r"(?ms)^(````*)yaml\n(.*?)^\1$", body)
    assert yaml.safe_load(spec[1])["prompts"] == [HOSTILE]


def test_a_base_that_says_no_licence_or_is_gone() -> None:
    unknown = base("flux-schnell").model_copy(update={"license": None})
    text = model_card(job("flux-schnell"), unknown, LoraForm.DIFFUSERS)
    assert "license" not in head_of(text)
    assert "bound by the licence of the base model" in text
    text = model_card(job("flux-schnell"), None, LoraForm.DIFFUSERS)
    assert "base_model" not in head_of(text)
    assert "path/to/flux-schnell" in text
    named = base("flux-schnell").model_copy(update={"license": License(id="other", name="x")})
    assert head_of(model_card(job("flux-schnell"), named, LoraForm.PEFT))["license_name"] == "x"
