"""The LoRAs that images are drawn with: of ended jobs, or files that come with the request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dualprocess.schemas import FieldError, LoraUse
from services.common.errors import InvalidInput
from services.common.lora_layouts.families import examine
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.lora_file import read_lora_header
from services.orchestrator.api.loras import lora_fault
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import USED_FILE


async def check_used(
    loras: Sequence[LoraUse], generator: str, state: State, caller: Caller
) -> list[str]:
    """The warnings about the files. Raises ``InvalidSpec`` for all that can't be used."""
    family = state.presets.generator(generator).family
    faults: list[FieldError] = []
    told: list[str] = []
    for index, use in enumerate(loras):
        place = f"loras.{index}"
        if use.job is not None:
            artifact = use.artifact
            if fault := await lora_fault(use.job, generator, state, caller, artifact=artifact):
                faults.append(FieldError(field=f"{place}.job", message=fault))
            continue
        assert use.file is not None
        try:
            # Outside of the event loop, since a header of 16 MiB takes seconds.
            notes = await asyncio.to_thread(_examined, use.file, family)
        except InvalidInput as error:
            faults.append(FieldError(field=f"{place}.file", message=str(error)))
        else:
            told += [f"{place}: {note}" for note in notes]
    if faults:
        raise InvalidSpec(*faults)
    return told


def kept_used(loras: Sequence[LoraUse], job_id: str) -> tuple[list[LoraUse], dict[str, bytes]]:
    """The LoRAs as they are stored, and the job's files: a file that came with the request becomes
    an artifact."""
    kept, files = [], {}
    for index, use in enumerate(loras):
        if use.file is not None:
            name = USED_FILE.format(index)
            files[name] = use.file
            use = LoraUse(job=job_id, artifact=name, weight=use.weight)
        kept.append(use)
    return kept, files


def _examined(file: bytes, family: str) -> list[str]:
    header = read_lora_header(file)
    # No target modules: they are the file's own.
    return examine(header.shapes, header.metadata, family, ()).notes
