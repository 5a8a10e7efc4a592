"""python -m examples.trilemma [train|evaluate|report …] [--quick] [--full] [--data DIR] [--out DIR] [--doc FILE]"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from examples.studies.page import fill, page
from examples.trilemma.plan import digits, fashion_mnist
from examples.trilemma.report import write_report
from examples.trilemma.study import Study

_PHASES = ("train", "evaluate", "report")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the phases asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m examples.trilemma", description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(_PHASES)}; all where none is given")
    parser.add_argument("--quick", action="store_true", help="one seed, half an hour in all")
    parser.add_argument("--full", action="store_true", help="Fashion-MNIST instead of digits")
    parser.add_argument("--data", help="folder with the IDX files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, help="where the study is kept; runs/trilemma…")
    parser.add_argument("--doc", type=page, help="a page to put the report into, pictures beside it")
    given = parser.parse_args(arguments)
    if unknown := set(given.phases) - set(_PHASES):
        parser.error(f"expected phases of {', '.join(_PHASES)}, got {', '.join(sorted(unknown))}")
    plan = fashion_mnist(given.data, quick=given.quick) if given.full else digits(quick=given.quick)
    name = f"trilemma{'-full' if given.full else ''}{'-quick' if given.quick else ''}"
    study = Study(plan, given.out or Path("runs") / name, lambda line: print(line, flush=True))
    phases = given.phases or _PHASES
    if "train" in phases:
        sizes = study.parameters()
        print(", ".join(f"{system} {size:,} parameters" for system, size in sizes.items()))
        print(f"the largest has {max(sizes.values()) / min(sizes.values()):.2f} times the parameters of the smallest")
        study.train()
    if "evaluate" in phases:
        study.evaluate()
    if "report" in phases:
        write_report(study)
        text = (study.out / "study.md").read_text()
        print(text)
        if given.doc is not None:
            _document(given.doc, study, text)


def _document(doc: Path, study: Study, text: str) -> None:
    """Puts the report into a page, with the triangles and the first seed's samples beside it."""
    stem, seed = doc.stem, study.plan.seeds[0]
    pictures = [f"![Quality, coverage and speed of each system]({stem}.svg)"]
    shutil.copy(study.out / "trilemma.svg", doc.with_suffix(".svg"))
    for row in study.plan.rows:
        shutil.copy(study.out / "samples" / f"{row.name}-{seed}.png", doc.with_name(f"{stem}-{row.name}.png"))
    titles, images = zip(*((row.title, f"![]({stem}-{row.name}.png)") for row in study.plan.rows))
    table = [f"| {' | '.join(titles)} |", f"{'|---' * len(titles)}|", f"| {' | '.join(images)} |"]
    fill(doc, "\n".join([text, *pictures, "", *table, ""]))


if __name__ == "__main__":
    main()
