"""Pictures as people have them: in many formats, turned by their camera, in any base64."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dualprocess.schemas import ResolvedJobSpec
from tests.orchestrator.conftest import Api
from tests.orchestrator.scripted import png

#: Each corner has its colour, and the sides differ.
SEEN = Image.new("RGB", (48, 32))
for _corner, _colour in (
    ((0, 0), "red"),
    ((32, 0), "lime"),
    ((0, 16), "blue"),
    ((32, 16), "white"),
):
    SEEN.paste(Image.new("RGB", (16, 16), _colour), _corner)

#: How a picture is stored that is seen as ``SEEN``, by EXIF's number for it.
STORED = {
    1: SEEN,
    2: SEEN.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: SEEN.transpose(Image.Transpose.ROTATE_180),
    4: SEEN.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: SEEN.transpose(Image.Transpose.TRANSPOSE),
    6: SEEN.transpose(Image.Transpose.ROTATE_90),
    7: SEEN.transpose(Image.Transpose.TRANSVERSE),
    8: SEEN.transpose(Image.Transpose.ROTATE_270),
}
#: What each format loses is small.
OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "MPO": {"quality": 100, "subsampling": 0},
}


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **OPTIONS.get(kind, {}), **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def drawn(image: bytes | str) -> list[dict[str, Any]]:
    text = image if isinstance(image, str) else base64.b64encode(image).decode()
    return [{"question": "?", "answer": "Yes", "visual_prompt": {"image": text}}]


async def kept(api: Api, image: bytes | str) -> bytes:
    """The drawing as the VLM gets it."""
    job = await api.submit(questions=drawn(image))
    assert isinstance(job.spec, ResolvedJobSpec)
    (question,) = job.spec.questions
    assert question.visual_prompt is not None
    return question.visual_prompt.image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
async def test_a_picture_is_taken_as_it_is_seen(api: Api, kind: str) -> None:
    for orientation, stored in STORED.items():
        data = encoded(stored, kind, exif=exif(orientation))
        found = pixels(await kept(api, data))
        assert found.shape == (32, 48, 3)
        assert np.abs(found - np.asarray(SEEN)).max() < 24, orientation


SPOILT = [exif(6)[:n] for n in (8, 12, 16, 20)] + [
    exif(9),
    exif(0),
    b"Exif\0\0nothing",
    b"Exif\0\0",
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("tags", SPOILT)
async def test_spoilt_metadata_spoils_no_picture(api: Api, tags: bytes) -> None:
    data = encoded(SEEN, "JPEG", exif=tags)
    assert np.abs(pixels(await kept(api, data)) - np.asarray(SEEN)).max() < 24


def with_texts() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "x" * (3 << 20), zip=True)
    texts.add_itxt("workflow", "ü" * (2 << 20), zip=True)
    texts.add_text("prompt", "y" * (1 << 16))
    return encoded(SEEN, "PNG", pnginfo=texts)


TAKEN = {
    "a palette": encoded(SEEN.quantize(8), "PNG"),
    "GIF": encoded(SEEN, "GIF"),
    "a phone's JPEG with its preview": encoded(SEEN, "MPO", save_all=True, append_images=[SEEN]),
    "a WebP with alpha": encoded(SEEN.convert("RGBA"), "WEBP"),
    "long texts": with_texts(),
    "a long profile": encoded(SEEN, "PNG", icc_profile=b"x" * (2 << 20)),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
async def test_what_is_a_picture_is_taken(api: Api, data: bytes) -> None:
    assert np.abs(pixels(await kept(api, data)) - np.asarray(SEEN)).max() < 24


MOVING = {"save_all": True, "append_images": [STORED[2]], "duration": 100}
HEIC = b"\0\0\0\x18ftyp{}\0\0\0\0mif1heic" + bytes(99)
FORMATS = "not a whole PNG or JPEG picture, nor one of GIF, WebP, AVIF"
REFUSED = {
    **{f"moving {kind}": (encoded(SEEN, kind, **MOVING), "is an animation; send one picture of it")
       for kind in ("GIF", "WEBP", "PNG", "AVIF")},
    **{brand: (HEIC.replace(b"{}", brand.encode()), "is a HEIC picture, .* save it as PNG or JPEG")
       for brand in ("heic", "heix", "mif1")},
    **{kind: (encoded(SEEN, kind), FORMATS) for kind in ("BMP", "TIFF", "PPM", "PDF", "ICO")},
    **{f"half a {kind}": (encoded(SEEN, kind)[:-40], FORMATS)
       for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF")},
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", FORMATS),
    "nothing": (b"", FORMATS),
    "a large PNG": (png("white", (4097, 4096)), "too many"),
    "a large GIF": (encoded(Image.new("L", (9000, 10)), "GIF"), "8192 a side"),
    "a large WebP": (encoded(Image.new("L", (9000, 10)), "WEBP"), "8192 a side"),
    "a bomb": (encoded(SEEN, "PNG")[:16] + (60_000).to_bytes(4, "big") * 2 + bytes(99), FORMATS),
}  # fmt: skip


@pytest.mark.parametrize(("data", "sentence"), REFUSED.values(), ids=REFUSED)
async def test_what_is_none_is_a_sentence_with_the_formats(
    api: Api, data: bytes, sentence: str
) -> None:
    spec = {
        "prompt": "a",
        "generator": "tiny-flux",
        "vlm": "tiny-idefics2",
        "questions": drawn(data),
    }
    asked = {"image": base64.b64encode(data).decode(), "questions": ["?"], "vlm": "tiny-idefics2"}
    for path, body, field in (
        ("/v1/jobs", spec, "questions.0.visual_prompt.image"),
        ("/v1/answers", asked, "image"),
    ):
        answer = await api.http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert "object at 0x" not in error["message"]
        assert re.search(sentence, error["message"]), error["message"]


#: Its base64 has both letters in which the alphabets differ, and padding.
PICTURE = next(
    data
    for red in range(256)
    if "+" in (text := base64.b64encode(data := png(f"#{red:02x}8040", (3, 3))).decode())
    and "/" in text
    and text.endswith("=")
)
TEXT = base64.b64encode(PICTURE).decode()
URL_SAFE = base64.urlsafe_b64encode(PICTURE).decode()
SPELLINGS = {
    "lines": "\n".join(textwrap.wrap(TEXT, 76)),
    "a mail's lines": base64.encodebytes(PICTURE).decode().replace("\n", "\r\n"),
    "a trailing line break": f"{TEXT}\n",
    "spaces around": f"  {TEXT}\t",
    "spaces within": " ".join(textwrap.wrap(TEXT, 5)),
    "URL-safe": URL_SAFE,
    "without padding": TEXT.rstrip("="),
    "half its padding": TEXT.rstrip("=") + ("=" if TEXT.endswith("==") else ""),
    "URL-safe without padding": URL_SAFE.rstrip("="),
    "capitals": f"DATA:image/png;base64,{TEXT}",
    "some capitals": f"Data:Image/PNG;Base64,{TEXT}",
    "no type": f"data:;base64,{TEXT}",
    "another type": f"data:application/octet-stream;base64,{TEXT}",
    "a parameter": f"data:image/png;name=a.png;base64,{TEXT}",
    "percent signs": f"data:image/png;base64,{quote(TEXT, safe='')}",
    "a URL in lines": "\n data:image/png;base64,\n" + "\n".join(textwrap.wrap(TEXT, 64)),
}
NO_BASE64 = [
    "no base64!",
    "data:image/png;base64,äöü",
    "data:image/png",
    "aGVsb",
    "aG=Vsb",
    "%2B",
    "a" * 5,
]


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
async def test_base64_is_read_as_it_is_written(api: Api, text: str) -> None:
    assert (pixels(await kept(api, text)) == pixels(PICTURE)).all()


@pytest.mark.parametrize("text", NO_BASE64)
async def test_what_is_no_base64_is_refused(api: Api, text: str) -> None:
    spec = {
        "prompt": "a",
        "generator": "tiny-flux",
        "vlm": "tiny-idefics2",
        "questions": drawn(text),
    }
    answer = await api.http.post("/v1/jobs", json=spec)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert "must be a picture file in base64, or a data: URL of one" in error["message"]
