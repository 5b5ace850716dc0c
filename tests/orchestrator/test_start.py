"""Jobs that begin with a LoRA: of an earlier job, or a file that comes with the spec."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from dualprocess.schemas import JobStatus, LoraStart, ResolvedJobSpec
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.scripted import LORA, ScriptedGenerator

NAME = "transformer.transformer_blocks.0.attn.to_q"


def header(**tensors: Any) -> bytes:
    text = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(*shape: int, at: int = 0, dtype: str = "F32", size: int = 4) -> dict[str, Any]:
    end = at
    for side in shape:
        size *= side
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end + size]}


def shaped(shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}


A, B = f"{NAME}.lora_A.weight", f"{NAME}.lora_B.weight"
GOOD = header(**{B: tensor(3, 2, at=16), A: tensor(2, 2)}) + bytes(16 + 24)


def sent(file: bytes | str) -> dict[str, Any]:
    text = file if isinstance(file, str) else base64.b64encode(file).decode()
    return {"lora": {"start": {"file": text}}}


async def submitted(api: Api, changes: dict[str, Any]) -> httpx.Response:
    return await api.http.post("/v1/jobs", json=SPEC | changes)


async def test_a_file_reaches_the_generator_and_stays_with_the_job(
    api: Api, site: Site, generator: ScriptedGenerator, redis: Client
) -> None:
    site.start_worker()
    job = await api.ended((await api.submit(**sent(GOOD))).id)
    assert job.status == JobStatus.SUCCEEDED
    assert generator.starts == [GOOD]
    assert isinstance(job.spec, ResolvedJobSpec)
    assert job.spec.lora.start == LoraStart(job=job.id, artifact="start.safetensors")
    kept = await api.http.get(f"/v1/jobs/{job.id}/artifacts/start.safetensors")
    assert kept.content == GOOD
    stored = json.loads(await redis.hget(f"dualprocess:job:{job.id}", "spec"))
    assert stored["lora"]["start"]["file"] is None
    # The resolved spec, submitted again, is the same job.
    spec = (await api.http.get(f"/v1/jobs/{job.id}/artifacts/job.json")).json()
    answer = await api.http.post("/v1/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    await api.ended(answer.json()["id"])
    assert generator.starts == [GOOD] * 2


async def test_a_job_goes_on_where_another_ended(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    site.start_worker()
    first = await api.ended((await api.submit()).id)
    second = await api.submit(lora={"start": {"job": first.id}})
    assert (await api.ended(second.id)).status == JobStatus.SUCCEEDED
    assert generator.starts == [LORA]
    smaller = await submitted(api, {"lora": {"rank": 8, "start": {"job": first.id}}})
    assert smaller.json()["errors"] == [
        {
            "field": "lora.rank",
            "message": f"the LoRA of job {first.id} has rank 64; write 64 or more",
        }
    ]


async def test_a_repeated_submission_leaves_one_file(api: Api, tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "mine"}
    for _ in range(3):
        answer = await api.http.post("/v1/jobs", json=SPEC | sent(GOOD), headers=headers)
        assert answer.status_code == 202
    assert len(list((tmp_path / "artifacts").rglob("start.safetensors"))) == 1


FILE = "lora.start.file"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"lora": {"start": {}}}, "lora.start", "either a job or a file"),
    ({"lora": {"start": {"job": "0" * 26}}}, "lora.start.job", "there is no job"),
    (sent(GOOD) | {"lora": sent(GOOD)["lora"] | {"weight": 0}}, "lora.weight", "must not be 0"),
    (sent("not base64!"), FILE, "safetensors file in base64"),
    (sent(b"PK\x03\x04"), FILE, "a pickle, which can run code"),
    (sent(b"\x80\x04\x95"), FILE, "a pickle"),
    (sent(b""), FILE, "no complete safetensors header"),
    (sent(b"short"), FILE, "no complete safetensors header"),
    (sent(struct.pack("<Q", 2**63) + b"{}"), FILE, "no complete safetensors header"),
    (sent(struct.pack("<Q", 4) + b"{]{]"), FILE, "no readable safetensors header"),
    (sent(struct.pack("<Q", 2) + b"[]"), FILE, "no readable safetensors header"),
    (sent(header()), FILE, "has 0 tensors"),
    (sent(header(**{A: {"dtype": "F32"}})), FILE, "no readable safetensors header"),
    (sent(header(**{A: tensor(-1)})), FILE, "no readable safetensors header"),
    (sent(header(**{A: tensor(2, 2)}) + bytes(17)), FILE, "has 17 bytes of tensors"),
    (sent(header(**{A: tensor(2, 2)}) + bytes(15)), FILE, "has 15 bytes of tensors"),
    (sent(header(**{A: tensor(2), B: tensor(2)}) + bytes(8)), FILE, "does not have the bytes for"),
    (sent(header(**{A: tensor(2, size=2)}) + bytes(4)), FILE, "does not have the bytes for"),
    (sent(header(**{A: shaped([1] * 6)}) + bytes(4)), FILE, "at most 5 dimensions"),
    (sent(header(**{A: shaped([2**31, 0])})), FILE, "of at most 2,147,483,647 are read"),
    (sent(header(**{A: shaped([10**18 - 1] * 30_000)}) + bytes(4)), FILE, "in a shape that no"),
    (sent(header(**{A: tensor(8, dtype="I8", size=1)}) + bytes(8)), FILE, "in I8; supported are"),
    (sent(header(**{"unet.conv_in.weight": tensor(1)}) + bytes(4)), FILE, "not part of a LoRA"),
]


USED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "loras.1", "either a job or a file"),
    ({"job": "0" * 26, "file": ""}, "loras.1", "either a job or a file"),
    ({"file": "not base64!"}, "loras.1.file", "safetensors file in base64"),
    ({"file": b"PK\x03\x04"}, "loras.1.file", "a pickle, which can run code"),
    ({"file": header(**{A: tensor(2, 2)}) + bytes(17)}, "loras.1.file", "has 17 bytes of tensors"),
    (
        {"file": header(**{"unet.conv_in.weight": tensor(1)}) + bytes(4)},
        "loras.1.file",
        "not part of a LoRA",
    ),
]


@pytest.mark.parametrize(("use", "field", "sentence"), USED, ids=[one[2] for one in USED])
async def test_a_wrong_file_for_images_names_field_and_remedy(
    api: Api, use: dict[str, Any], field: str, sentence: str, tmp_path: Path
) -> None:
    if isinstance(file := use.get("file"), bytes):
        use = {"file": base64.b64encode(file).decode()}
    loras = [{"file": base64.b64encode(GOOD).decode()}, use]
    body = {"prompt": "a circle", "generator": "tiny-flux", "loras": loras, "wait": 0}
    answer = await api.http.post("/v1/images", json=body)
    assert answer.status_code == 422
    messages = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert sentence in messages[field]
    assert not list((tmp_path / "artifacts").rglob("*.safetensors"))


@pytest.mark.parametrize(("changes", "field", "sentence"), WRONG, ids=[one[2] for one in WRONG])
async def test_a_wrong_start_names_field_and_remedy(
    api: Api, changes: dict[str, Any], field: str, sentence: str, tmp_path: Path
) -> None:
    answer = await submitted(api, changes)
    assert answer.status_code == 422
    messages = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert sentence in messages[field]
    if field == FILE and "base64" not in sentence and "not part" not in sentence:
        assert "send a LoRA as a safetensors file" in messages[field]
    assert not list((tmp_path / "artifacts").rglob("*.safetensors"))
