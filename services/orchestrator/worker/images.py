"""One images job: fetches its LoRAs, renders, scores if there are questions, and keeps the best if
that was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from dualprocess.schemas import ImageScore, JobStatus, ResolvedImagesSpec, Score, Scores
from dualprocess.v1 import generator_pb2_grpc
from services.orchestrator.is_needed import base_score
from services.orchestrator.worker import wire
from services.orchestrator.worker.files import read_file
from services.orchestrator.worker.known import remember
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.scoring import image_scores, scoring
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets


async def render(
    spec: ResolvedImagesSpec,
    lease: Lease,
    generator: generator_pb2_grpc.GeneratorAsyncStub,
    targets: Targets,
    stores: Stores,
    *,
    owner: str,
) -> JobStatus:
    """Runs the job of ``owner``; raises as ``optimize`` does, and ``JobRefused`` for a LoRA that is
    gone."""
    loras = [await read_file(use.job, use.artifact, stores, lease) for use in spec.loras if use.job]
    pictures: dict[int, bytes] = {}
    async for answer in generator.Generate(wire.generate_requests(spec, loras)):
        if lease.cancel_wanted.is_set():
            return JobStatus.CANCELLED
        for sentence in answer.warnings:
            await lease.warn(sentence)
        pictures[answer.seed] = answer.image
        if spec.keep is None:
            await _store(answer.seed, answer.image, lease)
    if spec.vlm is not None:
        async with scoring(spec.vlm, targets, lease, spec) as scorer:
            mean, each = await scorer.score_each(list(pictures.values()))
        ranked = _ranked(dict(zip(pictures, each, strict=True)))
        kept = ranked[: spec.keep]
        if spec.keep is not None:
            for one in kept:
                await _store(one.seed, pictures[one.seed], lease)
        scores = Scores(lora=mean, images=kept) if spec.loras else Scores(base=mean, images=kept)
        fields = {"scores": scores.model_dump_json()}
        if not spec.loras:
            known = base_score(spec.vlm, mean, ranked)
            await remember(spec, known, owner, stores)
            fields["base"] = known.model_dump_json()
        await lease.record(fields=fields)
    return JobStatus.SUCCEEDED


async def _store(seed: int, picture: bytes, lease: Lease) -> None:
    await lease.store(f"image-{seed}.png", picture)


def _ranked(scores: Mapping[int, Score]) -> list[ImageScore]:
    """The best first; of equals the one that was drawn first."""
    return sorted(image_scores(scores), key=lambda one: -one.probability.geometric_mean)
