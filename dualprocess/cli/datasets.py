"""Data set files, in the research script's format or as a ``BatchRequest``, read as one spec per
job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from dualprocess.cli import places
from dualprocess.cli.files import BadFile, read
from dualprocess.cli.specs import apply, faults, finish, folder
from dualprocess.schemas import BatchRequest, JobSpec, OptimizerSettings, sweeps
from dualprocess.schemas.batches import MAX_BATCH_JOBS

_FORMATS = (
    "must hold dataset, a list of entries with name, prompt and qa_pairs; or spec, with prompts "
    "and seeds or repeats; or specs"
)


def load(file: str, changes: Sequence[str] = ()) -> list[JobSpec]:
    """The specs that ``file`` asks for, each with a name, with ``changes`` made in each.

    ``-`` is standard input. Raises ``BadFile``, which lists everything that is wrong, with its
    place.
    """
    data = read(file, places.data_set())
    if isinstance(data, list):
        data = {"dataset": data}
    if not isinstance(data, dict) or not data.keys() & {"dataset", "spec", "specs"}:
        raise BadFile(f"{file}: {_FORMATS}")
    sweep = _sweep(file, data)
    entries = _research(data) if "dataset" in data else _ours(file, data)
    specs: list[JobSpec] = []
    wrong: list[str] = []
    for place, given, seeds in entries:
        for point in sweeps.points(sweep):
            entry = _copy(given)
            try:
                for change in changes:
                    apply(entry, change)
                finish(entry, folder(file))
                sweeps.put(entry, point)
                specs += _repeated(JobSpec.model_validate(entry), seeds, sweeps.described(point))
            except ValidationError as error:
                wrong += [f"{place}.{fault}" for fault in faults(error)]
            except (BadFile, sweeps.NoSuchPlace) as error:
                wrong.append(f"{place}.{error}")
    if wrong:
        raise BadFile("\n".join([f"{file} is no data set:", *wrong]))
    if not specs:
        raise BadFile(f"{file}: holds no jobs; {_FORMATS}")
    return specs


def _sweep(file: str, data: dict[str, Any]) -> dict[str, list[Any]]:
    """Takes the sweep out of the file; empty if there is none."""
    if "sweep" not in data:
        return {}
    if "specs" in data:
        raise BadFile("sweep: can't be used together with specs; write one spec")
    try:
        found = BatchRequest.model_validate({"sweep": data.pop("sweep")}).sweep or {}
    except ValidationError as error:
        raise BadFile("\n".join([f"{file} is no data set:", *faults(error)])) from error
    if (jobs := sweeps.count(found)) > MAX_BATCH_JOBS:
        raise BadFile(f"sweep: makes {jobs:,} jobs; ask for at most {MAX_BATCH_JOBS:,}")
    return found


#: An entry's place in the file, its fields as a job has them, and its seeds or how many there are.
Entry = tuple[str, dict[str, Any], list[int] | int]


def _research(data: dict[str, Any]) -> Iterator[Entry]:
    """Entries of the research script's format. Fields beside ``dataset`` apply to all entries."""
    shared = {key: value for key, value in data.items() if key != "dataset"}
    if not isinstance(data["dataset"], list) or not data["dataset"]:
        raise BadFile("dataset: must be a list of entries with name, prompt and qa_pairs")
    for index, given in enumerate(data["dataset"]):
        place = f"dataset.{index}"
        if not isinstance(given, dict):
            raise BadFile(f"{place}: must be an entry with name, prompt and qa_pairs")
        # The research script uses no postfix unless one is written.
        entry = {"question_postfix": "", **_copy(shared), **given}
        repeats = entry.pop("opt_repeat", 1)
        if not isinstance(repeats, int) or repeats < 1:
            raise BadFile(f"{place}.opt_repeat: must be a number of repeats, 1 or more")
        if "qa_pairs" in entry:
            pairs = entry.pop("qa_pairs") or []
            if not isinstance(pairs, list):
                raise BadFile(f"{place}.qa_pairs: must be a list of questions with answers")
            entry["questions"] = [
                _question(pair, f"{place}.qa_pairs.{number}") for number, pair in enumerate(pairs)
            ]
        yield place, entry, repeats


def _question(pair: Any, place: str) -> dict[str, Any]:
    if not isinstance(pair, dict):
        raise BadFile(f"{place}: must be an object with a question and an answer")
    question = dict(pair)
    mode = question.pop("overlay_mode", None)
    images = question.pop("ref_images", None) or []
    images = images if isinstance(images, list) else [images]
    if len(images) > 1:
        raise BadFile(f"{place}.ref_images: has {len(images)}; draw them into one image")
    if images:
        question["visual_prompt"] = {"image": images[0]} | ({"mode": mode} if mode else {})
    return question


def _ours(file: str, data: dict[str, Any]) -> Iterator[Entry]:
    """Entries of a ``BatchRequest``, whose specs are checked later."""
    form = {key: value for key, value in data.items() if key not in ("spec", "specs")}
    try:
        asked = BatchRequest.model_validate(form)
    except ValidationError as error:
        raise BadFile("\n".join([f"{file} is no data set:", *faults(error)])) from error
    if "specs" in data:
        if not isinstance(data["specs"], list) or data.keys() - {"specs", "name"}:
            raise BadFile(f"{file}: specs must be a list of jobs; beside it only name is allowed")
        for index, spec in enumerate(data["specs"]):
            yield f"specs.{index}", _fields(spec, f"specs.{index}"), 1
        return
    if asked.seeds and asked.repeats:
        raise BadFile("repeats: can't be used together with seeds; leave one of them out")
    prompts: list[str | None] = [*asked.prompts] if asked.prompts else [None]
    for prompt in prompts:
        spec = _fields(data["spec"], "spec")
        if prompt is not None:
            if spec.keys() & {"prompt", "prompts"}:
                raise BadFile(
                    "prompts: can't be used together with the spec's own prompt; leave "
                    "one of them out"
                )
            name = f"{spec['name']}, {prompt}" if "name" in spec else prompt
            spec |= {"prompt": prompt, "name": name[:180]}
        yield "spec", spec, asked.seeds or asked.repeats or 1


def _fields(spec: Any, place: str) -> dict[str, Any]:
    if not isinstance(spec, dict):
        raise BadFile(f"{place}: must hold the fields of a job, like prompt and questions")
    copied: dict[str, Any] = _copy(spec)
    return copied


def _copy(data: Any) -> Any:
    """Entries share values; a change of one entry must not reach another."""
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def _repeated(spec: JobSpec, seeds: list[int] | int, swept: str) -> Iterator[JobSpec]:
    """The spec with each seed, and the values of a sweep in its name. If ``seeds`` is a number,
    there are as many seeds, counted up from the spec's own."""
    name = spec.name or (spec.prompt or (spec.prompts or ["job"])[0])[:180]
    name = f"{name[:80]}, {swept}" if swept else name
    if isinstance(seeds, int):
        if seeds == 1:
            yield spec.model_copy(update={"name": name})
            return
        own = spec.optimizer.seed
        first = OptimizerSettings().seed if own is None else own
        seeds = [(first + more) % 2**32 for more in range(seeds)]
    for seed in seeds:
        # Validated again, so that the fields that were set count as set.
        fields = spec.model_dump(exclude_unset=True)
        fields["optimizer"] = {**fields.get("optimizer", {}), "seed": seed}
        numbered = f"{name}, seed {seed}" if len(seeds) > 1 else name
        yield JobSpec.model_validate(fields | {"name": numbered})
