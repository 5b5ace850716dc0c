"""``python -m services.vlm.footprint idefics2 --size 512 --questions 5``"""

from __future__ import annotations

from collections.abc import Iterator

from services.common.footprint.command import main
from services.common.footprint.footprint import Footprint
from services.common.presets import Presets
from services.vlm.footprint.count import at_every_setting


def counted(
    presets: Presets, name: str, size: int, batch: int, questions: int
) -> Iterator[Footprint]:
    yield from at_every_setting(presets.vlm(name), size, batch, max(questions, 1))


if __name__ == "__main__":
    main("services.vlm.footprint", counted)
