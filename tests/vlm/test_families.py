"""What every family of VLMs must do, against plain transformers on the same tiny model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from dualprocess.v1 import vlm_pb2
from services.common.errors import InvalidInput, NonFinite
from services.common.presets import load_presets
from services.vlm import registry
from services.vlm.conversation import AskedQuestion
from services.vlm.families.base import VlmFamily
from services.vlm.guide import answer_loss, guide
from services.vlm.packing import Packed
from services.vlm.preprocess import clamp
from services.vlm.score import answer, score
from services.vlm.visual_prompt import VisualPrompt
from tests.vlm.conftest import picture, png
from tests.vlm.rows import ROWS, Row

SMILING = AskedQuestion("Is the man smiling?", "Yes")
SOFA = AskedQuestion("What color is the sofa?", "a red sofa")
POSTFIX = "Answer with Yes or No."


@pytest.fixture(scope="module", params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    return row


@pytest.fixture(scope="module")
def vlm(row: Row) -> VlmFamily:
    torch.set_num_threads(1)
    return row.load()


def drawing(mode: vlm_pb2.VisualPromptMode.ValueType, side: int = 64) -> VisualPrompt:
    """A red bar over rows 10 to 19 of 64, white elsewhere."""
    pixels = np.full((side, side, 3), 255, np.uint8)
    pixels[10 * side // 64 : 20 * side // 64] = (255, 0, 0)
    return VisualPrompt.decode(png(pixels), mode, "visual_prompt")


def asked_with(prompt: VisualPrompt) -> AskedQuestion:
    return AskedQuestion(SMILING.question, SMILING.answer, prompt)


def plain_loss(
    vlm: VlmFamily, row: Row, image: torch.Tensor, asked: AskedQuestion, leave_out: str = ""
) -> float:
    """The model's own loss of a plain call with labels, on its own processor's tensors."""
    talk = vlm.converse(asked, POSTFIX, vlm.image_placeholder(vlm.pixel_values((image + 1) / 2)))
    ids = torch.tensor([talk.input_ids])
    labels = torch.full_like(ids, -100)
    labels[0, list(talk.answer_positions)] = ids[0, list(talk.answer_positions)]
    inputs = {**row.inputs(vlm, picture(image), ids)}
    inputs.pop(leave_out, None)
    with torch.no_grad():
        loss: torch.Tensor = vlm.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **inputs
        ).loss
    return loss.item()


@pytest.mark.parametrize("name", ["photo", "smooth"])
@pytest.mark.parametrize("asked", [SMILING, SOFA], ids=["one token", "many tokens"])
def test_loss_equals_the_models_own(
    vlm: VlmFamily, row: Row, images: dict[str, torch.Tensor], name: str, asked: AskedQuestion
) -> None:
    """The shortcut (tower once, logits at answers only) against a plain call."""
    (scored,) = score(vlm, picture(images[name]), [asked], POSTFIX)
    assert scored.loss == pytest.approx(plain_loss(vlm, row, images[name], asked), abs=1e-4)


def test_what_the_text_model_needs_to_know_is_passed(
    vlm: VlmFamily, row: Row, images: dict[str, torch.Tensor]
) -> None:
    """Each input matters: without it the loss is another one, so the test above would fail."""
    whole = plain_loss(vlm, row, images["photo"], SOFA)
    for name in row.needed:
        try:
            without = plain_loss(vlm, row, images["photo"], SOFA, leave_out=name)
        except ValueError:
            continue  # transformers itself refuses
        assert abs(without - whole) > 1e-3


# (height, width)
SIZES = [(256, 256), (384, 576), (576, 1024), (1024, 300), (640, 257)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixel_values_are_the_processors(
    vlm: VlmFamily, images: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    height, width = size
    seen = picture(images["photo"]).resize((width, height), Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None] / 255
    ours, theirs = vlm.pixel_values(image), vlm.processed(seen)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() <= 0.005
    assert (ours - theirs).abs().max() <= 0.25


def test_a_batch_is_its_images(vlm: VlmFamily, images: dict[str, torch.Tensor]) -> None:
    pixel_values = vlm.pixel_values((torch.cat([images["photo"], images["low"]]) + 1) / 2)
    both = vlm.image_features(pixel_values)
    alone = [vlm.image_features(pixel_values[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_many_questions_are_the_mean_of_single_ones(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    # Far from black and white: where a resize overshoots, the clamp looks at the whole gradient.
    batch = torch.cat([images["low"], images["low"].flip(-1)])
    prompt = asked_with(drawing(vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT))
    questions = [SMILING, SOFA, prompt]
    together = guide(vlm, batch, questions, POSTFIX)
    singles = [
        [guide(vlm, image, [asked], POSTFIX) for asked in questions]
        for image in torch.split(batch, 1)
    ]
    assert together.loss == pytest.approx(np.mean([[one.loss for one in row] for row in singles]))
    for row, wanted in zip(together.answers, singles, strict=True):
        assert [a.loss for a in row] == pytest.approx([one.loss for one in wanted], abs=1e-5)
    gradient = torch.cat([sum(one.gradient for one in row) for row in singles]) / 6  # type: ignore[misc]
    torch.testing.assert_close(together.gradient, gradient, rtol=1e-3, atol=1e-6)


def test_passes_of_the_text_model_add_up(
    vlm: VlmFamily, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.cat([images["photo"], images["low"]])
    whole = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    one_by_one = vlm.preset.model_copy(update={"conversations_at_once": 1})
    monkeypatch.setattr(vlm, "preset", one_by_one)
    parts = guide(vlm, batch, [SMILING, SOFA], POSTFIX)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    torch.testing.assert_close(parts.gradient, whole.gradient, rtol=1e-3, atol=1e-6)


def test_gradient_is_the_slope(row: Row, images: dict[str, torch.Tensor]) -> None:
    """Central differences in float64, along the gradient."""
    vlm = row.load()
    image = images["low"]
    direction = guide(vlm, image, [SMILING], POSTFIX).gradient.double()
    direction /= direction.norm()
    vlm.model.double()
    step = 1e-3

    def loss(offset: float) -> float:
        # answer_loss computes in float32 up to the pixels: exact enough at this step.
        return answer_loss(vlm, image.double() + offset * direction, [SMILING], POSTFIX).item()

    slope = (loss(step) - loss(-step)) / (2 * step)
    expected = guide(vlm, image.double(), [SMILING], POSTFIX).gradient.double() * direction
    assert slope == pytest.approx(expected.sum().item(), rel=1e-2)


def test_saturated_pixels_come_back(vlm: VlmFamily) -> None:
    values = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    clamped = clamp(values, -1.0, 1.0)
    assert clamped.tolist() == [-1.0, -0.5, 0.5, 1.0]
    # Descent with these gradients moves -3 up and 3 down: back into the range.
    (inward,) = torch.autograd.grad(clamped, values, torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    assert inward.tolist() == [-1.0, 1.0, 1.0, 1.0]
    (outward,) = torch.autograd.grad(
        clamp(values, -1.0, 1.0), values, torch.tensor([1.0, 1.0, 1.0, -1.0])
    )
    assert outward.tolist() == [0.0, 1.0, 1.0, 0.0]

    white = guide(vlm, torch.full((1, 3, 64, 64), 1.5), [SMILING], POSTFIX)
    assert (white.gradient > 0).any(), "some pixels would darken"
    assert (white.gradient >= 0).all(), "none is pushed further out"


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_a_flat_image_gives_numbers(vlm: VlmFamily, level: float) -> None:
    guidance = guide(vlm, torch.full((1, 3, 64, 64), level), [SMILING], POSTFIX)
    assert np.isfinite(guidance.loss)
    assert torch.isfinite(guidance.gradient).all()


def test_the_vlm_is_not_blind_to_brightness(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    photo = guide(vlm, images["photo"], [SMILING], POSTFIX).loss
    assert guide(vlm, images["photo"] * 0.3 - 0.5, [SMILING], POSTFIX).loss != photo


def test_a_solid_drawing_hides_what_is_under_it(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    prompt = drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID)
    overlaid = prompt.over(images["photo"])
    assert torch.equal(overlaid[..., 20:, :], images["photo"][..., 20:, :])
    assert overlaid[0, :, 12, 5].tolist() == [1.0, -1.0, -1.0]
    guidance = guide(vlm, images["photo"], [asked_with(prompt)], POSTFIX)
    assert (guidance.gradient[..., 10:20, :] == 0).all()
    assert (guidance.gradient[..., 20:, :] != 0).any()


def test_a_transparent_drawing_is_half_of_everything(images: dict[str, torch.Tensor]) -> None:
    overlaid = drawing(vlm_pb2.VISUAL_PROMPT_MODE_TRANSPARENT).over(images["photo"])
    white = (images["photo"] + 1) / 2
    torch.testing.assert_close(overlaid[..., 20:, :], white[..., 20:, :])


def test_a_drawing_of_another_size_is_resized(images: dict[str, torch.Tensor]) -> None:
    small = drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID).over(images["wide"])
    assert small.shape == images["wide"].shape
    assert small[0, :, 10, 5].tolist() == [1.0, -1.0, -1.0]


def test_dtype_of_the_gradient_is_the_images(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    guidance = guide(vlm, images["photo"].bfloat16(), [SMILING], POSTFIX)
    assert guidance.gradient.dtype == torch.bfloat16


def test_a_loss_or_a_gradient_that_is_not_finite_is_an_error(
    vlm: VlmFamily, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for itself: of an answer that can't be, the loss is not, and its gradient is."""
    logits, image_features = vlm.logits, vlm.image_features

    def impossible(hidden: torch.Tensor) -> torch.Tensor:
        return logits(hidden).index_fill(-1, torch.tensor(answer_token), -torch.inf)

    def steep(pixel_values: torch.Tensor) -> torch.Tensor:
        features = image_features(pixel_values)
        features.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]
        return features

    talk = vlm.converse(
        SMILING, POSTFIX, vlm.image_placeholder(vlm.pixel_values(images["low"] / 2 + 0.5))
    )
    answer_token = talk.input_ids[talk.answer_positions[0]]
    for name, changed in (("logits", impossible), ("image_features", steep)):
        with monkeypatch.context() as context:
            context.setattr(vlm, name, changed)
            with pytest.raises(NonFinite, match="is not finite"):
                guide(vlm, images["low"], [SMILING], POSTFIX)


def test_small_gradients_survive_float16() -> None:
    """Of several questions about a flat picture none would be left without a scaled loss."""
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(8, 3, 64, 64)
    asked = [AskedQuestion(f"Is it {colour}?", "No") for colour in ("blue", "green", "yellow")]
    preset = load_presets().vlm("tiny-idefics2")
    plain, half = (
        guide(
            registry.load(preset.model_copy(update={"dtype": dtype}), torch.device("cpu")),
            red,
            asked,
            POSTFIX,
        ).gradient
        for dtype in ("float32", "float16")
    )
    assert plain.abs().max() < 1e-5
    assert (half - plain).norm() <= 0.1 * plain.norm()


def test_a_users_text_is_never_a_control_token(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    token = vlm.tokenizer.convert_ids_to_tokens(vlm.model.config.image_token_id)
    for asked, postfix, field in (
        (AskedQuestion(f"What is {token}?", "Yes"), "", "questions.0.question"),
        (AskedQuestion("Well?", f"Yes{token}"), "", "questions.0.answer"),
        (SMILING, token, "question_postfix"),
    ):
        with pytest.raises(InvalidInput, match=f"{field}: .*is a control token"):
            guide(vlm, images["photo"], [asked], postfix)


def test_an_answer_that_is_no_token_is_refused(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(InvalidInput, match=r"questions\.0\.answer: '' is no token"):
        guide(vlm, images["photo"], [AskedQuestion("Well?", "")], POSTFIX)


def test_score_lays_drawings_over_the_saved_picture(
    vlm: VlmFamily, images: dict[str, torch.Tensor]
) -> None:
    prompt = asked_with(drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID))
    seen: Sequence[AskedQuestion] = [SMILING, prompt]
    plain, drawn = score(vlm, picture(images["photo"]), seen, POSTFIX)
    guidance = guide(vlm, images["photo"], seen, POSTFIX)
    assert plain.loss == pytest.approx(guidance.answers[0][0].loss, abs=1e-2)
    assert drawn.loss == pytest.approx(guidance.answers[0][1].loss, abs=1e-2)
    assert drawn.loss != plain.loss


def test_score_takes_conversations_in_turn_and_processes_each_drawing_once(
    vlm: VlmFamily, images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = asked_with(drawing(vlm_pb2.VISUAL_PROMPT_MODE_SOLID))
    questions = [SMILING, prompt, SOFA, SMILING, prompt]
    whole = score(vlm, picture(images["photo"]), questions, POSTFIX)
    processed, at_once = [], []
    vlm_processed, vlm_hidden_states = vlm.processed, vlm.hidden_states

    def counted(picture: Image.Image) -> torch.Tensor:
        processed.append(picture)
        return vlm_processed(picture)

    def measured(packed: Packed, features: torch.Tensor) -> torch.Tensor:
        at_once.append(sum(len(tree.conversations) for tree in packed.trees))
        return vlm_hidden_states(packed, features)

    monkeypatch.setattr(vlm, "preset", vlm.preset.model_copy(update={"conversations_at_once": 2}))
    monkeypatch.setattr(vlm, "processed", counted)
    monkeypatch.setattr(vlm, "hidden_states", measured)
    parts = score(vlm, picture(images["photo"]), questions, POSTFIX)
    assert (len(processed), at_once) == (2, [2, 1, 2])
    assert [one.predicted for one in parts] == [one.predicted for one in whole]
    assert [one.loss for one in parts] == pytest.approx([one.loss for one in whole], abs=1e-5)


def test_answer_is_greedy_and_repeatable(vlm: VlmFamily, images: dict[str, torch.Tensor]) -> None:
    said = [
        answer(vlm, picture(images["photo"]), "Well?", "", max_new_tokens=5, field="questions.0")
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert "<" not in said[0]
