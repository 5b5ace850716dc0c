"""Which models `dualprocess up` serves, in how many processes, on which cards."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from services.common import gpus
from services.common.footprint import recorded
from services.common.footprint.footprint import Footprint, Kind, Work
from services.common.gpus import Gpu, Gpus
from services.common.memory import MemoryLevel, Quantization
from services.common.presets import PresetError, Presets, load_presets
from services.local.child import ChildSpec
from services.local.plan import Plan, made
from services.local.planned import told
from services.local.settings import LocalSettings
from services.local.stack import build
from services.local.wishes import WishError

#: What comes with this version.
SHIPPED = recorded.footprints()


@pytest.fixture(autouse=True)
def recorded_footprints(monkeypatch: pytest.MonkeyPatch) -> list[Footprint]:
    """None, but for those that a test adds."""
    known: list[Footprint] = []
    monkeypatch.setattr(recorded, "footprints", lambda: tuple(known))
    return known


NONE = Gpus([], "nvidia-smi is not on the PATH")


def machine(count: int, *, gib: int = 80) -> Gpus:
    return Gpus(
        [
            Gpu(str(number), f"GPU-{number}abc-{number}", "H100", gib * 1024, gib * 1000, "580.1")
            for number in range(count)
        ]
    )


def plan(found: Gpus = NONE, given: str | None = None, **asked: object) -> Plan:
    """``given`` is what `CUDA_VISIBLE_DEVICES` is."""
    settings = LocalSettings.model_validate(asked)
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    return made(settings, load_presets(), found, environment)


def cards(made: Plan) -> dict[str, str | None]:
    places = (*made.generators, *made.vlms)
    return {place.name: ",".join(place.cards) or None for place in places}


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ("tiny-flux,nothing", "'nothing' is unknown: choose from"),
        ("tiny-flux,flux-dev", "names no VLM: add one of gemma3"),
        ("idefics2", "names no generator: add one of flux-dev"),
    ],
)
def test_models_that_make_no_stack_are_refused(models: str, sentence: str) -> None:
    with pytest.raises(PresetError, match=sentence):
        plan(models=models)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"generator": "tiny-flux:0"}, "--generator: .*1 to 64, like tiny-flux:2"),
        ({"generator": "tiny-flux:65"}, "--generator: .*1 to 64"),
        ({"vlm": "idefics2:²"}, "--vlm: .*1 to 64"),
        ({"vlm": "idefics2:"}, "--vlm: .*1 to 64"),
        ({"vlm": "idefics2:1x0"}, "--vlm: .*1 to 64, like idefics2:2; for a VLM on several GPUs"),
        ({"vlm": "idefics2:x2"}, "--vlm: .*1 to 64"),
        ({"vlm": "idefics2:1x2x2"}, "--vlm: .*1 to 64"),
        ({"vlm": "idefics2:1x5"}, "idefics2 on 5 GPUs: there are 4, 0, 1, 2, 3; write a smaller"),
        ({"vlm": "idefics2:1x2", "gpus": "3"}, "idefics2 on 2 GPUs: there are 1, 3; write a smal"),
        ({"vlm": "idefics2:1x2", "device": "cpu"}, "--device cpu: .* leave out --device, or the n"),
        ({"vlm": "idefics2:1x2", "device": "cuda:1"}, "--device cuda:1: puts all processes in one"),
        ({"device": "cuda:0,cuda:1"}, "--device cuda:0,cuda:1: .* write --vlm NAME:1x2, and leav"),
        ({"generator": "tiny-flux:1x2"}, "--generator: .* runs on one GPU.* write tiny-flux:2"),
        (
            {"models": "tiny-flux:2x2,idefics2"},
            "--models: tiny-flux:2x2: a generator runs on one GPU.* write tiny-flux:4",
        ),
        ({"vlm": "idefics2,"}, "--vlm: a preset is missing next to a comma"),
        (
            {"models": "tiny-flux,idefics2", "vlm": "idefics2"},
            "--models: can't be used together with --vlm",
        ),
        ({"gpus": "1-0"}, "--gpus: 1-0 goes backwards; write 0-1"),
        ({"gpus": "0,1,00"}, "--gpus: names GPU 0 twice"),
        ({"gpus": "0,one"}, "--gpus: 'one' can't be a GPU; write numbers"),
        ({"gpus": "0,,1"}, "--gpus: '' can't be a GPU"),
        ({"gpus": "0,9"}, "--gpus: GPU 9 is not here; there are 0, 1, 2, 3"),
        ({"gpus": "0,GPU-0abc"}, "--gpus: names GPU 0 twice, by its number and by its UUID"),
        ({"gpus": "0,1", "device": "cpu"}, "--device cpu puts all of them"),
        ({"gpus": "0,1", "device": "cuda:1"}, "--device cuda:1 puts all of them"),
    ],
)
def test_wishes_that_make_no_plan_are_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WishError, match=sentence):
        plan(machine(4), **asked)


def with_a_teacher(tmp_path: Path, **asked: object) -> Plan:
    (tmp_path / "vlms").mkdir()
    (tmp_path / "vlms" / "colour.yaml").write_text("family: external")
    colour = load_presets(tmp_path).vlm("colour")
    known = load_presets()
    presets = Presets(known.generators, {**known.vlms, "colour": colour})
    return made(LocalSettings.model_validate(asked), presets, NONE, {})


def test_a_teacher_of_ones_own_has_an_address_and_no_process(tmp_path: Path) -> None:
    found = with_a_teacher(tmp_path, teachers="colour=127.0.0.1:50060")
    assert [place.preset for place in found.vlms] == ["tiny-idefics2"]
    assert found.teachers == {"colour": "127.0.0.1:50060"}
    shown = told(found, LocalSettings(), NONE)
    assert "asks vlm, colour at 127.0.0.1:50060" in shown


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"vlm": "colour"}, WishError, "--vlm: colour is external.* --teachers colour=HOST:PORT"),
        ({"teachers": "colour"}, WishError, "write a list like colour=127.0.0.1:50060"),
        ({"teachers": "colour=50060"}, WishError, "address of colour must be host:port"),
        ({"teachers": "sharp=a:1"}, PresetError, "'sharp' is unknown"),
        ({"teachers": "idefics2=a:1"}, PresetError, "only a preset with `family: external`"),
    ],
)
def test_teachers_that_cannot_be_are_refused(
    tmp_path: Path, asked: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        with_a_teacher(tmp_path, **asked)


def test_cards_that_this_process_may_not_use_are_refused() -> None:
    given = "2,GPU-3"
    with pytest.raises(WishError, match="GPU 1 is not in CUDA_VISIBLE_DEVICES=2,GPU-3"):
        plan(machine(4), given, gpus="1,2")
    assert cards(plan(machine(4), given, gpus="3,2")) == {"generator": "3", "vlm": "2"}
    assert cards(plan(machine(4), given)) == {"generator": "2", "vlm": "GPU-3"}


def test_cuda_that_is_asked_for_and_not_there_is_refused_but_for_a_look_at_the_plan() -> None:
    with pytest.raises(WishError, match="no NVIDIA GPU is found here: nvidia-smi is not on the"):
        plan(device="cuda", gpus="0,1")
    assert cards(plan(device="cuda", gpus="0,1", dry_run=True)) == {"generator": "0", "vlm": "1"}


def test_models_come_in_any_order_and_as_often_as_they_are_named() -> None:
    models = plan(models="idefics2, tiny-flux:2,idefics2,flux-dev")
    assert [(place.name, place.preset) for place in models.generators] == [
        ("generator-1", "tiny-flux"),
        ("generator-2", "tiny-flux"),
        ("generator-3", "flux-dev"),
    ]
    assert [(place.name, place.preset) for place in models.vlms] == [
        ("vlm-1", "idefics2"),
        ("vlm-2", "idefics2"),
    ]
    assert str(models) == "tiny-flux (2 processes), flux-dev and idefics2 (2 processes)"


def test_each_process_has_a_card_of_its_own_where_there_are_enough() -> None:
    asked: dict[str, Any] = {"generator": "flux-schnell:2", "vlm": "idefics2"}
    for models in (plan(machine(4), **asked), plan(machine(3), **asked)):
        assert cards(models) == {"generator-1": "0", "generator-2": "1", "vlm": "2"}
        assert models.warnings == []
    few = plan(machine(2), **asked)
    assert cards(few) == {"generator-1": "0", "generator-2": "1", "vlm": "0"}
    assert few.warnings == ["3 processes share 2 GPUs; one GPU for each is faster"]
    named = plan(machine(4), **asked, gpus="3,2,0,1")
    assert cards(named) == {"generator-1": "3", "generator-2": "2", "vlm": "0"}
    assert named.warnings == ["nothing runs on GPU 1; ask for more processes"]
    assert {place.device for place in named.generators} == {"cuda"}, "never quietly on the CPU"
    assert set(cards(plan(machine(4), **asked, device="cpu")).values()) == {None}


def test_a_vlm_is_spread_over_as_many_cards_as_are_asked_for() -> None:
    asked: dict[str, Any] = {"generator": "flux-schnell", "vlm": "pixtral:1x2"}
    settings = LocalSettings(**asked)
    found = machine(4)
    models = made(settings, load_presets(), found, {})
    assert cards(models) == {"generator": "0", "vlm": "1,2"}
    assert models.warnings == []
    assert (
        "pixtral, CUDA_VISIBLE_DEVICES=1,2 (H100, 78 of 80 GiB free; H100, 78 of 80 GiB free)"
        in (told(models, settings, found))
    )
    vlm, generator = gpu_services(settings, models)
    assert vlm.environment["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert "--device=cuda:0,cuda:1" in vlm.command, "as the process counts them"
    assert generator.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert "--device=cuda" in generator.command
    both = plan(machine(8), models="flux-schnell:2,pixtral:2x2,idefics2", gpus="7,6,5,4,3,2,1")
    assert cards(both) == {
        "generator-1": "7",
        "generator-2": "6",
        "vlm-1": "5,4",
        "vlm-2": "3,2",
        "vlm-3": "1",
    }
    few = plan(machine(2), **asked)
    assert cards(few) == {"generator": "0", "vlm": "1,0"}
    assert few.warnings == ["2 processes ask for 3 GPUs and share 2; GPUs of their own are faster"]
    spare = plan(machine(4), **asked, gpus="0-3")
    assert spare.warnings == ["nothing runs on GPU 3; ask for more processes"]


def test_cards_that_are_too_small_for_their_part_are_told(
    recorded_footprints: list[Footprint],
) -> None:
    recorded_footprints += SHIPPED
    asked = {"generator": "tiny-flux", "vlm": "pixtral:1x2"}
    (said,) = plan(machine(3, gib=12), **asked).warnings
    assert said.startswith("one of GPU 1, 2 has 12 GiB, and pixtral needs 1")
    assert "GiB of each; what would fit is pixtral with memory " in said
    assert plan(machine(3, gib=16), **asked).warnings == []


def test_a_vlm_is_not_spread_over_parts_of_gpus() -> None:
    with pytest.raises(WishError, match="CUDA shows a process only one part of a GPU; name whole"):
        plan(machine(1), "0,MIG-0abc,MIG-1abc", vlm="idefics2:1x2")


def test_a_vlm_is_not_spread_where_no_gpu_is_found() -> None:
    models = plan(generator="tiny-flux", vlm="pixtral:1x2")
    assert [(place.device, place.cards) for place in models.vlms] == [("auto", ())]
    (said,) = models.warnings
    assert said.startswith("NO GPU IS FOUND, and --device auto, for pixtral needs one")


def test_a_model_of_the_hub_without_a_gpu_is_said_loudly_and_a_tiny_one_is_not() -> None:
    (said,) = plan(generator="flux-schnell").warnings
    assert said.startswith("NO GPU IS FOUND, and --device auto, for flux-schnell needs one")
    assert "nvidia-smi is not on the PATH" in said
    (hidden,) = plan(machine(1), "-1", vlm="idefics2").warnings
    assert "CUDA_VISIBLE_DEVICES hides all of them" in hidden
    assert plan().warnings == []
    assert plan(generator="flux-schnell", device="cpu").warnings == []


def test_models_that_no_card_holds_are_told_before_they_are_downloaded(
    recorded_footprints: list[Footprint],
) -> None:
    recorded_footprints += SHIPPED
    small = plan(machine(2, gib=16), generator="flux-schnell", vlm="smolvlm2")
    (said,) = small.warnings
    assert said.startswith("GPU 0 has 16 GiB, and flux-schnell needs ")
    assert said.endswith("; what would fit is flux-schnell with memory lean, quantize int8")
    (both,) = plan(machine(1, gib=8), generator="flux-schnell", vlm="smolvlm2").warnings
    assert "flux-schnell and smolvlm2 need 13 GiB together" in both
    assert plan(machine(2, gib=24), generator="flux-schnell", vlm="smolvlm2").warnings == []
    assert plan(machine(1), generator="flux-schnell", vlm="smolvlm2").warnings == []


def footprint(
    kind: Kind, preset: str, level: MemoryLevel, quantize: Quantization | None, gib: float
) -> Footprint:
    questions = 0 if kind == "generator" else 5
    work = Work(kind, preset, 512, 1, questions, level, quantize)
    step = int(gib * 2**30)
    held = 2**30 if kind == "generator" else 0
    return Footprint(
        work,
        weights=step,
        text_encoders=0,
        step=step,
        encode=0,
        streamed=0,
        held=held,
        flops={},
        launches=0,
        moved=0,
    )


ENDS: tuple[MemoryLevel, MemoryLevel] = ("fast", "lean")


def pair() -> list[Footprint]:
    sizes: list[tuple[Kind, str, Quantization | None, float, float]] = [
        ("generator", "flux-schnell", None, 30, 20),
        ("generator", "flux-schnell", "int8", 20, 10),
        ("generator", "flux-schnell", "nf4", 15, 6),
        ("vlm", "idefics2", None, 20, 17),
        ("vlm", "idefics2", "int8", 12, 9),
        ("vlm", "idefics2", "nf4", 8, 5),
    ]
    return [
        footprint(kind, name, level, quantization, gib)
        for kind, name, quantization, *both in sizes
        for level, gib in zip(ENDS, both, strict=True)
    ]


#: Of a pair: --memory and --quantize of generator and VLM.
Settings = list[tuple[str | None, str | None]]


@pytest.mark.parametrize(
    ("gib", "chosen"),
    [
        (80, [("fast", None), ("fast", None)]),
        (48, [("lean", None), ("fast", None)]),
        (24, [("lean", "int8"), ("lean", "int8")]),
        (16, [("lean", "nf4"), ("lean", "nf4")]),
    ],
)
def test_a_pair_on_one_card_has_the_most_exact_settings_that_fit_together(
    gib: int, chosen: Settings, recorded_footprints: list[Footprint]
) -> None:
    recorded_footprints += pair()
    found = machine(1, gib=gib)
    settings = LocalSettings(generator="flux-schnell", vlm="idefics2", gpus="0", slots=1)
    made_plan = made(settings, load_presets(), found, {})
    assert chosen_by(made_plan) == chosen
    assert cards(made_plan) == {"generator": "0", "vlm": "0"}
    assert made_plan.warnings == []
    for line, (memory, quantize) in zip(
        told(made_plan, settings, found).splitlines()[2:4], reversed(chosen), strict=True
    ):
        assert (f"--quantize={quantize}" in line) == (quantize is not None)
        assert f"CUDA_VISIBLE_DEVICES=0, --memory={memory}" in line
    for child, (memory, quantize) in zip(
        gpu_services(settings, made_plan), reversed(chosen), strict=True
    ):
        assert f"--memory={memory}" in child.command
        assert (f"--quantize={quantize}" in child.command) == (quantize is not None)


def gpu_services(settings: LocalSettings, made_plan: Plan) -> list[ChildSpec]:
    names = [place.name for place in (*made_plan.vlms, *made_plan.generators)]
    children = {child.name: child for child in build(settings, made_plan)}
    return [children[name] for name in names]


def chosen_by(made_plan: Plan) -> Settings:
    places = [*made_plan.generators, *made_plan.vlms]
    return [(place.memory, place.quantize) for place in places]


def test_more_jobs_at_once_need_more_of_a_shared_card(
    recorded_footprints: list[Footprint],
) -> None:
    recorded_footprints += pair()
    asked: dict[str, Any] = {"generator": "flux-schnell", "vlm": "idefics2"}
    one, many = (plan(machine(1, gib=24), **asked, slots=slots) for slots in (1, 8))
    assert chosen_by(one) != chosen_by(many)


def test_what_was_chosen_otherwise_stays_on_a_shared_card(
    recorded_footprints: list[Footprint],
) -> None:
    recorded_footprints += pair()
    settings = LocalSettings(generator="flux-schnell", vlm="idefics2", slots=1)
    for environment, both in {
        ("DUALPROCESS_QUANTIZE", "nf4"): ("fast", "nf4"),
        ("DUALPROCESS_MEMORY", "lean"): ("lean", None),
        ("DUALPROCESS_QUANTIZE", "float8"): ("fast", "float8"),
    }.items():
        found = made(settings, load_presets(), machine(1), dict([environment]))
        assert chosen_by(found) == [both, both]


def test_without_the_extra_no_plan_has_four_bits(
    recorded_footprints: list[Footprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_footprints += pair()
    monkeypatch.setattr("services.local.sharing.has_nf4", lambda: False)
    asked: dict[str, Any] = {"generator": "flux-schnell", "vlm": "idefics2", "slots": 1}
    found = plan(machine(1, gib=16), **asked)
    (said, *_) = found.warnings
    assert said.startswith("GPU 0 has 16 GiB for models, and flux-schnell and idefics2 need 2")
    assert chosen_by(found) == [(None, None)] * 2


def test_processes_on_cards_of_their_own_are_left_as_they_are(
    recorded_footprints: list[Footprint],
) -> None:
    recorded_footprints += pair()
    found = plan(machine(2, gib=24), generator="flux-schnell", vlm="idefics2")
    assert chosen_by(found) == [(None, None)] * 2


def test_the_plan_has_a_line_for_each_process_and_no_secret() -> None:
    settings = LocalSettings(
        generator="flux-schnell:2", slots=1, redis_url="redis://:secret@10.0.0.1:6379/0"
    )
    found = machine(3)
    text = told(made(settings, load_presets(), found, {}), settings, found)
    assert text.splitlines() == [
        "The plan:",
        "  redis        the one named in the environment",
        "  vlm          tiny-idefics2, CUDA_VISIBLE_DEVICES=2 (H100, 78 of 80 GiB free)",
        "  generator-1  flux-schnell, CUDA_VISIBLE_DEVICES=0 (H100, 78 of 80 GiB free)",
        "  generator-2  flux-schnell, CUDA_VISIBLE_DEVICES=1 (H100, 78 of 80 GiB free)",
        "  api          http://127.0.0.1:8000",
        "  worker-1     drives generator-1, asks vlm, 1 job at once",
        "  worker-2     drives generator-2, asks vlm, 1 job at once",
    ]


def test_cards_are_those_that_the_driver_tells_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.look().fault == "nvidia-smi, which comes with NVIDIA's driver, is not on the PATH"

    program = tmp_path / "nvidia-smi"

    def says(script: str) -> Gpus:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return gpus.look()

    # Its own lines, the second of a card that shares the machine's memory.
    found = says(
        "echo '0, GPU-5d1c-11, NVIDIA H100 80GB HBM3, 81559, 81008, 580.82.07'\n"
        "echo '1, GPU-77aa-22, NVIDIA GB10, [N/A], [N/A], 580.82.07'"
    )
    assert found.found == [
        Gpu("0", "GPU-5d1c-11", "NVIDIA H100 80GB HBM3", 81559, 81008, "580.82.07"),
        Gpu("1", "GPU-77aa-22", "NVIDIA GB10", 0, 0, "580.82.07"),
    ]
    broken = says("echo 'NVIDIA-SMI has failed: no driver runs.'; exit 9")
    assert broken == Gpus([], f"{program} says: NVIDIA-SMI has failed: no driver runs.")
    assert says("exit 0") == Gpus([], f"{program} lists none")
