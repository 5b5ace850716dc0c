"""Files that show how a job went. The same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from dualprocess.schemas import AnyStepEvent, ResolvedJobSpec, StepEvent

_MARGIN = 4
_LABEL_HEIGHT = 14
_LABEL_WIDTH = 34
#: Small images are enlarged to about so many pixels a side, each pixel a whole square.
_SHOWN_SIDE = 128


def metrics_jsonl(steps: Sequence[AnyStepEvent]) -> bytes:
    """One line for each step, with everything but how long it took; for a skipped one, the
    reason."""
    lines = [step.model_dump_json(exclude={"type", "attempt", "timings"}) for step in steps]
    return "".join(f"{line}\n" for line in lines).encode()


def job_json(spec: ResolvedJobSpec) -> bytes:
    """The resolved spec: submitted again, it gives the same job."""
    return (spec.model_dump_json(indent=2) + "\n").encode()


def loss_png(steps: Sequence[StepEvent]) -> bytes:
    """Loss and probability of the right answers over the steps."""
    # Imported here, since a job's end is soon enough for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes = figure.add_subplot()
    numbers = [step.step for step in steps]
    loss_axes.plot(numbers, [step.loss for step in steps], color="tab:blue", label="loss")
    loss_axes.set_xlabel("step")
    loss_axes.set_ylabel("loss (nats)", color="tab:blue")
    loss_axes.set_ylim(bottom=0)
    right_axes = loss_axes.twinx()
    right_axes.plot(
        numbers, [step.probability.geometric_mean for step in steps], color="tab:orange"
    )
    right_axes.set_ylabel("probability of the right answers", color="tab:orange")
    right_axes.set_ylim(0, 1.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def samples_png(seeds: Sequence[int], base: Sequence[bytes], lora: Sequence[bytes]) -> bytes:
    """One column for each seed: the base model's picture above the LoRA's. Pictures are encoded."""
    rows = [[_enlarged(picture) for picture in row] for row in (base, lora)]
    width, height = rows[0][0].size
    sheet = Image.new(
        "RGB",
        (
            _LABEL_WIDTH + len(seeds) * (width + _MARGIN),
            _LABEL_HEIGHT + 2 * (height + _MARGIN),
        ),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (label, pictures) in enumerate(zip(("base", "LoRA"), rows, strict=True)):
        top = _LABEL_HEIGHT + row * (height + _MARGIN)
        draw.text((2, top + height // 2 - 6), label, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_LABEL_WIDTH + column * (width + _MARGIN), top))
    for column, seed in enumerate(seeds):
        draw.text((_LABEL_WIDTH + column * (width + _MARGIN), 1), f"seed {seed}", fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _enlarged(encoded: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    factor = max(1, _SHOWN_SIDE // max(picture.size))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
