"""What a generator will not read of a prompt, said at submission where its tokenizer lies here.

That is so for a preset whose model is a folder. Of a model on the hub the generator itself tells,
once the job runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from dualprocess.schemas import ImageSettings
from services.common.presets import GeneratorPreset
from services.common.reading import TEXT_ENCODERS, Reader, TextEncoder, fields, unread


def warnings(
    preset: GeneratorPreset, prompts: Sequence[str], image: ImageSettings | None = None
) -> list[str]:
    """A sentence for each prompt, and for the image's negative prompt, whose end is not read. None
    if the tokenizer is not here. Reads files the first time, so it must not run in the event
    loop."""
    readers = _readers(preset.family, preset.model, preset.max_sequence_length)
    if not readers:
        return []
    told = unread(preset.name, readers, fields(prompts))
    if image is not None and image.negative_prompt:
        told += unread(preset.name, readers, [("image.negative_prompt", image.negative_prompt)])
    return told


@cache
def _readers(family: str, model: str, max_sequence_length: int) -> tuple[Reader, ...]:
    encoders = TEXT_ENCODERS.get(family, ())
    files = [Path(model) / encoder.tokenizer / "tokenizer.json" for encoder in encoders]
    # Only the pipeline knows the text around a prompt.
    if not all(encoder.alone for encoder in encoders) or not all(map(Path.is_file, files)):
        return ()
    found = [
        _reader(encoder, file, max_sequence_length)
        for encoder, file in zip(encoders, files, strict=True)
    ]
    return tuple(reader for reader in found if reader) if all(found) else ()


def _reader(encoder: TextEncoder, file: Path, max_sequence_length: int) -> Reader | None:
    tokenizer = Tokenizer.from_file(str(file))
    # The tokenizer's file may contain the settings of its last use.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    most = max_sequence_length
    if not encoder.by_preset:
        settings = json.loads((file.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        most = settings.get("model_max_length")
        if not isinstance(most, int):
            return None

    def offsets(text: str) -> Sequence[tuple[int, int]]:
        found: Sequence[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
        return found

    own = most - tokenizer.num_special_tokens_to_add(False)
    return Reader(encoder.name, own, offsets, summary=encoder.summary)
