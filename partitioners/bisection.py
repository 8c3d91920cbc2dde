"""Hypergraph partitioning by recursive bisection, in whole-array NumPy.

The vertices are the ids to place; the nets are the ids of the other side, each the set of the
vertices that it shares a rating with; a rating is a pin. How many blocks a net touches is how many
blocks need its row, so the sum over all nets, the connectivity, is what a half-step moves
(Catalyurek and Aykanat, 1999).

All parts of a level are cut at once, each pass costing time in proportion to the pins. A part is
first ordered by a random walk from vertex to net to vertex, whose slowest mode separates what hangs
together least (Zhou, Huang and Schoelkopf, 2006), and cut where its load is halved. Then vertices
change sides by what they gain, a net's gain fading with the pins that it has on a side (Kabiljo et
al., 2017).

References
----------
U. V. Catalyurek and C. Aykanat, "Hypergraph-partitioning-based decomposition for parallel
sparse-matrix vector multiplication", IEEE Transactions on Parallel and Distributed Systems 10(7),
1999.

D. Zhou, J. Huang and B. Schoelkopf, "Learning with hypergraphs: clustering, classification, and
embedding", NIPS 2006.

I. Kabiljo, B. Karrer, M. Pundir, S. Pupyrev and A. Shalita, "Social Hash Partitioner: a scalable
distributed hypergraph partitioner", PVLDB 10(11), 2017.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["recursive_bisection"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Steps of the walk, and rounds of changing sides, on every level.
WALKS, ROUNDS = 8, 8
#: A net's pull to the side where it has 0, 1, 2, ... other pins, were it alone on the other: every
#: pin leaves half of it (p = 1/2 in Kabiljo et al.).
FADED = 0.5 ** np.arange(64)
#: Of the vertices that would change sides, those that do: all at once, neighbours only swap.
SHARE = 0.5
#: A round that moves fewer vertices than this is the last.
FEWEST = 0.001


def recursive_bisection(
    vertices: Ints,
    nets: Ints,
    loads: Floats,
    num_blocks: int,
    *,
    tolerance: float,
    seed: int,
) -> Ints:
    """Place vertices in blocks, so that nets touch few of them.

    Parameters
    ----------
    vertices, nets : ndarray of int64, shape (pins,)
        Ascending by vertex, from 0 on and without gaps.
    loads : ndarray of float64, shape (n,)
        What a vertex weighs.
    num_blocks : int
    tolerance : float
        How far the fullest block may exceed the mean load, as a fraction of it.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    random = np.random.default_rng(seed)
    first = np.zeros(len(loads), dtype=np.int64)  # A part is blocks first to first + count,
    count = np.full(len(loads), num_blocks, dtype=np.int64)  # and holds whoever has that first.
    levels = max(1, int(np.ceil(np.log2(num_blocks))))
    slack = (1 + tolerance) ** (1 / levels) - 1
    groups = nets  # each net's share in each part
    for _ in range(levels):
        if count.max() == 1:
            break
        level = _Level(vertices, groups, loads, first, count, slack)
        right = level.split(random)
        groups = _renumbered(2 * groups + right[vertices])
        left = (count + 1) // 2
        first, count = first + right * left, np.where(right > 0, count - left, left)
    return _relieved(first, vertices, nets, loads, num_blocks, tolerance)


class _Level:
    """All parts of one level, to be cut in two."""

    def __init__(
        self,
        vertices: Ints,
        groups: Ints,
        loads: Floats,
        first: Ints,
        count: Ints,
        slack: float,
    ) -> None:
        self.vertices, self.groups, self.loads = vertices, groups, loads
        self.starts = np.flatnonzero(np.diff(vertices, prepend=-1))
        self.degrees = np.diff(self.starts, append=len(vertices)).astype(np.float64)
        self.pins = np.bincount(groups)
        self.count, self.slack = count, slack
        self.part = np.unique(first, return_inverse=True)[1]
        self.total = np.bincount(self.part, loads)

    def split(self, random: np.random.Generator) -> Ints:
        """Which vertices go to the right; 1 or 0."""
        right = self.cut(self.walk(random))
        for _ in range(ROUNDS):
            changes = self.cut(self.gains(right)) != right
            changes &= random.random(len(right)) < SHARE
            right = right ^ changes
            if changes.sum() < FEWEST * len(right):
                break
        # Half of what wants to move has moved: the loads are level once all has.
        return self.cut(self.gains(right) + 0.01 * right)

    def walk(self, random: np.random.Generator) -> Floats:
        """The slowest mode but one of the walk within each part, more or less."""
        place = random.normal(size=len(self.loads))
        for _ in range(WALKS):
            place = place - (np.bincount(self.part, self.loads * place) / self.total)[self.part]
            size = np.sqrt(np.bincount(self.part, self.loads * place**2) / self.total)
            place /= np.maximum(size, 1e-300)[self.part]
            place = self.mean_of_nets(self.of_vertices(place)) / self.degrees
        return place

    def of_vertices(self, values: Floats) -> Floats:
        """The mean of each net's vertices, within their part."""
        means: Floats = np.bincount(self.groups, values[self.vertices]) / self.pins
        return means

    def mean_of_nets(self, values: Floats) -> Floats:
        """The sum over each vertex's nets."""
        sums: Floats = np.add.reduceat(values[self.groups], self.starts)
        return sums

    def gains(self, right: Ints) -> Floats:
        """How much rather each vertex is on the right than on the left."""
        own = right[self.vertices]
        on_right = np.bincount(self.groups, own, minlength=len(self.pins)).astype(np.int64)
        on_left = self.pins - on_right
        # The pin itself does not count in its net's pull on it.
        pulls = np.empty((len(self.pins), 2))
        pulls[:, 0] = _faded(on_left - 1) - _faded(on_right)
        pulls[:, 1] = _faded(on_left) - _faded(on_right - 1)
        pull = pulls.ravel()[2 * self.groups + own]
        gains: Floats = np.add.reduceat(pull, self.starts) / self.degrees
        return gains

    def cut(self, order_by: Floats) -> Ints:
        """Cut every part where its load is split as its blocks are; 1 for what is right of it.

        Within the slack, at the widest gap: what is alike stays together.
        """
        order = np.lexsort((order_by, self.part))
        part, values = self.part[order], order_by[order]
        load = np.cumsum(self.loads[order])
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        right = np.zeros(len(order), dtype=np.int64)
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            blocks = int(self.count[order[start]])
            if blocks == 1:
                continue
            before = load[start - 1] if start else 0.0
            share = (blocks + 1) // 2 / blocks
            give = self.slack * min(share, 1 - share)
            marks = before + (load[stop - 1] - before) * (share + np.array([-give, 0.0, give]))
            low, middle, high = np.searchsorted(load[start:stop], marks) + start
            high = min(high, stop - 2)
            if low < high:
                gaps = np.diff(values[low : high + 2])
                middle = low + int(np.argmax(gaps))
            right[order[middle + 1 : stop]] = 1
        return right


def _faded(others: Ints) -> Floats:
    """What is left of a net's pull, by how many other pins it has on that side."""
    faded: Floats = FADED.take(others, mode="clip").astype(np.float64, copy=False)
    return faded


def _renumbered(numbers: Ints) -> Ints:
    """Numbers without gaps, in the same order."""
    present = np.zeros(int(numbers.max()) + 1, dtype=bool)
    present[numbers] = True
    renumbered: Ints = (np.cumsum(present) - 1)[numbers]
    return renumbered


def _relieved(
    blocks: Ints, vertices: Ints, nets: Ints, loads: Floats, num_blocks: int, tolerance: float
) -> Ints:
    """Move vertices out of blocks that are too full, those first that hang there least."""
    blocks = blocks.copy()
    held = np.bincount(blocks, loads, minlength=num_blocks)
    most = (1 + tolerance) * held.mean()
    stuck = np.zeros(num_blocks, dtype=bool)  # with single vertices that are too heavy
    while True:
        block = int(np.where(stuck, 0.0, held).argmax())
        if stuck[block] or held[block] <= most:
            return blocks
        for vertex in _by_attachment(block, blocks, vertices, nets, loads):
            if held[block] <= most:
                break
            lightest = int(held.argmin())
            if held[lightest] + loads[vertex] < held[block]:
                blocks[vertex] = lightest
                held[block] -= loads[vertex]
                held[lightest] += loads[vertex]
        stuck[block] = held[block] > most


def _by_attachment(
    block: int, blocks: Ints, vertices: Ints, nets: Ints, loads: Floats
) -> list[int]:
    """The vertices of a block, those first of which few nets would go on touching it."""
    pins = blocks[vertices] == block
    here = np.bincount(nets[pins], minlength=int(nets.max()) + 1)
    staying = np.bincount(vertices[pins], here[nets[pins]] > 1, minlength=len(loads))
    inside = np.flatnonzero(blocks == block)
    found: list[int] = inside[np.argsort(staying[inside] / loads[inside], kind="stable")].tolist()
    return found
