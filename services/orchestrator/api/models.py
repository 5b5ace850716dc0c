"""``/v1/models``: the generators and VLMs that can be named, with the number of their live
workers."""

from __future__ import annotations

from fastapi import APIRouter

from dualprocess.schemas import GeneratorInfo, ModelList, VlmInfo
from services.orchestrator.api.auth import READ
from services.orchestrator.api.state import StateDep

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", dependencies=[READ])
async def models(state: StateDep) -> ModelList:
    """The presets with their defaults. A job for a model without live workers waits for one."""
    workers = await state.workers.live()
    return ModelList(
        generators=[
            GeneratorInfo(
                name=preset.name,
                family=preset.family,
                model=preset.model,
                is_on_hub=preset.is_on_hub,
                license=preset.license,
                live_workers=sum(worker.generator == preset.name for worker in workers),
                image=preset.image,
                lora=preset.lora,
                optimizer=preset.optimizer,
                guard=preset.guard,
                eval=preset.eval,
            )
            for preset in state.presets.generators.values()
        ],
        vlms=[
            VlmInfo(
                name=preset.name,
                family=preset.family,
                model=preset.model,
                live_workers=sum(preset.name in worker.vlms for worker in workers),
                writes=preset.writes,
            )
            for preset in state.presets.vlms.values()
        ],
        writer=state.endpoint.model if state.endpoint else None,
    )
