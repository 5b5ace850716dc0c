"""The tasks of a writer, and the form of their replies."""

from __future__ import annotations

import json
import string
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from dualprocess.schemas import (
    DraftQuestion,
    ExpandedPrompt,
    ResolvedExpansionSpec,
    ResolvedQuestionsSpec,
    WrittenQuestions,
)
from services.orchestrator.writing.replies import BadReply, read_reply

WordsT = TypeVar("WordsT")

#: Characters that the note about a bad reply may add to a task's text.
NOTE_CHARACTERS = 400
#: The most that the VLM service lets an answer have.
WRITTEN_TOKENS = 512
#: A VLM always needs an image, even if the job has none.
BLANK_SIDE = 224

_RESTATED = "the prompt as one question to which Yes is the right answer"
_EXPANDED = "the new prompt"
_ABOUT_THE_DRAWING = (
    "The picture here is a drawing that will lie over the image when some of the questions are "
    'asked: call what it shows "overlaid", and ask whether the image agrees with it. In the JSON '
    '"drawing" is true for a question that needs it.'
)

_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


@dataclass(frozen=True)
class Task(Generic[WordsT]):
    """``text`` is all that the writer is told; ``read`` raises ``BadReply``."""

    text: str
    read: Callable[[str], WordsT]
    #: What is not as it should be with words that can be used, if anything.
    doubt: Callable[[WordsT], str | None] = lambda _: None


async def carried_out(task: Task[WordsT], ask: Callable[[str], Awaitable[str]]) -> WordsT:
    """What the writer wrote. A reply that can't be used, or is in doubt, is asked for once more,
    with a note of what was wrong: a VLM says the same again to the same words. Raises
    ``BadReply`` when none can be used."""
    usable = None
    try:
        usable = task.read(await ask(task.text))
        fault = task.doubt(usable)
    except BadReply as error:
        fault = str(error)
    if usable is not None and fault is None:
        return usable
    note = f"\n\nA reply of yours could not be used: {fault}"[:NOTE_CHARACTERS]
    try:
        return task.read(await ask(task.text + note))
    except BadReply:
        if usable is None:
            raise
        return usable


class _Pair(BaseModel):
    question: _Words
    answer: _Words
    drawing: bool = False


class _Questions(BaseModel):
    restated: _Words
    questions: Annotated[list[_Pair], Field(max_length=100)] = []


class _Prompt(BaseModel):
    prompt: _Words


def questions(
    prompt: str,
    *,
    count: int,
    drawing: bool,
    first: DraftQuestion | None,
    instructions: str,
) -> Task[WrittenQuestions]:
    """At most ``count`` questions about images of a prompt, ``first`` among them; with ``drawing``
    the writer is shown one."""
    parts = [
        instructions,
        f"The prompt: {prompt}",
    ]
    if drawing:
        parts.append(_ABOUT_THE_DRAWING)
    if first is not None:
        there = f"{first.question} {first.answer}"
        parts.append(f"There is this question already, so write others: {there}")
    pair: dict[str, object] = {"question": "…", "answer": "Yes or No"}
    form = {"restated": _RESTATED, "questions": [pair | ({"drawing": False} if drawing else {})]}
    parts.append(f"{_form(form)}, with at most {count} questions.")

    def read(reply: str) -> WrittenQuestions:
        written = read_reply(reply, _Questions)
        _check_it_is_no_echo(written.restated, _RESTATED)
        drafts = [DraftQuestion(question=written.restated, answer="Yes")]
        drafts += [first] if first is not None else []
        drafts += [
            DraftQuestion(
                question=pair.question,
                answer=_plain(pair.answer),
                on_drawing=drawing and pair.drawing,
            )
            for pair in written.questions
        ]
        return WrittenQuestions(questions=list(_once_each(drafts, first))[:count])

    return Task("\n\n".join(parts), read)


def expansion(
    prompt: str,
    *,
    instructions: str,
    generator: str | None = None,
    most_words: int | None = None,
) -> Task[ExpandedPrompt]:
    """A longer prompt; for a ``generator`` not longer than the words that it reads."""
    parts = [instructions, f"The prompt: {prompt}"]
    if most_words is not None:
        parts.append(f"Write at most {most_words} words: nothing behind them is read.")
    parts.append(f"{_form({'prompt': _EXPANDED})}.")

    def read(reply: str) -> ExpandedPrompt:
        written = read_reply(reply, _Prompt)
        _check_it_is_no_echo(written.prompt, _EXPANDED)
        return ExpandedPrompt(prompt=written.prompt)

    def doubt(written: ExpandedPrompt) -> str | None:
        words = _length(written.prompt)
        if most_words is None or words <= most_words:
            return None
        return (
            f"The prompt has about {words} words, and {generator} is sure to read {most_words}: "
            "its end may have no effect. Shorten it, or expand it again."
        )

    return Task("\n\n".join(parts), read, doubt)


def of_questions(spec: ResolvedQuestionsSpec) -> Task[WrittenQuestions]:
    """The task of a job that writes questions."""
    return questions(
        spec.prompt,
        count=spec.count,
        drawing=spec.drawing,
        first=spec.first,
        instructions=spec.instructions,
    )


def of_expansion(spec: ResolvedExpansionSpec) -> Task[ExpandedPrompt]:
    """The task of a job that expands a prompt."""
    return expansion(
        spec.prompt,
        instructions=spec.instructions,
        generator=spec.generator,
        most_words=spec.most_words,
    )


def _length(prompt: str) -> int:
    """In words of six characters, where they are longer or not set apart."""
    return max(len(prompt.split()), len(prompt) // 7)


def _form(form: Mapping[str, object]) -> str:
    return f"Reply with nothing but JSON of this form: {json.dumps(form, ensure_ascii=False)}"


def _check_it_is_no_echo(written: str, form: str) -> None:
    if written == form:
        raise BadReply("it only repeats the form")


def _once_each(
    drafts: Iterable[DraftQuestion], first: DraftQuestion | None
) -> Iterator[DraftQuestion]:
    """Each question once; where one is the user's own, that one."""
    seen: set[str] = set()
    for draft in drafts:
        words = _words(draft.question)
        if words not in seen:
            seen.add(words)
            own = first is not None and _words(first.question) == words
            yield first if first is not None and own else draft


def _words(question: str) -> str:
    """What two wordings that are one question have in common."""
    kept = question.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(kept.split())


def _plain(answer: str) -> str:
    """Yes and No as every VLM's tokens have them."""
    word = answer.strip().rstrip(".!").casefold()
    return word.capitalize() if word in ("yes", "no") else answer
