"""Writes docs/QUALITY.md and its charts from the answers of all runs; every figure in it comes from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import quality_charts
from vila_engine.bench.machine import describe_machine
from vila_engine.evaluate import Item
from vila_engine.evaluate.compare import Rows, mcnemar, verdicts
from vila_engine.evaluate.greedy import Difference
from vila_engine.evaluate.metrics import bootstrap
from vila_engine.evaluate.report import REPORT_ONLY, Line, summarise

LABELS = {
    "fp32": "PyTorch, fp32",
    "f32": "engine, f32",
    "f16": "engine, f16",
    "int8": "engine, int8",
    "int4": "engine, int4",
}
ROUNDING = 1e-3
"""Logits. Both programs sum in fp32 in different orders; a margin above this is not a matter of rounding."""

HEAD = """# Quality of the demo model

What the weight formats cost, measured: the bundled model in PyTorch (fp32) and on the engine with weights in f32, f16,
int8 and int4, on {count:,} held-out questions. Written by one command, which goes on where it was after a kill:

```
python tools/quality_report.py --work quality{limit}
```

`int4` is what `vila-engine convert` makes by default and what is bundled: language model in int4 (rounded to nearest,
128 columns a scale), vocabulary projection, tower and projector in int8. PyTorch is the model of `train/models.py`; it
shares nothing with the engine but the decoding of files. [TRAINING.md](TRAINING.md) says what each split holds back.
"""

PHOTOGRAPHS = """## Photographs

The model was trained on drawings. This is what it makes of cut-out photographs of things that it knows as drawings (Tux
Paint's stamps, GPL-2, not part of this repository); reported, not counted in any total. A keyword is another name of
the thing, some of them wide.

"""

METHOD = """## How it is measured

* **Questions.** {per_split} of each task and split, {vqa} of easy-VQA's official test{photographs}; made
  from a seed, the same in every run. Digest of `questions.jsonl`: `{questions}`.
* **Answers.** Greedy, at most 48 tokens, prompts of `vicuna_v1_nosys`. Exact match drops case, articles and
  punctuation, except in `read`, where only case is dropped; in `name` only the name itself counts, no synonym.
* **NLL** is that of the gold answer, its end included, per token. **KL** is KL(fp32 || run) of the distributions on the
  same tokens, mean of the answers' means. Both in nats. **Flips** are answers whose text is not the one of fp32.
* **Intervals** are of 95 %: Wilson for shares, bootstrap (2,000 draws of questions) for means and paired differences.
  They say how far other questions of the same kind would move a figure, not how far another training would.
* **McNemar** is the exact two-sided test of the changed verdicts against fp32; no correction for several tests.
* **Total** is all questions but the photographs, so tasks and splits weigh as they are numbered, not as they matter.
* **Versions.** Engine {version} with {isa} on one thread, PyTorch {torch}, {cpu}. Digest of the int4 weights:
  `{weights}`, {bundled}.
"""


@dataclass(frozen=True)
class Facts:
    """All that the page tells.

    Attributes:
        items: The questions.
        runs: Answers by run and question; the first run is the reference.
        differences: Greedy answers of the reference and the engine at f32 that differ.
        weight_bytes: Size of the weight file by run.
        weights_digest: Of the int4 model.
        questions_digest: Of the frozen set.
        is_bundled: Whether the int4 model is the one in the package.
        limit: The most questions of a task and split that were asked; None for all of the frozen set.
    """

    items: Sequence[Item]
    runs: dict[str, Rows]
    differences: Sequence[Difference]
    weight_bytes: dict[str, int]
    weights_digest: str
    questions_digest: str
    is_bundled: bool
    limit: int | None = None


def write(facts: Facts, folder: Path) -> None:
    """Writes QUALITY.md, quality-tasks.png and quality-formats.png into a folder."""
    lines = {name: summarise(list(rows.values())) for name, rows in facts.runs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    quality_charts.draw_tasks(lines, LABELS, folder / "quality-tasks.png")
    quality_charts.draw_formats(lines, LABELS, folder / "quality-formats.png")
    parts = [
        HEAD.format(count=len(facts.items), limit="" if facts.limit is None else f" --limit {facts.limit}"),
        "## Total\n",
        total_table(facts, lines),
        "\n![What the formats cost](quality-formats.png)\n",
        greedy_section(facts),
        photograph_section(lines),
        "## Exact match by task and split\n",
        "In percent, with the interval; `n` questions each.\n",
        line_table(lines, lambda line: interval((line.score, line.low, line.high), ".1f", 100)),
        "\n![Exact match by task and split](quality-tasks.png)\n",
        "## NLL of the gold answers\n",
        "Nats per token, with the interval.\n",
        line_table(lines, lambda line: interval(line.nll, ".3f")),
        "\n## Divergence from fp32\n",
        "KL in nats per token, with the interval.\n",
        line_table(lines, lambda line: interval(line.kl, ".1e"), of_engine=True),
        "\n## Answers that flipped\n",
        "Percent of the answers whose text is not the one of fp32, with the interval.\n",
        line_table(lines, lambda line: interval(line.flips, ".1f", 100), of_engine=True),
        "",
        method(facts),
    ]
    (folder / "QUALITY.md").write_text("\n".join(parts), encoding="utf-8")


def interval(value: tuple[float, float, float] | None, form: str, scale: float = 1.0) -> str:
    """A figure with its interval, in a format of Python: `42.0 (40.1 to 43.9)`."""
    if value is None:
        return "-"
    middle, low, high = (format(scale * number + 0.0, form) for number in value)  # + 0: no sign on nothing
    return f"{middle} ({low} to {high})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def line_table(lines: dict[str, list[Line]], cell: Callable[[Line], str], of_engine: bool = False) -> str:
    """One row per task and split, one column per run; `of_engine` leaves the reference out."""
    names = list(lines)[1:] if of_engine else list(lines)
    rows = [["task", "split", "n", *names]]
    for index, line in enumerate(lines[names[0]]):
        rows.append([line.task, line.split, str(line.count), *(cell(lines[name][index]) for name in names)])
    return table(rows)


def total_table(facts: Facts, lines: dict[str, list[Line]]) -> str:
    """One row per run."""
    first = next(iter(facts.runs))
    head = ["run", "MB", "exact match, %", "points lost against fp32", "wrong now / right now", "p (McNemar)"]
    rows = [[*head, "NLL", "KL", "flips, %"]]
    for name, answers in facts.runs.items():
        line = lines[name][-1]
        row = [LABELS[name], f"{facts.weight_bytes[name] / 1e6:.1f}" if name in facts.weight_bytes else "-"]
        row.append(interval((line.score, line.low, line.high), ".1f", 100))
        row += ["-", "-", "-"] if name == first else paired(facts.runs[first], answers)
        row += [interval(line.nll, ".4f"), interval(line.kl, ".1e"), interval(line.flips, ".2f", 100)]
        rows.append(row)
    return table(rows)


def paired(one: Rows, other: Rows) -> list[str]:
    """Points lost with their interval, the verdicts that changed either way, and the test of them."""
    before, after = (np.array(side, int) for side in verdicts(one, other))
    lost = (before - after).astype(float).tolist()
    share = sum(lost) / len(lost)
    changed = f"{int(((before - after) > 0).sum())} / {int(((before - after) < 0).sum())}"
    return [
        interval((share, *bootstrap(lost)), ".2f", 100),
        changed,
        f"{mcnemar(before.astype(bool).tolist(), after.astype(bool).tolist()):.3f}",
    ]


def greedy_section(facts: Facts) -> str:
    """How many greedy answers of PyTorch and the engine at f32 differ, and each of them."""
    count, total = len(facts.differences), len(facts.items)
    text = "## PyTorch and the engine at f32\n\n"
    text += f"{total - count:,} of {total:,} greedy answers have the same tokens."
    if not count:
        return text + "\n"
    large = sum(difference.margin > ROUNDING for difference in facts.differences)
    text += (
        f" The others, with PyTorch's logit for its own token less that for the engine's, where they first differ; "
        f"{large} of these margins are above {ROUNDING}, which is more than the order of sums in fp32 accounts for.\n\n"
    )
    rows = [["question", "asks", "gold", "PyTorch", "engine, f32", "token", "margin"]]
    for found in facts.differences:
        asked = " ".join(found.item.question.split())
        cells = [f"`{found.item.id}`", asked, found.item.answer, *found.texts, str(found.place + 1)]
        rows.append([*(cell.replace("|", "\\|") for cell in cells), f"{found.margin:.1e}"])
    return text + table(rows) + "\n"


def photograph_section(lines: dict[str, list[Line]]) -> str:
    """What the model makes of photographs, or nothing if they were left out."""
    rows = [["run", "n", "exact match, %", "keyword match, %"]]
    for name, own in lines.items():
        for line in own:
            if line.split in REPORT_ONLY:
                extra = "-" if line.extra is None else f"{100 * line.extra:.1f}"
                score = interval((line.score, line.low, line.high), ".1f", 100)
                rows.append([LABELS[name], str(line.count), score, extra])
    if len(rows) == 1:
        return ""
    return PHOTOGRAPHS + table(rows) + "\n"


def method(facts: Facts) -> str:
    """The closing section."""
    import torch

    tally: dict[tuple[str, str], int] = {}
    for item in facts.items:
        tally[item.task, item.split] = tally.get((item.task, item.split), 0) + 1
    machine = describe_machine()
    photographs = sum(count for (_, split), count in tally.items() if split in REPORT_ONLY)
    vqa = sum(count for (task, _), count in tally.items() if task == "easy-vqa")
    stamps = f", and {photographs} photographs whose captions are names that the model knows" if photographs else ""
    return METHOD.format(
        per_split=max(n for (task, split), n in tally.items() if task != "easy-vqa" and split not in REPORT_ONLY),
        vqa=vqa,
        photographs=stamps,
        questions=facts.questions_digest,
        weights=facts.weights_digest,
        bundled="byte for byte the bundled ones" if facts.is_bundled else "not the bundled ones",
        version=machine["version"],
        isa=machine["isa"],
        torch=torch.__version__,
        cpu=machine["cpu"],
    )
