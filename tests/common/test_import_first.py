"""A start imports without garbage collection, and without what is used late or never."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from services.common.imports import import_first

#: A generator's start, then what is tested. Prints which modules it has.
START = """
import json, sys
from services.common.imports import import_first
{before}
with import_first("scipy"):
    import transformers.modeling_utils
with import_first():
    import services.generator.service, services.generator.families.flux
{after}
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""


@pytest.fixture(autouse=True)
def nothing_stays_frozen() -> Any:
    yield
    gc.unfreeze()


def generator(after: str, *, before: str = "") -> set[str]:
    """The modules of a process that starts as a generator, and does this before and after."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(before=before, after=after)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_nothing_is_collected_until_the_end() -> None:
    with import_first():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count()


def test_an_error_ends_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, monkeypatch, "spare_part", "")
    with pytest.raises(ImportError, match="broken"), import_first("spare_part"):
        raise ImportError("broken")
    assert gc.isenabled()
    assert find_spec("spare_part") is not None


def test_who_collects_nothing_goes_on_so() -> None:
    gc.disable()
    try:
        with import_first():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_unused_looks_missing_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, monkeypatch, "spare_part", "")
    with import_first("spare_part"):
        assert find_spec("spare_part") is None
        with pytest.raises(ModuleNotFoundError):
            import_module("spare_part")
    assert find_spec("spare_part") is not None
    assert import_module("spare_part").__file__


def test_what_was_imported_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, monkeypatch, "first_part", "")
    first = import_module("first_part")
    with import_first("first_part"):
        assert import_module("first_part") is first
    assert sys.modules["first_part"] is first


@pytest.mark.parametrize("within", [True, False])
def test_what_is_late_is_imported_when_it_is_used(
    within: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, monkeypatch, "late_part", "value = 1")
    monkeypatch.setattr("services.common.imports.LATE", ("late_part", "missing_part.inner"))
    with import_first():
        assert find_spec("late_part") is not None
        late = import_module("late_part")
        assert not hasattr(late, "__file__"), "looking at it is no use of it"
        if within:
            assert late.value == 1
    assert ("late_part" in sys.modules) == within
    assert late.value == 1
    real = sys.modules["late_part"]
    assert real is not late
    real.__dict__["value"] = 2
    assert late.value == 2


def test_what_is_late_in_a_package_does_not_import_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    made(tmp_path, monkeypatch, "whole/__init__", "")
    made(tmp_path, monkeypatch, "whole/inner", "value = 1")
    monkeypatch.setattr("services.common.imports.LATE", ("whole.inner",))
    with import_first():
        assert "whole" not in sys.modules
        assert find_spec("whole.inner") is not None
        inner = import_module("whole.inner")
    assert inner.value == 1


def test_what_a_generator_uses_late_is_there_when_it_is_used() -> None:
    """A model that diffusers has quantised, samplers that integrate or have beta sigmas; and a base
    in four bits, without peft."""
    use = """
assert not {"bitsandbytes", "scipy.integrate", "scipy.optimize", "scipy.stats"} & {*sys.modules}
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LMSDiscreteScheduler
from diffusers.quantizers.bitsandbytes import utils
from diffusers.utils import is_bitsandbytes_available
FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True).set_timesteps(4)
sampler = LMSDiscreteScheduler()
sampler.set_timesteps(4)
assert sampler.get_lms_coefficient(2, 1, 0)
assert is_bitsandbytes_available() and issubclass(utils.bnb.nn.Linear4bit, torch.nn.Linear)
from services.common.presets import load_presets
from services.generator import registry
preset = load_presets().generator("tiny-flux").model_copy(update={"quantize": "nf4"})
registry.load(preset, torch.device("cpu"))
"""
    modules = generator(use, before="sys.modules['peft'] = None")
    assert {"scipy.integrate", "scipy.stats", "bitsandbytes.functional"} <= modules
    assert "peft" not in modules
