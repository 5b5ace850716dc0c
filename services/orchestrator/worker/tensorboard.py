"""A job's steps as TensorBoard reads them. The same steps give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from dualprocess import printable
from dualprocess.schemas import StepEvent

#: TensorBoard takes every file for its own whose name holds ``tfevents``.
FILE = "events.out.tfevents"
_VERSION = "brain.Event:2"
#: Of a question, in the name of its curve.
_LETTERS = 80


def events(
    steps: Sequence[StepEvent], changed: tuple[float | None, float | None] = (None, None)
) -> bytes:
    """Loss, gradient norm, probabilities, drift and diversity of each step; behind the last one
    ``changed``, the drift and diversity of the evaluation's images. Its clock counts steps: a
    resumed job's file is that of an undisturbed one."""
    # Imported here, since a job's end is soon enough for it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=0, file_version=_VERSION).SerializeToString())
    for step in steps:
        writer.write(_event(step.step, _curves(step)))
    if steps:
        writer.write(_event(steps[-1].step, _named("evaluation", *changed)))
    return file.getvalue()


def _event(step: int, curves: Iterator[tuple[str, float]]) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves]
    event = Event(wall_time=step, step=step, summary=Summary(value=values))
    return bytes(event.SerializeToString())


def _named(group: str, drift: float | None, diversity: float | None) -> Iterator[tuple[str, float]]:
    for name, value in (("drift", drift), ("diversity", diversity)):
        if value is not None:
            yield f"{group}/{name}", value


def _curves(step: StepEvent) -> Iterator[tuple[str, float]]:
    yield from _named("steps", step.drift, step.diversity)
    yield "loss", step.loss
    yield "grad_norm", step.grad_norm
    yield "probability", step.probability.geometric_mean
    for number, score in enumerate(step.questions, 1):
        name = f"questions/{number} {printable.line(score.question)[:_LETTERS]}"
        yield name, score.probability.geometric_mean
