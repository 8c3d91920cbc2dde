"""Hypergraph partitioning by recursive bisection, in NumPy array operations.

The vertices are the ids to place. The nets are the ids of the other side: a net connects the
vertices with which it shares a rating. A rating is a pin. The connectivity of a net is the number
of blocks that it touches, which are the blocks that need its row. The sum of the connectivities is
therefore the number of rows that a half-step moves (Catalyurek and Aykanat, 1999).

All parts of a level are bisected together, and every pass takes time proportional to the pins. The
initial bisection orders the vertices of a part by the slowest mode of a random walk from vertex to
net to vertex, which separates weakly connected vertices (Zhou, Huang and Schoelkopf, 2006), and
cuts at half the weight. Refinement passes then move vertices by gain. A vertex costs less on a side
where its nets have more pins (Kabiljo et al., 2017).

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

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Random-walk steps, and refinement passes, per level.
WALK_STEPS, REFINEMENT_PASSES = 8, 8
#: Cost of a pin on a side where its net has 0, 1, 2, ... other pins: each halves it (p = 1/2 in
#: Kabiljo et al.).
PIN_COSTS = 0.5 ** np.arange(64)
#: Fraction of the proposed moves that a pass makes. If it made all, neighbours would only swap.
MOVE_FRACTION = 0.5
#: Refinement stops after a pass that moves a smaller fraction of the vertices.
MIN_MOVED_FRACTION = 0.001


def recursive_bisection(
    vertices: Ints,
    nets: Ints,
    weights: Floats,
    num_blocks: int,
    *,
    imbalance: float,
    seed: int,
) -> Ints:
    """Return a block of each vertex, such that the sum of connectivities is small.

    `vertices` and `nets` are those of every pin, in ascending order of vertex; vertices are
    numbered from 0 without gaps. `imbalance` is the largest relative excess of a block's weight
    over the mean.
    """
    random = np.random.default_rng(seed)
    # The vertices of a part share the first of its blocks and their number.
    first_block = np.zeros(len(weights), dtype=np.int64)
    part_blocks = np.full(len(weights), num_blocks, dtype=np.int64)
    levels = max(1, int(np.ceil(np.log2(num_blocks))))
    level_imbalance = (1 + imbalance) ** (1 / levels) - 1
    split_nets = nets  # each net, split by part
    for _ in range(levels):
        if part_blocks.max() == 1:
            break
        level = _Level(vertices, split_nets, weights, first_block, part_blocks, level_imbalance)
        side = level.bisect(random)
        split_nets = _renumber(2 * split_nets + side[vertices])
        left_blocks = (part_blocks + 1) // 2
        first_block, part_blocks = (
            first_block + side * left_blocks,
            np.where(side > 0, part_blocks - left_blocks, left_blocks),
        )
    return _rebalance(first_block, vertices, nets, weights, num_blocks, imbalance)


class _Level:
    """Parts of one level, bisected together."""

    def __init__(
        self,
        vertices: Ints,
        nets: Ints,
        weights: Floats,
        first_block: Ints,
        part_blocks: Ints,
        imbalance: float,
    ) -> None:
        self.vertices, self.nets, self.weights = vertices, nets, weights
        self.first_pins = np.flatnonzero(np.diff(vertices, prepend=-1))
        self.degrees = np.diff(self.first_pins, append=len(vertices)).astype(np.float64)
        self.net_sizes = np.bincount(nets)
        self.part_blocks, self.imbalance = part_blocks, imbalance
        self.part = np.unique(first_block, return_inverse=True)[1]
        self.part_weights = np.bincount(self.part, weights)

    def bisect(self, random: np.random.Generator) -> Ints:
        """Return the side of each vertex: 0 for left, 1 for right."""
        side = self.cut(self.walk(random))
        for _ in range(REFINEMENT_PASSES):
            moves = self.cut(self.gains(side)) != side
            moves &= random.random(len(side)) < MOVE_FRACTION
            side = side ^ moves
            if moves.sum() < MIN_MOVED_FRACTION * len(side):
                break
        # A pass makes only some of the moves of a balanced cut, so balance with a full cut.
        return self.cut(self.gains(side) + 0.01 * side)

    def walk(self, random: np.random.Generator) -> Floats:
        """Approximate the slowest nonconstant mode of the random walk within each part."""
        mode = random.normal(size=len(self.weights))
        for _ in range(WALK_STEPS):
            means = np.bincount(self.part, self.weights * mode) / self.part_weights
            mode = mode - means[self.part]
            norms = np.sqrt(np.bincount(self.part, self.weights * mode**2) / self.part_weights)
            mode /= np.maximum(norms, 1e-300)[self.part]
            net_means = np.bincount(self.nets, mode[self.vertices]) / self.net_sizes
            mode = np.add.reduceat(net_means[self.nets], self.first_pins) / self.degrees
        return mode

    def gains(self, side: Ints) -> Floats:
        """Return the gain of each vertex from being on the right instead of the left."""
        pin_sides = side[self.vertices]
        right_pins = np.bincount(self.nets, pin_sides, minlength=len(self.net_sizes)).astype(
            np.int64
        )
        left_pins = self.net_sizes - right_pins
        # A pin is not among its own other pins. Columns: pin on the left, pin on the right.
        net_gains = np.empty((len(self.net_sizes), 2))
        net_gains[:, 0] = _pin_costs(left_pins - 1) - _pin_costs(right_pins)
        net_gains[:, 1] = _pin_costs(left_pins) - _pin_costs(right_pins - 1)
        pin_gains = net_gains.ravel()[2 * self.nets + pin_sides]
        gains: Floats = np.add.reduceat(pin_gains, self.first_pins) / self.degrees
        return gains

    def cut(self, keys: Floats) -> Ints:
        """Order each part by key, and cut it in proportion to the blocks of either side.

        Return the side of each vertex. Within the allowed imbalance, cut at the widest gap between
        keys, which keeps similar vertices together.
        """
        order = np.lexsort((keys, self.part))
        part, values = self.part[order], keys[order]
        cumulated = np.cumsum(self.weights[order])
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        side = np.zeros(len(order), dtype=np.int64)
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            blocks = int(self.part_blocks[order[start]])
            if blocks == 1:
                continue
            base = cumulated[start - 1] if start else 0.0
            left_share = (blocks + 1) // 2 / blocks
            margin = self.imbalance * min(left_share, 1 - left_share)
            targets = base + (cumulated[stop - 1] - base) * (
                left_share + np.array([-margin, 0.0, margin])
            )
            low, middle, high = np.searchsorted(cumulated[start:stop], targets) + start
            high = min(high, stop - 2)
            if low < high:
                gaps = np.diff(values[low : high + 2])
                middle = low + int(np.argmax(gaps))
            side[order[middle + 1 : stop]] = 1
        return side


def _pin_costs(other_pins: Ints) -> Floats:
    """Return the cost of a pin by the number of other pins of its net on that side."""
    costs: Floats = PIN_COSTS.take(other_pins, mode="clip").astype(np.float64, copy=False)
    return costs


def _renumber(numbers: Ints) -> Ints:
    """Renumber without gaps, in the same order."""
    present = np.zeros(int(numbers.max()) + 1, dtype=bool)
    present[numbers] = True
    renumbered: Ints = (np.cumsum(present) - 1)[numbers]
    return renumbered


def _rebalance(
    blocks: Ints, vertices: Ints, nets: Ints, weights: Floats, num_blocks: int, imbalance: float
) -> Ints:
    """Move vertices from overweight blocks to the lightest one, least connected vertices first."""
    blocks = blocks.copy()
    block_weights = np.bincount(blocks, weights, minlength=num_blocks)
    limit = (1 + imbalance) * block_weights.mean()
    stuck = np.zeros(num_blocks, dtype=bool)  # blocks whose vertices are too heavy to move
    while True:
        block = int(np.where(stuck, 0.0, block_weights).argmax())
        if stuck[block] or block_weights[block] <= limit:
            return blocks
        for vertex in _by_connection(block, blocks, vertices, nets, weights):
            if block_weights[block] <= limit:
                break
            lightest = int(block_weights.argmin())
            if block_weights[lightest] + weights[vertex] < block_weights[block]:
                blocks[vertex] = lightest
                block_weights[block] -= weights[vertex]
                block_weights[lightest] += weights[vertex]
        stuck[block] = block_weights[block] > limit


def _by_connection(
    block: int, blocks: Ints, vertices: Ints, nets: Ints, weights: Floats
) -> list[int]:
    """List the vertices of a block, those with the fewest shared nets per weight first."""
    pins = blocks[vertices] == block
    net_pins = np.bincount(nets[pins], minlength=int(nets.max()) + 1)
    shared_nets = np.bincount(vertices[pins], net_pins[nets[pins]] > 1, minlength=len(weights))
    members = np.flatnonzero(blocks == block)
    order = np.argsort(shared_nets[members] / weights[members], kind="stable")
    ordered: list[int] = members[order].tolist()
    return ordered
