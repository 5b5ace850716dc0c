"""``python -m services.generator.footprint flux-schnell --size 512``"""

from __future__ import annotations

from collections.abc import Iterator

from services.common.footprint.command import main
from services.common.footprint.footprint import Footprint
from services.common.presets import Presets
from services.generator.footprint.count import at_every_setting


def counted(
    presets: Presets, name: str, size: int, batch: int, _questions: int
) -> Iterator[Footprint]:
    yield from at_every_setting(presets.generator(name), size, batch)


if __name__ == "__main__":
    main("services.generator.footprint", counted)
