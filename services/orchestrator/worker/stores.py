"""What is durable, as a running job uses it."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.base_scores import BaseScores
from services.orchestrator.store.events import Events
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.paces import Paces


@dataclass(frozen=True)
class Stores:
    """Writes go through the job's lease."""

    jobs: Jobs
    events: Events
    artifacts: ArtifactStore
    paces: Paces
    base_scores: BaseScores
