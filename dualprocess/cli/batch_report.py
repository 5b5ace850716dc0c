"""The report of a batch: one HTML file beside the jobs' folders, which opens without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from dualprocess import printable
from dualprocess.cli import trade_off
from dualprocess.cli.outcomes import Outcome
from dualprocess.schemas import Score, Scores

#: The number of seeds that are shown of each job; all of them are in its folder.
_SEEDS_SHOWN = 4

#: Each prompt, with its questions, has its own.
_MOST_PLOTS = 20

#: Pictures and files have no order to sort by.
_UNSORTED = ("base", "LoRA", "files")
_WORDS = ("name", "prompt", "questions", "status")

#: The numbers of a job's scores, by the titles of their columns.
_NUMBERS: Mapping[str, Callable[[Scores], float | None]] = {
    "score base": lambda scores: _probability(scores.base),
    "score LoRA": lambda scores: _probability(scores.lora),
    "drift": lambda scores: scores.drift,
    "diversity": lambda scores: scores.diversity,
}
#: More of them, where any job has a judge.
_JUDGED: Mapping[str, Callable[[Scores], float | None]] = {
    "judge": lambda scores: _probability(scores.judge.lora if scores.judge else None),
    "gap": lambda scores: scores.judge.gap if scores.judge else None,
}

_JUDGE_WORDS = """
Judge is the judge's score with the LoRA. Gap is the teacher's score minus the judge's: if it is far
above 0, the LoRA may only have fooled the teacher."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1c1c1c; background: #fff; }
h1 { font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { position: sticky; top: 0; background: #f6f6f6; }
th button { font: inherit; font-weight: 600; background: none; border: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.number { font-variant-numeric: tabular-nums; }
td.pictures { min-width: 136px; }
img { width: 64px; height: 64px; object-fit: contain; }
ul { margin: 0; padding-left: 1.1rem; }
.failed, .cancelled { color: #b00020; }
.warning, .error, .early { max-width: 30rem; }
.unbeaten { font-size: .85em; color: #2f6f3e; }
figure { margin: 0 0 1.5rem; max-width: 640px; }
svg { display: block; width: 100%; font-size: 12px; }
svg text { fill: currentColor; } .grid { stroke: #8884; }
.mark { fill: none; stroke: currentColor; } .best { fill: #bd4019; stroke: #bd4019; }
.warning { color: #8a5a00; }
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #161616; } th { background: #242424; color: #eee; }
  th button { color: inherit; } td, th { border-color: #3a3a3a; } a { color: #8ab4f8; }
  .unbeaten { color: #8fd19e; }
  .failed, .cancelled { color: #ff8a80; } .warning { color: #ffcc80; }
}
"""

_BEST = '<div class="unbeaten">unbeaten: score against drift</div>'

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const th = button.parentElement, at = th.cellIndex, body = document.querySelector("tbody");
    const up = th.getAttribute("aria-sort") !== "ascending";
    for (const other of th.parentElement.cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[at].dataset.sort ?? row.cells[at].textContent;
    const order = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
    const number = (a, b) => (Number(key(a)) - Number(key(b)));
    const compare = th.dataset.kind === "number" ? number : order;
    const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b));
    body.append(...rows);
  });
}
"""


def html(found: Sequence[Outcome], out: Path) -> str:
    """The report of these jobs, to be written into ``out``."""
    is_judged = any(outcome.spec.judge for outcome in found)
    numbers = {**_NUMBERS, **_JUDGED} if is_judged else _NUMBERS
    columns = ("name", "prompt", "questions", "base", "LoRA", *numbers, "status", "files")
    heads = "".join(map(_head, columns))
    groups = trade_off.places(found)
    best = {id(one.outcome) for group in groups for one in trade_off.unbeaten(group)}
    rows = "\n".join(
        _row(outcome, out, numbers.values(), is_best=id(outcome) in best) for outcome in found
    )
    plots = "\n".join(trade_off.plot(group, _text) for group in groups[:_MOST_PLOTS])
    title = _text(f"{out.resolve().name}: {len(found)} jobs")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>A score is the probability of the right answers (VQAScore), without the LoRA and with it.
Drift is how far images with the LoRA are from the base model's images of the same seeds: 0 is the
same image, about 1 a different one. Diversity is how far they are from each other, compared with
the base model: below 1 they have become more alike.{_JUDGE_WORDS if is_judged else ""}</p>
{plots}
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _text(text: str) -> str:
    """A text of others, without markup and invisible characters."""
    return escape(printable.lines(text))


def _head(column: str) -> str:
    if column in _UNSORTED:
        return f'<th scope="col">{column}</th>'
    kind = "text" if column in _WORDS else "number"
    return f'<th scope="col" data-kind="{kind}"><button type="button">{column}</button></th>'


def _row(
    outcome: Outcome,
    out: Path,
    numbers: Iterable[Callable[[Scores], float | None]],
    *,
    is_best: bool,
) -> str:
    spec, job = outcome.spec, outcome.job
    status = str(job.status) if job else "not queued"
    prompts = spec.prompts or [spec.prompt or ""]
    scores = job.scores if job else Scores()
    cells = (
        f"<td>{_text(spec.name or '')}{_BEST if is_best else ''}</td>",
        f"<td>{'<br>'.join(_text(prompt) for prompt in prompts)}</td>",
        f"<td><ul>{''.join(_questions(outcome, scores))}</ul></td>",
        f'<td class="pictures">{"".join(_pictures(outcome, out, "base"))}</td>',
        f'<td class="pictures">{"".join(_pictures(outcome, out, "lora"))}</td>',
        *(_number(number(scores)) for number in numbers),
        f'<td class="{_text(status)}">{_text(status)}{"".join(_remarks(outcome))}</td>',
        f"<td>{'<br>'.join(_files(outcome, out))}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _remarks(outcome: Outcome) -> Iterator[str]:
    """What the job's owner should know about it."""
    job = outcome.job
    if outcome.ended_early:
        yield f'<div class="early">{_text(outcome.ended_early)}</div>'
    for warning in job.warnings if job else []:
        yield f'<div class="warning">warning: {_text(warning)}</div>'
    if job and job.error:
        yield f'<div class="error">{_text(job.error)}</div>'


def _number(value: float | None) -> str:
    if value is None:
        # Sorted below every number.
        return '<td class="number" data-sort="-Infinity">–</td>'
    return f'<td class="number" data-sort="{value!r}">{value:.3f}</td>'


def _probability(score: Score | None) -> float | None:
    return None if score is None else score.probability.geometric_mean


def _questions(outcome: Outcome, scores: Scores) -> Iterator[str]:
    for index, question in enumerate(outcome.spec.questions):
        both = [score.questions[index] for score in (scores.base, scores.lora) if score]
        shown = " → ".join(f"{one.probability.geometric_mean:.3f}" for one in both)
        asked = f"{_text(question.question)} {_text(question.answer)}"
        if question.weight != 1:
            asked += f" (weight {question.weight:g})"
        yield f"<li>{asked}{f': {shown}' if shown else ''}</li>"


def _pictures(outcome: Outcome, out: Path, whose: str) -> Iterator[str]:
    names = sorted(
        (artifact.name for artifact in outcome.kept() if artifact.name.startswith(f"{whose}-")),
        key=lambda name: (len(name), name),
    )
    for name in names[:_SEEDS_SHOWN]:
        at = _address(outcome, out, name)
        described = _text(f"{outcome.spec.name}: {name}")
        yield f'<a href="{at}"><img src="{at}" alt="{described}" loading="lazy"></a>'


def _files(outcome: Outcome, out: Path) -> Iterator[str]:
    for artifact in outcome.kept():
        if not artifact.name.startswith(("base-", "lora-")):
            yield f'<a href="{_address(outcome, out, artifact.name)}">{_text(artifact.name)}</a>'


def _address(outcome: Outcome, out: Path, name: str) -> str:
    return quote(f"{outcome.folder.relative_to(out).as_posix()}/{name}")
