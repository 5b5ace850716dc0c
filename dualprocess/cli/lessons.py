"""Which jobs of a data set can be compared: those that teach the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dualprocess.cli.outcomes import Outcome
from dualprocess.schemas import JobSpec

_ASKED = {"prompt", "prompts", "questions", "question_postfix", "vlm", "judge"}


def compared(found: Sequence[Outcome]) -> list[list[Outcome]]:
    """Jobs with the same prompts, questions, teachers and judge, in a list each: their scores mean
    the same. In order."""
    groups: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in found:
        groups[_lesson(outcome.spec)].append(outcome)
    return list(groups.values())


def _lesson(spec: JobSpec) -> str:
    return spec.model_dump_json(include=_ASKED)
