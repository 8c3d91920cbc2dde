"""The README's tables, made from what the benchmarks measured.

``python -m bench.tables`` keeps the figures of ``bench/results`` in ``bench/measured``, which is
committed, and writes the tables between the README's marks.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "merged", "tables", "with_tables"]

HERE = Path(__file__).parent
RESULTS, MEASURED, README = HERE / "results", HERE / "measured", HERE.parent / "README.md"
NAMES = ("training", "small")
#: What tells runs of one benchmark apart.
WHAT = ("kind", "data", "blocks", "rank")

Run = dict[str, Any]


def main() -> int:
    """Keep the figures and write the tables; 1 if there is nothing to write from."""
    MEASURED.mkdir(exist_ok=True)
    for name in NAMES:
        source = RESULTS / f"{name}.json"
        if source.exists() and source.stat().st_size:
            target = MEASURED / f"{name}.json"
            kept = _kept(json.loads(source.read_text()))
            if target.exists():
                kept = merged(json.loads(target.read_text()), kept)
            target.write_text(json.dumps(kept, indent=1) + "\n")
    missing = [name for name in NAMES if not (MEASURED / f"{name}.json").exists()]
    if missing:
        sys.stderr.write(f"nothing measured yet: make bench ARGS={missing[0]}\n")
        return 1
    README.write_text(with_tables(README.read_text()))
    return 0


def with_tables(page: str) -> str:
    """A page with the tables of today's figures between its marks."""
    for name, table in tables().items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = mark.sub(lambda found, table=table: found[1] + table + found[2], page)
    return page


def tables() -> dict[str, str]:
    """Every table, by the name of its mark."""
    training, small = (_runs(name) for name in NAMES)
    return {
        "explicit": _explicit([run for run in training if run["kind"] == "explicit"]),
        "implicit": _implicit([run for run in training if run["kind"] == "implicit"]),
        "whole": _whole([run for run in small if "data" in run]),
    }


def _runs(name: str) -> list[Run]:
    runs: list[Run] = json.loads((MEASURED / f"{name}.json").read_text())["runs"]
    return runs


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    """What matters of pytest-benchmark's document."""
    machine = document["machine_info"]
    return {
        "machine": {
            "cpu": machine["cpu"].get("brand_raw"),
            "cores": machine["cpu"].get("count"),
            "python": machine["python_version"],
            **machine.get("versions", {}),
        },
        "runs": [benchmark["extra_info"] for benchmark in document["benchmarks"]],
    }


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured now, and what was before on the same machine and not again."""
    if before["machine"] != now["machine"]:
        return now
    runs = {tuple(run.get(name) for name in WHAT): run for run in before["runs"] + now["runs"]}
    return {"machine": now["machine"], "runs": list(runs.values())}


def _explicit(runs: Sequence[Run]) -> str:
    ratios = ("double", "single", "shuffle double", "shuffle single")
    return _markdown(
        ("rank", "double", "single", "shuffled, double", "shuffled, single", "MLlib"),
        (
            (run["rank"], *(f"{run[f'MLlib/{name}']:.1f}" for name in ratios), _s(run["MLlib s"]))
            for run in runs
        ),
    )


def _implicit(runs: Sequence[Run]) -> str:
    contestants = ("double", "single", "CG", "Cholesky", "MLlib")
    return _markdown(
        ("rank", "double", "single", "implicit, CG", "implicit, Cholesky", "MLlib"),
        ((run["rank"], *(_s(run[f"{name} s"]) for name in contestants)) for run in runs),
    )


def _whole(runs: Sequence[Run]) -> str:
    return _markdown(
        ("ratings", "rank", "rddals", "MLlib", "times faster"),
        (
            (
                run["data"],
                run["rank"],
                _s(run["rddals s"]),
                _s(run["MLlib s"]),
                f"{run['MLlib/rddals']:.1f}",
            )
            for run in runs
        ),
    )


def _s(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
