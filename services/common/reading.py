"""How much of a prompt a generator reads: text encoders take so many tokens, and no more.

What is said of it is the same wherever the tokenizer is known: at the generator, and at the API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from services.common.presets import GeneratorPreset

#: The places where each token of a text begins and ends, in characters, without control tokens.
Offsets = Callable[[str], Sequence[tuple[int, int]]]

#: Characters that are shown before and after the place where reading ends.
_SHOWN = 40
_FRAME = ", including those around the prompt"
#: Prompts of one job that get a sentence each.
_TOLD = 3
#: A writer counts words. Four tokens are three English words; in other languages they are fewer.
_WORDS_A_TOKEN = 0.6
#: The tokens of every CLIP model; its tokenizer says the same.
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class TextEncoder:
    """``name`` as people know it. ``tokenizer`` is its folder in the model's folder, and its name
    in the pipeline. The preset (``by_preset``) or the tokenizer says how many tokens it takes.
    ``alone`` is whether it gets the prompt without other text around it; ``summary`` whether it
    gives the denoiser one vector for the whole prompt, not one for each token."""

    name: str
    tokenizer: str = "tokenizer"
    by_preset: bool = True
    alone: bool = True
    summary: bool = False


#: By the preset's family.
TEXT_ENCODERS: Mapping[str, tuple[TextEncoder, ...]] = {
    "flux": (TextEncoder("CLIP", by_preset=False, summary=True), TextEncoder("T5", "tokenizer_2")),
    "stable_diffusion": (TextEncoder("CLIP", by_preset=False),),
    "sdxl": (
        TextEncoder("CLIP", by_preset=False),
        TextEncoder("OpenCLIP", "tokenizer_2", by_preset=False),
    ),
    "flux2": (TextEncoder("Qwen3", alone=False),),
    "z_image": (TextEncoder("Qwen3", alone=False),),
    "sana": (TextEncoder("Gemma 2", alone=False),),
    "sana_sprint": (TextEncoder("Gemma 2", alone=False),),
}


@dataclass(frozen=True)
class Framed:
    """A prompt as a tokenizer gets it. ``places`` has, for each of its characters, how many
    characters of the prompt come before it."""

    text: str
    places: Sequence[int]


def alone(prompt: str) -> Framed:
    return Framed(prompt, range(len(prompt)))


def between(prompt: str, before: str, after: str = "") -> Framed:
    """The prompt with text around it."""
    places = [0] * len(before) + [*range(len(prompt))] + [len(prompt)] * len(after)
    return Framed(before + prompt + after, places)


@dataclass(frozen=True)
class Reader:
    """One text encoder. ``tokens`` is how many it takes, without its control tokens."""

    name: str
    tokens: int
    offsets: Offsets
    frame: Callable[[str], Framed] = alone
    summary: bool = False

    def read(self, prompt: str) -> int:
        """How many characters are read: all, or those before the first token that is not."""
        framed = self.frame(prompt)
        offsets = self.offsets(framed.text)
        if len(offsets) <= self.tokens:
            return len(prompt)
        begin = offsets[self.tokens][0]
        return framed.places[begin] if begin < len(framed.places) else len(prompt)


def unread(
    generator: str, readers: Sequence[Reader], prompts: Iterable[tuple[str, str]]
) -> list[str]:
    """A sentence for each of the first ``prompts`` (field and text) that no text encoder reads to
    its end, and one that counts the others."""
    cuts = _cuts(generator, readers, prompts)
    told = list(islice(cuts, _TOLD))
    if more := sum(1 for _ in cuts):
        told.append(
            f"{more} more prompts are too long as well: {generator} does not read their ends."
        )
    return told


def fields(prompts: Sequence[str]) -> list[tuple[str, str]]:
    """A job's prompts, each with the field in which it was written."""
    if len(prompts) == 1:
        return [("prompt", prompts[0])]
    return [(f"prompts.{index}", prompt) for index, prompt in enumerate(prompts)]


def most_words(preset: GeneratorPreset) -> int:
    """About how many English words its text encoders are sure to read."""
    encoders = TEXT_ENCODERS.get(preset.family, ())
    by_preset = any(encoder.by_preset for encoder in encoders) or not encoders
    tokens = preset.max_sequence_length if by_preset else _CLIP_TOKENS
    return max(1, int(tokens * _WORDS_A_TOKEN))


def _cuts(
    generator: str, readers: Sequence[Reader], prompts: Iterable[tuple[str, str]]
) -> Iterator[str]:
    for field, prompt in prompts:
        # Another text encoder may read what one leaves out.
        read, reader = max(
            ((reader.read(prompt), reader) for reader in readers if not reader.summary),
            key=lambda pair: pair[0],
        )
        if not prompt[read:].strip():
            continue
        yield (
            f"{field} is too long for {generator}: it reads as far as “{_end(prompt[:read])}” and "
            f"{_lost(prompt, read, readers)}. Its {reader.name} takes {reader.tokens} tokens"
            f"{'' if reader.frame is alone else _FRAME}. Shorten it, or put first what matters."
        )


def _lost(prompt: str, read: int, readers: Sequence[Reader]) -> str:
    """What effect the prompt has from ``read`` on."""
    rest = prompt[read:].strip()
    for reader in readers:
        if reader.summary and (seen := reader.read(prompt)) > read:
            only = f"from “{_begin(rest)}” on only the summary that its {reader.name} makes"
            if not (unseen := prompt[seen:].strip()):
                return f"{only}, {len(rest)} of {len(prompt)} characters"
            return (
                f"{only}, which ends before “{_begin(unseen)}”: no encoder reads the last "
                f"{len(unseen)} of {len(prompt)} characters"
            )
    return f"nothing from “{_begin(rest)}” on, {len(rest)} of {len(prompt)} characters"


def _end(text: str) -> str:
    """The last words."""
    shown = " ".join(text[-2 * _SHOWN :].split())
    if len(shown) <= _SHOWN and len(text) <= 2 * _SHOWN:
        return shown
    broken, space, words = shown[-_SHOWN:].partition(" ")
    return f"…{words if space else broken}"


def _begin(text: str) -> str:
    """The first words."""
    shown = " ".join(text[: 2 * _SHOWN].split())
    if len(shown) <= _SHOWN and len(text) <= 2 * _SHOWN:
        return shown
    words, space, broken = shown[:_SHOWN].rpartition(" ")
    return f"{words if space else broken}…"
