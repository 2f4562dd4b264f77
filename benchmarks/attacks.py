"""What attacks recover on a task, as Markdown and pictures: the page "What attacks find".

    python benchmarks/attacks.py digits/cnn/class cmu-faces/cnn/class --output attacks.md --pictures docs/pictures
    python benchmarks/attacks.py cmu-faces/vit/class --method gs-lora --method finetune --seeds 6

For each task: what every attack with every budget finds in every row, with the band of oracle halvings and its FLOPs;
the worst attack on each row; the share of oracle halvings that the family limit flags (at most 5 % is the goal); the
time. No unlearning and Retrain are rows of every board. What is missing is trained, unlearned and attacked; all of it
is stored, so a call that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import forgetbench as fb
from forgetbench.reporting.attacks import family_note, recovery_table, worst_table
from forgetbench.reporting.figures.catalog import Picture
from forgetbench.reporting.figures.export import write
from forgetbench.reporting.figures.recovery import recovery
from forgetbench.reporting.table_writer import to_markdown

METHODS = ("finetune", "ssd", "iau", "salun", "scrub", "random-label")
"""Methods whose models are attacked where none is named."""


def report(task: str, methods: list[str], attacks: list[str], seeds: int | None, pictures: Path | None) -> str:
    """The tables of one task as Markdown, and its curves as a picture."""
    config = fb.RunConfig()
    fb.evaluate(methods, task, seeds=seeds, config=config)  # trained and unlearned before the clock starts
    start, spent = time.perf_counter(), os.times()
    found = fb.attack(attacks, methods, task, seeds=seeds, config=config)
    seconds, now = time.perf_counter() - start, os.times()
    processor = sum(now[:4]) - sum(spent[:4])
    rows, bands = found.scores, found.bands
    parts = [f"## {task}\n", to_markdown([recovery_table(task, rows, bands), worst_table(task, rows, bands)])]
    flagged = [f"`{name}` by `{row.worst}`" for name, row in rows.items() if row.recoverable]
    parts.append(f"Recoverable: {', '.join(flagged) or 'none'}. {family_note(bands)}")
    if bands.unfit:
        parts.append(f"Unfit, so that they flag nothing: {', '.join(bands.unfit)}.")
    parts += [f"`{label}` does not apply: {reason}." for label, reason in found.refusals.items()]
    parts += [
        f"`{label}` failed on {next(iter(where))}: {where[next(iter(where))]}"
        for label, where in found.failures.items()
    ]
    parts.append(
        f"Attacks of this call: {seconds:.0f} s, {processor:.0f} s of processor time (what is stored costs none)."
    )
    chart = recovery(rows, bands)
    if pictures is not None and chart is not None:
        name = f"{task}-recovery".replace("/", "-")
        pictures.mkdir(parents=True, exist_ok=True)
        caption = f"{task}: accuracy on what was forgotten over the budget of each attack; bars: retrained models."
        write([Picture(name, chart, caption)], pictures / f"{name}.svg")
        parts.append(f"![{caption}](pictures/{name}.svg)")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", help="names of tasks")
    parser.add_argument("--method", action="append", help=f"default: {', '.join(METHODS)}")
    parser.add_argument("--attack", action="append", help="default: all")
    parser.add_argument("--seeds", type=int, help="default: those of the task; flags need 6")
    parser.add_argument("--output", type=Path, help="a Markdown file; default: standard output")
    parser.add_argument("--pictures", type=Path, help="a folder for the curves over the budget")
    given = parser.parse_args()
    texts = []
    for task in given.task:
        texts.append(report(task, given.method or list(METHODS), given.attack or ["all"], given.seeds, given.pictures))
        if given.output is not None:
            given.output.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    if given.output is None:
        print("\n\n".join(texts))


if __name__ == "__main__":
    main()
