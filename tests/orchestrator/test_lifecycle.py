"""A job from its submission to its end, through REST, Redis, worker and gRPC."""

from __future__ import annotations

import hashlib
import io
import json

from PIL import Image
from safetensors.numpy import load

from dualprocess.schemas import JobStatus
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.scripted import LORA, ScriptedGenerator, ScriptedVlm


async def test_a_job_ends_with_its_lora_scores_and_pictures(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit(metadata={"mine": "1"})).id)
    assert (job.status, job.step, job.attempt, job.error) == (JobStatus.SUCCEEDED, 3, 1, None)
    assert job.metadata == {"mine": "1"}
    assert job.scores.base is not None
    assert job.scores.lora is not None
    assert (job.scores.base.correct, job.scores.lora.correct) == (0.0, 1.0)
    told = (await api.events(job.id)).text
    assert told.count("event: status") == 3, "queued, running, succeeded: it waited for nothing"
    files = {artifact.name: artifact for artifact in job.artifacts}
    assert {"samples.png", "loss.png", "job.json", "preview-000003.png"} < files.keys()
    got = await api.http.get(f"/v1/jobs/{job.id}/artifacts/pytorch_lora_weights.safetensors")
    assert got.content == LORA
    assert got.headers["etag"] == f'"{hashlib.sha256(LORA).hexdigest()}"'
    metrics = await api.http.get(f"/v1/jobs/{job.id}/artifacts/metrics.jsonl")
    assert [json.loads(line)["step"] for line in metrics.text.splitlines()] == [1, 2, 3]
    sheet = await api.http.get(f"/v1/jobs/{job.id}/artifacts/samples.png")
    assert Image.open(io.BytesIO(sheet.content)).width > 2 * 64


async def test_artifacts_answer_ranges_and_head(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    url = f"/v1/jobs/{job.id}/artifacts/pytorch_lora_weights.safetensors"
    part = await api.http.get(url, headers={"Range": "bytes=2-3"})
    assert (part.status_code, part.content) == (206, LORA[2:4])
    assert part.headers["content-range"] == f"bytes 2-3/{len(LORA)}"
    assert (await api.http.get(url, headers={"Range": "bytes=-2"})).content == LORA[-2:]
    assert (await api.http.get(url, headers={"Range": "bytes=9999-"})).status_code == 416
    head = await api.http.head(url)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(LORA)))
    same = await api.http.get(url, headers={"If-None-Match": head.headers["etag"]})
    assert same.status_code == 304
    assert (await api.http.get(f"/v1/jobs/{job.id}/artifacts/none")).status_code == 404


async def test_a_job_has_its_lora_as_a_peft_folder_too(api: Api, site: Site) -> None:
    queued = await api.submit()
    url = f"/v1/jobs/{queued.id}/artifacts"
    weights, config = f"{url}/adapter_model.safetensors", f"{url}/adapter_config.json"
    assert (await api.http.get(weights)).status_code == 404
    site.start_worker()
    job = await api.ended(queued.id)
    whole = await api.http.get(weights)
    own = {
        name.replace("transformer.", "base_model.model.", 1): tensor
        for name, tensor in load(LORA).items()
    }
    sent = load(whole.content)
    assert sent.keys() == own.keys()
    assert all((sent[name] == tensor).all() for name, tensor in own.items())
    head = await api.http.head(weights)
    assert head.headers["content-length"] == str(len(whole.content))
    for begin, end in ((0, 7), (100, len(whole.content) - 9), (len(whole.content) - 9, None)):
        last = "" if end is None else end - 1
        part = await api.http.get(weights, headers={"Range": f"bytes={begin}-{last}"})
        assert (part.status_code, part.content) == (206, whole.content[begin:end])
    known = {"If-None-Match": head.headers["etag"]}
    assert (await api.http.get(weights, headers=known)).status_code == 304
    described = (await api.http.get(config)).json()
    assert described["target_modules"] == ["blocks.0.attn.to_k", "proj_out"]
    # The scale is in the matrices: alpha / rank is 1 for every module.
    assert (described["r"], described["lora_alpha"]) == (2, 2)
    assert described["rank_pattern"] == described["alpha_pattern"] == {"proj_out": 1}
    assert described["base_model_name_or_path"] is None
    assert (await api.http.head(config)).headers["etag"] != head.headers["etag"]
    # No second copy is stored.
    assert not {"adapter_model.safetensors"} & {artifact.name for artifact in job.artifacts}


async def test_a_queued_job_has_a_position_and_cancels_at_once(api: Api) -> None:
    first, second = await api.submit(), await api.submit()
    assert (first.position, second.position) == (0, 1)
    assert "none is alive" in (first.waiting_for or "")
    await api.http.post(f"/v1/jobs/{first.id}/cancel")
    assert (await api.job(first.id)).status == JobStatus.CANCELLED
    assert (await api.job(second.id)).position == 0


async def test_a_cancelled_run_exports_what_it_learned(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(lease_seconds=1.0)
    job = await api.submit()
    await api.until(job.id, lambda job: job.step == 1)
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await api.ended(job.id)
    assert job.status == JobStatus.CANCELLED
    assert "pytorch_lora_weights.safetensors" in [artifact.name for artifact in job.artifacts]


async def test_a_job_waits_for_its_vlm_and_says_so(api: Api, site: Site, vlm: ScriptedVlm) -> None:
    vlm.away = True
    site.start_worker()
    job = await api.until((await api.submit()).id, lambda job: job.waiting_for and job.step)
    assert "nobody is at home" in (job.waiting_for or "")
    vlm.away = False
    job = await api.ended(job.id)
    assert (job.status, job.waiting_for, job.attempt) == (JobStatus.SUCCEEDED, None, 1)


async def test_a_job_that_waits_for_its_vlm_can_be_cancelled(
    api: Api, site: Site, vlm: ScriptedVlm
) -> None:
    vlm.away = True
    site.start_worker(lease_seconds=1.0)
    job = await api.until((await api.submit()).id, lambda job: job.waiting_for and job.step)
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    assert (await api.ended(job.id)).status == JobStatus.CANCELLED


async def test_a_job_survives_its_generators_death(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.breaks = 1
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert len(job.causes) == 1


async def test_a_poison_job_fails_with_the_cause_of_each_attempt(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.breaks = 3
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.status, job.attempt, len(job.causes)) == (JobStatus.FAILED, 3, 3)
    assert (job.error or "").count("out of memory, killed") == 3
    assert (await api.ended((await api.submit()).id)).status == JobStatus.SUCCEEDED


async def test_a_poison_job_takes_no_other_with_it(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    """Jobs that ran beside it lose no attempt, and from then on each runs alone."""
    generator.go.clear()
    poison, beside = await api.submit(prompt="poison"), await api.submit()
    site.start_worker(slots=2)
    for job in (poison, beside):
        await api.until(job.id, lambda job: job.step == 1)
    generator.fatal, generator.most_active = "poison", 0
    generator.die()
    generator.go.set()
    later = await api.submit()
    ended = await api.ended(poison.id)
    assert (ended.status, ended.attempt) == (JobStatus.FAILED, 3)
    assert len(ended.causes) == 4
    assert "runs alone from now on" in ended.causes[0]
    for job in (beside, later):
        assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED
        assert (await api.job(job.id)).attempt == 1
    assert generator.most_active == 1


async def test_a_refused_job_fails_at_once(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.refusal = "no such layer"
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 1)
    assert "no such layer" in (job.error or "")


async def test_two_slots_run_two_jobs_at_once(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    jobs = [await api.submit() for _ in range(3)]
    site.start_worker(slots=2)
    for job in jobs[:2]:
        await api.until(job.id, lambda job: job.step == 1)
    assert (await api.job(jobs[2].id)).status == JobStatus.QUEUED
    generator.go.set()
    for job in jobs:
        assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED
    assert generator.most_active == 2


async def test_a_stopped_worker_hands_its_job_back_uncounted(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    worker = site.start_worker()
    job = await api.submit()
    await api.until(job.id, lambda job: job.step == 1)
    await site.stop(worker)
    job = await api.job(job.id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    assert "the worker stopped" in job.causes[0]
    generator.go.set()
    site.start_worker()
    assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED


async def test_images_go_first_and_bring_their_loras_and_scores(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    first = site.start_worker()
    trained = await api.ended((await api.submit()).id)
    await site.stop(first)
    generator.served.clear()
    waiting = await api.submit(prompt="slow")
    body = {
        "prompt": "quick",
        "generator": "tiny-flux",
        "vlm": "tiny-idefics2",
        "seeds": [7],
        "loras": [{"job": trained.id}],
        "questions": [{"question": "Is it red?", "answer": "Yes"}],
    }
    late = await api.http.post("/v1/images", json=body | {"wait": 0})
    assert late.status_code == 202
    assert late.headers["location"] == f"/v1/jobs/{late.json()['id']}"
    site.start_worker(slots=1)
    await api.ended(waiting.id)
    assert generator.served == ["quick", "slow"]
    assert generator.loras == [LORA]
    done = await api.http.post("/v1/images", json=body)
    assert (done.status_code, done.json()["status"]) == (200, "succeeded")
    assert [artifact["name"] for artifact in done.json()["artifacts"]] == ["image-7.png"]
    assert done.json()["scores"]["lora"]["correct"] == 1.0


async def test_models_say_which_have_live_workers(api: Api, site: Site) -> None:
    async def live() -> dict[str, int]:
        models = (await api.http.get("/v1/models")).json()
        return {m["name"]: m["live_workers"] for m in models["generators"] + models["vlms"]}

    assert set((await live()).values()) == {0}
    site.start_worker()
    await api.ended((await api.submit()).id)
    found = await live()
    assert (found["tiny-flux"], found["tiny-idefics2"], found["flux-dev"]) == (1, 1, 0)
