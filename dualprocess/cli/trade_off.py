"""The trade-off of a sweep: how well a LoRA answers against how far it moves the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dualprocess.cli.lessons import compared
from dualprocess.cli.outcomes import Outcome

_WIDTH, _HEIGHT = 640, 360
_LEFT, _BOTTOM, _EDGE = 52, 40, 12
_TICKS = 4
#: Half a mark.
_MARK = 6


@dataclass(frozen=True)
class Place:
    """A job between the two: its ``score``, by the judge if there is one, and its ``drift``."""

    outcome: Outcome
    score: float
    drift: float

    def beats(self, other: Place) -> bool:
        """Better in one, and not worse in the other."""
        both = self.score >= other.score and self.drift <= other.drift
        return both and (self.score, self.drift) != (other.score, other.drift)


def places(found: Sequence[Outcome]) -> list[list[Place]]:
    """The jobs that have both numbers; in a list each those that teach the same, if there are at
    least two."""
    groups = [list(_placed(group)) for group in compared(found)]
    return [group for group in groups if len(group) > 1]


def unbeaten(group: Sequence[Place]) -> list[Place]:
    """Those that no other beats (the Pareto front)."""
    return [one for one in group if not any(other.beats(one) for other in group)]


def _placed(group: Sequence[Outcome]) -> Iterator[Place]:
    for outcome in group:
        scores = outcome.job.scores if outcome.job else None
        judged = scores and (scores.judge.lora if scores.judge else scores.lora)
        if scores and judged and scores.drift is not None:
            yield Place(outcome, judged.probability.geometric_mean, scores.drift)


def plot(group: Sequence[Place], text: Callable[[str], str]) -> str:
    """An SVG of one group. ``text`` makes the words of others harmless."""
    best = {id(one) for one in unbeaten(group)}
    most = max(one.drift for one in group) * 1.08 or 1.0
    by = "judge" if any(one.outcome.spec.judge for one in group) else "teacher"

    def x(drift: float) -> float:
        return _LEFT + drift / most * (_WIDTH - _LEFT - _EDGE)

    def y(score: float) -> float:
        return _HEIGHT - _BOTTOM - score * (_HEIGHT - _BOTTOM - _EDGE)

    lines = []
    for tick in range(_TICKS + 1):
        score, drift = tick / _TICKS, most * tick / _TICKS
        lines.append(
            f'<path class="grid" d="M{_LEFT} {y(score):.1f}H{_WIDTH - _EDGE}"/>'
            f'<text x="{_LEFT - 6}" y="{y(score) + 4:.1f}" text-anchor="end">{score:g}</text>'
            f'<text x="{x(drift):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{drift:.2g}</text>"
        )
    # The best are drawn last, over the others.
    marks = [
        _mark(x(one.drift), y(one.score), one, text, is_best=id(one) in best)
        for one in sorted(group, key=lambda one: id(one) in best)
    ]
    prompt = text((group[0].outcome.spec.prompts or [group[0].outcome.spec.prompt or ""])[0])
    return (
        f"<figure><figcaption>{prompt}: score by the {by} against drift. Filled: no other job has "
        "a higher score with as little drift, or less drift with as high a score.</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Score against drift">'
        f"{''.join(lines)}{''.join(marks)}"
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">drift</text>'
        f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2})">score by the {by}</text></svg></figure>'
    )


def _mark(x: float, y: float, place: Place, text: Callable[[str], str], *, is_best: bool) -> str:
    """A diamond, and the name of the job where one points at it."""
    name = text(place.outcome.spec.name or "")
    told = f"{name}: score {place.score:.3f}, drift {place.drift:.3f}"
    shape = f"M{x:.1f} {y - _MARK:.1f}l{_MARK} {_MARK}l-{_MARK} {_MARK}l-{_MARK} -{_MARK}z"
    return f'<path class="{"best" if is_best else "mark"}" d="{shape}"><title>{told}</title></path>'
