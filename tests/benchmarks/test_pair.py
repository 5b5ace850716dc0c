"""The benchmark of a whole job runs, and what it needs of new models works."""

from __future__ import annotations

import pytest

from benchmarks import families, pair
from services.generator import architecture
from tests.generator.rows import ROWS, Row


def test_it_measures_a_job_with_each_guard(capsys: pytest.CaptureFixture[str]) -> None:
    pair.main(["--tiny", "--steps", "2", "--images", "1"])
    shown = capsys.readouterr().out
    for guard in pair.GUARDS:
        assert f"{guard}, as it is" in shown


#: One for each way of reading a prompt.
READERS = [row for row in ROWS if row.preset in ("flux-schnell", "sd-1.4", "z-image-turbo")]


@pytest.mark.parametrize("row", READERS, ids=str)
def test_a_new_model_says_how_far_it_reads(row: Row) -> None:
    family = architecture.generator(row.tiny, families.CPU)
    assert family.unread(["a photo of a man"], row.images[0]) == []
    (told,) = family.unread(["a man " * 1000], row.images[0])
    assert "man" in told
