"""One images job: fetches its LoRAs, renders, and scores if there are questions."""

from __future__ import annotations

from dualprocess.schemas import JobStatus, ResolvedImagesSpec, Scores
from dualprocess.v1 import generator_pb2_grpc
from services.orchestrator.store.artifacts import LORA_FILE
from services.orchestrator.worker import wire
from services.orchestrator.worker.files import read_file
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.scoring import scoring
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets


async def render(
    spec: ResolvedImagesSpec,
    lease: Lease,
    generator: generator_pb2_grpc.GeneratorAsyncStub,
    targets: Targets,
    stores: Stores,
) -> JobStatus:
    """Runs the job; raises as ``optimize`` does, and ``JobRefused`` for a LoRA that is gone."""
    loras = [await read_file(use.job, LORA_FILE, stores, lease) for use in spec.loras]
    pictures = []
    async for answer in generator.Generate(wire.generate_requests(spec, loras)):
        if lease.cancel_wanted.is_set():
            return JobStatus.CANCELLED
        for sentence in answer.warnings:
            await lease.warn(sentence)
        pictures.append(answer.image)
        await lease.store(f"image-{answer.seed}.png", answer.image)
    if spec.vlm is not None:
        async with scoring(spec.vlm, targets, lease, spec) as scorer:
            score = await scorer.score(pictures)
        scores = Scores(lora=score) if spec.loras else Scores(base=score)
        await lease.record(fields={"scores": scores.model_dump_json()})
    return JobStatus.SUCCEEDED
