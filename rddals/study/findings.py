"""What the figures of a study come to, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import mean
from typing import Any

from rddals.exchange.choice import readable_bytes
from rddals.study.grid import MLLIB, Combination
from rddals.study.record import PARTS

__all__ = ["findings"]

Run = dict[str, Any]

#: Bytes a second of a network that somebody else uses as well: one gigabit.
NETWORK = 125e6
#: Seconds; less is noise.
WORTH_TELLING = 0.05
#: Of an iteration: by so much two of the same kind may differ.
NOISE = 0.1


def findings(document: dict[str, Any]) -> list[str]:
    """Sentences on a study, computed from its ``study.json`` alone.

    Parameters
    ----------
    document : dict

    Returns
    -------
    list of str
        Those that the study's combinations allow.
    """
    runs = document["runs"]
    ours = [run for run in runs if run["exchange"] != MLLIB]
    if not ours:
        return []
    found = [
        _extremes(ours),
        _prediction(ours, document["compressed"]["shuffle"]),
        _placements(ours),
        _growth(ours, document["placements"]),
        _balance(document["placements"]),
        *_payback(ours),
        _fastest(ours),
        _time(ours),
        _auto(ours),
        _mllib(runs),
    ]
    return [sentence for sentence in found if sentence]


def _bytes(run: Run) -> int:
    return int(run["measured"]["bytes"])


def _seconds(run: Run) -> float:
    return float(run["iteration_seconds"])


def _largest(runs: Sequence[Run]) -> list[Run]:
    """Runs with the most blocks, at the highest rank, that the study has."""
    most = max((run["rank"], run["blocks"]) for run in runs)
    return [run for run in runs if (run["rank"], run["blocks"]) == most]


def _extremes(runs: Sequence[Run]) -> str | None:
    runs = _largest(runs)
    least, most = min(runs, key=_bytes), max(runs, key=_bytes)
    if _bytes(least) == _bytes(most):
        return None
    return (
        f"At rank {least['rank']} in {least['blocks']} blocks, {_how(least)} moves the fewest "
        f"bytes, {readable_bytes(_bytes(least))} an iteration, and {_how(most)} the most, "
        f"{readable_bytes(_bytes(most))}: {_times(_bytes(most), _bytes(least))} as many."
    )


def _prediction(runs: Sequence[Run], compressed: bool) -> str | None:
    shares = [
        _bytes(run) / run["planned"]["most_bytes"]
        for run in runs
        if run["exchange"] == "shuffle" and run["planned"]["most_bytes"]
    ]
    if not shares:
        return None
    if compressed:
        return (
            f"Compressed, the shuffle moved {min(shares):.0%} to {max(shares):.0%} of the bytes "
            "that were planned."
        )
    if min(shares) == max(shares) == 1:
        return f"The shuffle moved what was planned, to the byte, {_in_all(shares)}."
    worst = max(abs(share - 1) for share in shares)
    return f"The shuffle moved what was planned within {worst:.1%} {_in_all(shares)}."


def _in_all(runs: Sequence[Any]) -> str:
    return {1: "in its one run", 2: "in both runs"}.get(len(runs), f"in all {len(runs)} runs")


def _against_hash(runs: Sequence[Run]) -> tuple[Run | None, dict[str, Run]]:
    """The shuffle of hashed ids among the largest runs, and those of other placements."""
    shuffled = {run["partitioner"]: run for run in _largest(runs) if run["exchange"] == "shuffle"}
    return shuffled.pop("hash", None), shuffled


def _placements(runs: Sequence[Run]) -> str | None:
    hashed, others = _against_hash(runs)
    if hashed is None or not others or not _bytes(hashed):
        return None
    changes = [
        f"{name} {_change(_bytes(run) / _bytes(hashed) - 1)}" for name, run in others.items()
    ]
    return (
        f"Compared with hashing, at {hashed['blocks']} blocks, the shuffle's bytes change by "
        f"placement: {', '.join(changes)}."
    )


def _payback(runs: Sequence[Run]) -> list[str]:
    """How many iterations it takes until a placement was worth it, against hashing."""
    hashed, others = _against_hash(runs)
    if hashed is None:
        return []
    told = []
    for name, run in others.items():
        cost = run["placing_seconds"] - hashed["placing_seconds"]
        fewer, faster = _bytes(hashed) - _bytes(run), _seconds(hashed) - _seconds(run)
        if fewer > 0 and cost >= WORTH_TELLING:
            here = _iterations(cost, faster if faster > NOISE * _seconds(hashed) else 0)
            told.append(
                f"Placing by {name} takes {cost:.2f} s more than by hash: paid back by the clock "
                f"{here}, and by the bytes alone, at {NETWORK / 1e6:.0f} MB a second, "
                f"{_iterations(cost, fewer / NETWORK)}."
            )
    return told


def _iterations(cost: float, saved: float) -> str:
    if saved <= 0:
        return "never"
    count = ceil(cost / saved)
    return f"after {count:,} iteration{'s' * (count != 1)}"


def _change(share: float) -> str:
    return f"{share:+.0%}" if abs(share) >= 0.005 else "not at all"


def _growth(runs: Sequence[Run], placements: Sequence[Run]) -> str | None:
    rank = max(run["rank"] for run in runs)
    hashed = {
        run["blocks"]: run
        for run in runs
        if (run["exchange"], run["partitioner"], run["rank"]) == ("shuffle", "hash", rank)
    }
    few, many = min(hashed, default=0), max(hashed, default=0)
    if few == many or not _bytes(hashed[few]):
        return None
    copies = {
        placement["blocks"]: _copies(placement)
        for placement in placements
        if placement["partitioner"] == "hash"
    }
    return (
        f"From {few} to {many} blocks, the shuffle of hashed ids grows "
        f"to {_times(_bytes(hashed[many]), _bytes(hashed[few]))} as many bytes: a row goes to "
        f"{copies[many]:.1f} blocks on average instead of {copies[few]:.1f}."
    )


def _copies(placement: Run) -> float:
    """Blocks that a row goes to, of users' and products' rows together."""
    sides = (placement["users"], placement["products"])
    return float(sum(sum(side["sent"]) for side in sides) / sum(sum(s["ids"]) for s in sides))


def _balance(placements: Sequence[Run]) -> str | None:
    most = max(placement["blocks"] for placement in placements)
    if most == 1:
        return None
    heaviest = {
        placement["partitioner"]: max(
            max(placement[side]["ratings"]) / mean(placement[side]["ratings"])
            for side in ("users", "products")
        )
        for placement in placements
        if placement["blocks"] == most
    }
    listed = ", ".join(f"{excess:.2f} ({name})" for name, excess in heaviest.items())
    return f"The heaviest of {most} blocks has {listed} times the ratings of an average one."


def _fastest(runs: Sequence[Run]) -> str | None:
    runs = _largest(runs)
    if len(runs) == 1:
        return None
    fastest, least = min(runs, key=_seconds), min(runs, key=_bytes)
    told = (
        f"At rank {fastest['rank']} in {fastest['blocks']} blocks, the fastest iteration, "
        f"{_seconds(fastest):.2f} s, is that of {_how(fastest)}"
    )
    if _bytes(fastest) == _bytes(least):
        return f"{told}, which also moves the fewest bytes."
    return f"{told}, which moves {_times(_bytes(fastest), _bytes(least))} the fewest bytes."


def _time(runs: Sequence[Run]) -> str | None:
    totals = {part: sum(run["task_seconds"][part] for run in runs) for part in PARTS}
    whole = sum(totals.values())
    if not whole:
        return None
    shares = ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in totals.items())
    return f"Of the time of an iteration's tasks, over all runs: {shares}."


def _auto(runs: Sequence[Run]) -> str | None:
    """How often what ``exchange="auto"`` takes was the best of what was run beside it."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["partitioner"], run["blocks"], run["rank"]), []).append(run)
    judged = [
        (group, chosen)
        for group in groups.values()
        for chosen in group
        if len(group) > 1 and chosen["exchange"] == chosen["auto"]["exchange"]
    ]
    if not judged:
        return None
    fewest = sum(_bytes(chosen) == min(map(_bytes, group)) for group, chosen in judged)
    return (
        f'exchange="auto" would have taken the exchange with the fewest bytes of those run in '
        f"{fewest} of {len(judged)} cases."
    )


def _mllib(runs: Sequence[Run]) -> str | None:
    theirs = {Combination.of(run): run for run in runs if run["exchange"] == MLLIB}
    pairs = []
    for run in runs:
        if (run["exchange"], run["partitioner"]) == ("shuffle", "hash"):
            peer = theirs.get(Combination(MLLIB, "hash", run["blocks"], run["rank"]))
            if peer is not None and _bytes(run):
                pairs.append((run, peer))
    if not pairs:
        return None
    moved = _range(_bytes(peer) / _bytes(run) for run, peer in pairs)
    took = _range(_seconds(peer) / _seconds(run) for run, peer in pairs)
    return (
        f"MLlib moves {moved} times the bytes of our shuffle with the same placement, and takes "
        f"{took} times its time for an iteration."
    )


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)
    low, high = f"{ordered[0]:.2f}", f"{ordered[-1]:.2f}"
    return low if low == high else f"{low} to {high}"


def _how(run: Run) -> str:
    return f"{run['exchange']} with {run['partitioner']}"


def _times(more: float, fewer: float) -> str:
    if not fewer:
        return "any number of times"
    ratio = more / fewer
    return f"{ratio:.2f} times" if ratio < 10 else f"{ratio:,.0f} times"
