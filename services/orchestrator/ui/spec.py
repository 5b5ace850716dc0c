"""Turns the fields of the page into a ``JobSpec``, and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from dualprocess.schemas import ImagesRequest, JobSpec, Question, ResolvedJobSpec
from services.orchestrator.ui import settings


def job_spec(values: Mapping[str, Any]) -> JobSpec:
    """The spec for the fields' values. Raises pydantic's ``ValidationError``."""
    return JobSpec.model_validate(_data(values))


def images_request(
    values: Mapping[str, Any], count: int, best_of: int | None = None
) -> ImagesRequest:
    """A request for images of the base model for the first prompt, scored by the first teacher."""
    data = _data(values)
    prompt = data["prompts"][0] if "prompts" in data else data["prompt"]
    vlm = data["vlm"] if isinstance(data["vlm"], str) else data["vlm"][0]["name"]
    first = int(values.get("eval.seed") or 0)
    return ImagesRequest.model_validate(
        {
            "prompt": prompt,
            "generator": data["generator"],
            "image": data.get("image", {}),
            "seeds": list(range(first, first + count)),
            "questions": data["questions"],
            "question_postfix": data.get("question_postfix", ""),
            "vlm": vlm,
            "best_of": best_of,
        }
    )


def shown(spec: ResolvedJobSpec) -> dict[str, Any]:
    """The fields' values for an earlier job."""
    weights = [use.weight for use in spec.vlm]
    return {
        "prompt": "\n".join(spec.prompts),
        "questions": [row(asked) for asked in spec.questions],
        "generator": spec.generator,
        "vlm": [use.name for use in spec.vlm],
        "weights": ", ".join(f"{weight:g}" for weight in weights) if len(weights) > 1 else "",
        "judge": spec.judge,
        **settings.of_spec(spec),
    }


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "questions": [question(row) for row in values["questions"] or []],
        "generator": values["generator"] or "",
        "vlm": _teachers(values["vlm"] or [], values["weights"] or ""),
    }
    prompts = [line.strip() for line in (values["prompt"] or "").splitlines() if line.strip()]
    data |= {"prompts": prompts} if len(prompts) > 1 else {"prompt": "".join(prompts)}
    settings.put(data, "judge", values["judge"] or None)
    for setting in settings.SETTINGS:
        settings.put(data, setting.path, setting.read(values.get(setting.path)))
    return data


def row(asked: Question) -> dict[str, Any]:
    """A row of the table of questions."""
    drawing = asked.visual_prompt
    return {
        "question": asked.question,
        "answer": asked.answer,
        "drawing": drawing and _data_url(drawing.image),
        "mode": drawing.mode if drawing else "solid",
        "weight": asked.weight,
    }


def question(row: Mapping[str, Any]) -> dict[str, Any]:
    """The question in a row of the table."""
    asked: dict[str, Any] = {"question": row.get("question"), "answer": row.get("answer")}
    if row.get("weight") is not None:
        asked["weight"] = row["weight"]
    if row.get("drawing"):
        asked["visual_prompt"] = {"image": row["drawing"], "mode": row.get("mode") or "solid"}
    return asked


def _teachers(names: Sequence[str], weights: str) -> str | list[dict[str, Any]]:
    if len(names) < 2:
        return names[0] if names else ""
    parts = weights.replace(",", " ").split() or ["1"] * len(names)
    # The weight stays as written; the schema checks it.
    padded = [*parts, *[""] * len(names)]
    return [{"name": name, "weight": weight} for name, weight in zip(names, padded, strict=False)]


def _data_url(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
