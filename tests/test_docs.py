"""The documentation's tables say what the presets say."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.presets import GeneratorPreset, load_presets

ROOT = Path(__file__).parents[1]
PRESETS = load_presets()


def rows(columns: int) -> dict[str, list[str]]:
    """Cells of the models' tables with this many columns, by the preset in the first one."""
    found = {}
    for line in (ROOT / "docs" / "models.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == columns:
            found[cells[0].strip("`")] = cells
    return found


GENERATORS, VLMS = rows(9), rows(6)


def model(name: str) -> str:
    """As the preset's file has it."""
    preset = PRESETS.generators.get(name) or PRESETS.vlms[name]
    path = Path(preset.model)
    return f"./{path.relative_to(ROOT)}" if path.is_absolute() else preset.model


def test_every_preset_has_a_row_and_every_row_a_preset() -> None:
    assert GENERATORS.keys() == PRESETS.generators.keys()
    assert VLMS.keys() == PRESETS.vlms.keys()


@pytest.mark.parametrize("name", [*PRESETS.generators, *PRESETS.vlms])
def test_the_row_names_the_model(name: str) -> None:
    assert (GENERATORS | VLMS)[name][2] == f"`{model(name)}`"


@pytest.mark.parametrize("preset", PRESETS.generators.values(), ids=lambda preset: preset.name)
def test_the_row_has_the_presets_defaults(preset: GeneratorPreset) -> None:
    _, _, _, _, _, size, steps, guidance, _ = GENERATORS[preset.name]
    assert size == f"{preset.image.width}×{preset.image.height}"
    assert int(steps) == preset.image.num_inference_steps
    if preset.guidance == "none":
        assert guidance == "none"
    else:
        scale, _, kind = guidance.partition(", ")
        assert float(scale) == preset.image.guidance_scale
        assert kind.startswith(preset.guidance.replace("_", "-"))
