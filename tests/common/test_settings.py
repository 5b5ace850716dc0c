"""Wrong flags and variables are named, each with what it must be."""

from __future__ import annotations

import sys

import pytest

from services.common.settings import GpuServiceSettings


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--preset=x", "--port=99999"],
            "--port (or DUALPROCESS_PORT): should be less than or equal to 65535",
        ),
        (
            ["--preset=x", "--port=soon"],
            "--port (or DUALPROCESS_PORT): should be a valid integer, unable to parse string as an "
            "integer",
        ),
        (["--port=1"], "--preset (or DUALPROCESS_PRESET): Field required"),
    ],
)
def test_a_flag_that_cannot_be_is_named(
    flags: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", *flags])
    with pytest.raises(SystemExit) as ended:
        GpuServiceSettings.from_command_line()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == said


def test_a_variable_that_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUALPROCESS_THREADS", "0")
    monkeypatch.setattr(sys, "argv", ["service", "--preset=x", "--port=1"])
    with pytest.raises(SystemExit):
        GpuServiceSettings.from_command_line()
    assert "DUALPROCESS_THREADS): should be greater than or equal to 1" in capsys.readouterr().err
