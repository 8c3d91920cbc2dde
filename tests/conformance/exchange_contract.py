"""Contract tests that every exchange passes: all exchanges deliver the same rows.

Inherit and name your exchange, and pytest runs the whole contract on it::

    from exchange_contract import ExchangeContract, expected, shared_links

    class TestMyExchange(ExchangeContract):
        exchange = "mine"
        shuffles_per_half_step = 1
"""

from __future__ import annotations

import types
import uuid
from abc import ABC

import numpy as np
import pytest

import dense_reference as dense
from partitioners import HashPartitioner
from rddals import ALS, SingularSystemError
from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.blocks.start import id_start, mllib_start
from rddals.exchange import EXCHANGES, BlockResult, HalfStep, OwnRows, bytes_moved
from rddals.rdds.factors import FactorTable
from rddals.rdds.links import build_links
from rddals.rdds.shuffles import with_shuffle_serializer
from rddals.training.start import start_from
from rddals.training.train import sizes_of_links

RANK, LAMBDA, ALPHA, SEED, ITERATIONS = 3, 0.1, 2.0, 11, 2

LONG = pytest.mark.long
PARTITIONERS = ("hash", "range", "balanced", "locality", "function")
#: Placements outside three blocks that are not marked long.
SHORT = {("hash", 1), ("hash", 7), ("function", 7)}
PLACEMENTS = [
    pytest.param(name, blocks, marks=() if blocks == 3 or (name, blocks) in SHORT else LONG)
    for blocks in (1, 3, 7)
    for name in PARTITIONERS
]


def requested_partitioner(name, blocks):
    """Return a partitioner as `ALS.train` takes it."""
    if name != "function":
        return name
    return lambda id_: (id_ * id_ + 1) % blocks


def reference(ratings, alpha=None):
    """Return the factors after two iterations: float64 within half-steps, float32 between."""
    users, products, stars = (np.array(column) for column in zip(*ratings, strict=True))
    user_ids, rows = np.unique(users, return_inverse=True)
    product_ids, columns = np.unique(products, return_inverse=True)
    X = id_start(user_ids.astype(np.int32), rank=RANK, seed=SEED, side=0)
    for _ in range(ITERATIONS):
        Y = dense.half_step(
            columns, rows, stars, X.astype(float), len(product_ids), lambda_=LAMBDA, alpha=alpha
        ).astype(np.float32)
        X = dense.half_step(
            rows, columns, stars, Y.astype(float), len(user_ids), lambda_=LAMBDA, alpha=alpha
        ).astype(np.float32)
    return (user_ids, X), (product_ids, Y)


def assert_factors(model, expected, tolerance=1e-5):
    for factors, (ids, rows) in zip(model.collected_factors(), expected, strict=True):
        np.testing.assert_array_equal(factors.ids, ids)
        np.testing.assert_allclose(factors.rows, rows, rtol=tolerance, atol=tolerance)


def numbered_rows(ids, half_step, width=5):
    """Return rows that are unique to their id and half-step."""
    seeds = np.asarray(ids, dtype=np.int64) * 100 + half_step
    rows = [np.random.default_rng(seed + 2**40).normal(size=width) for seed in seeds]
    return np.array(rows, dtype=np.float32).reshape(len(ids), width)


def numbering_step(half_step, width, log):
    """Return a step that gives numbered rows, reports received rows, and logs every call."""
    rows_of = _picklable_by_value(numbered_rows)

    def step(block, own, source_rows):
        in_block = block.in_block
        (log / f"{half_step}-{uuid.uuid4().hex}").touch()
        received = None if source_rows is None else (in_block.source_ids, source_rows)
        rows = rows_of(in_block.ids, half_step, width)
        return BlockResult(FactorBlock(in_block.ids, rows), received)

    return step


def _picklable_by_value(function):
    """Copy a function so that it pickles by value: workers cannot import this module."""
    copy = types.FunctionType(function.__code__, {"np": np}, function.__name__)
    copy.__defaults__ = function.__defaults__
    copy.__module__ = "__main__"
    return copy


@pytest.fixture(scope="module")
def expected(ratings):
    return reference(ratings), reference(ratings, ALPHA)


@pytest.fixture(scope="module")
def shared_links(_spark, ratings):
    """Links of 4 user and 6 product blocks; blocks of different parity share no rating."""
    alike = [r for r in ratings if r[0] % 2 == r[1] % 2]
    linked = build_links(_spark.parallelize(alike, 2), HashPartitioner(4), HashPartitioner(6))
    yield linked
    linked.release()


class ExchangeContract(ABC):
    """Contract tests of an exchange; inherit and name it."""

    exchange: str
    shuffles_per_half_step: int

    def train(self, sc, ratings, **settings):
        source = sc.parallelize(ratings, 2)
        fixed = dict(seed=SEED, exchange=self.exchange, listeners=(), init="id")
        fixed |= dict(precision="double", lambda_=LAMBDA, iterations=ITERATIONS)
        fixed |= settings
        if "alpha" in settings:
            return ALS.trainImplicit(source, RANK, **fixed)
        return ALS.train(source, RANK, **fixed)

    @pytest.fixture
    def linked(self, shared_links):
        """Links that tests only read."""
        return shared_links

    def run_half_steps(self, linked, log, width=5, half_steps=4):
        """Run half-steps with numbered rows: users, products, users, products."""
        exchange, delivery = EXCHANGES[self.exchange], None
        sides = (linked.users, linked.products)
        for half_step in range(half_steps):
            side, last = half_step % 2, half_step == half_steps - 1
            step = numbering_step(half_step, width, log)
            result = exchange.run_step(
                sides, delivery, HalfStep(side, step, send=not last, keep=last)
            )
            delivery = result.delivery
            yield half_step, sides[side], result

    @pytest.mark.parametrize(("partitioner", "blocks"), PLACEMENTS)
    def test_factors_match_the_reference(self, sc, ratings, expected, partitioner, blocks):
        placed = requested_partitioner(partitioner, blocks)
        model = self.train(
            sc, ratings, blocks=blocks, userPartitioner=placed, productPartitioner=placed
        )
        assert_factors(model, expected[0])

    @pytest.mark.parametrize(
        ("users", "products"),
        [(("hash", 7), ("range", 3)), (("locality", 2), ("balanced", 7))],
        ids=["fewer-products", "fewer-users"],
    )
    def test_unequal_blocks(self, sc, ratings, expected, users, products):
        model = self.train(
            sc,
            ratings,
            userPartitioner=requested_partitioner(*users),
            userBlocks=users[1],
            productPartitioner=requested_partitioner(*products),
            productBlocks=products[1],
        )
        assert_factors(model, expected[0])

    @pytest.mark.parametrize(("user_blocks", "product_blocks"), [(3, 3), (1, 7), (7, 3)])
    def test_implicit_feedback(self, sc, ratings, expected, user_blocks, product_blocks):
        model = self.train(
            sc,
            ratings,
            alpha=ALPHA,
            userBlocks=user_blocks,
            productBlocks=product_blocks,
            productPartitioner="balanced",
        )
        assert_factors(model, expected[1])

    @pytest.mark.parametrize("settings", [{}, {"alpha": ALPHA}], ids=["explicit", "implicit"])
    def test_more_blocks_than_ratings(self, sc, small_matrix, settings):
        few = small_matrix[:3]
        model = self.train(sc, few, blocks=7, **settings)
        assert_factors(model, reference(few, **settings))

    @pytest.mark.parametrize(("user_blocks", "product_blocks"), [(3, 3), (2, 5), (5, 2)])
    def test_predict_all(self, sc, ratings, expected, user_blocks, product_blocks):
        model = self.train(sc, ratings, userBlocks=user_blocks, productBlocks=product_blocks)
        (users, X), (products, Y) = expected[0]
        pairs = [(int(u), int(p)) for u, p in zip(users, products[::-1], strict=False)]
        unknown = [(int(users[0]), 999), (999, int(products[0]))]
        predicted = model.predictAll(sc.parallelize(pairs + pairs[:1] + unknown, 3)).collect()
        scores = X.astype(float) @ Y.astype(float).T
        where = {id_: i for i, id_ in enumerate(users)}, {id_: i for i, id_ in enumerate(products)}
        assert sorted((r.user, r.product) for r in predicted) == sorted(pairs + pairs[:1])
        for rating in predicted:
            score = scores[where[0][rating.user], where[1][rating.product]]
            assert rating.rating == pytest.approx(score, abs=1e-4)

    @pytest.mark.parametrize("partitioner", ["hash", "range"])
    def test_initial_rows_are_mllibs(self, sc, ratings, partitioner):
        """With another placement the rows arrive from other blocks, in any number of pieces."""
        placed = {"userPartitioner": partitioner, "productPartitioner": partitioner}
        model = self.train(sc, ratings, blocks=3, init="mllib", iterations=0, **placed)
        for side, factors in enumerate(model.collected_factors()):
            rows = mllib_start(factors.ids, rank=RANK, seed=SEED, side=side, blocks=3)
            np.testing.assert_array_equal(factors.rows, rows)

    def test_only_the_model_stays_persisted(self, sc, ratings, footprint):
        model = self.train(sc, ratings, userBlocks=3, productBlocks=2)
        left = footprint.remaining()
        assert [kind for kind, _ in left] == ["persisted RDD"] * 2
        model.unpersist()
        assert not footprint.remaining()

    def test_blocks_receive_exactly_the_rows_they_need(self, linked, tmp_path):
        received = 0
        for half_step, links, result in self.run_half_steps(linked, tmp_path):
            assert [report.block for report in result.reports] == list(
                range(links.partitioner.num_blocks)
            )
            for report, summary in zip(result.reports, links.summaries, strict=True):
                if half_step == 0:
                    assert report.step is None
                    continue
                ids, rows = report.step
                assert len(ids) == summary.receives
                np.testing.assert_array_equal(rows, numbered_rows(ids, half_step - 1))
                received += len(ids)
        assert received > 0
        result.factors.unpersist()

    def test_persisted_factors_are_in_their_blocks(self, linked, tmp_path):
        *_, (half_step, links, result) = self.run_half_steps(linked, tmp_path, half_steps=2)
        assert result.delivery is None
        assert result.factors.is_cached
        partitions = result.factors.glom().collect()
        assert len(partitions) == links.partitions
        for block, partition in enumerate(partitions):
            ids = [id_ for factors in partition for id_ in factors.ids.tolist()]
            assert links.partitioner.block_of(ids).tolist() == [block] * len(ids)
            for factors in partition:
                np.testing.assert_array_equal(factors.rows, numbered_rows(factors.ids, half_step))
        assert sum(len(f.ids) for p in partitions for f in p) == 40
        result.factors.unpersist()

    def test_one_python_task_per_block_and_half_step(self, linked, tmp_path):
        for half_step, links, result in self.run_half_steps(linked, tmp_path):  # noqa: B007 - read below
            calls = list(tmp_path.glob(f"{half_step}-*"))
            assert len(calls) == links.partitioner.num_blocks
        # Persisting and reading the factors computes nothing again.
        result.factors.count()
        assert len(list(tmp_path.iterdir())) == 4 + 6 + 4 + 6
        result.factors.unpersist()

    def test_shuffles_per_half_step(self, sc, linked, tmp_path, stages_of):
        steps = self.run_half_steps(linked, tmp_path)
        for half_step in range(3):
            group = f"{self.exchange} {uuid.uuid4()}"
            sc.setJobGroup(group, "")
            _, links, result = next(steps)
            stages = [stage for job in stages_of(group) for stage in job]
            writing = [stage for stage in stages if stage.records_written]
            assert len(writing) == self.shuffles_per_half_step, half_step
            assert all(stage.tasks == links.partitions for stage in writing)
        result.delivery.release()

    def test_own_rows_arrive_and_only_sent_columns_leave(self, linked, tmp_path, footprint):
        exchange = EXCHANGES[self.exchange]
        sides = (linked.users, linked.products)

        def every_third_row(blocks):
            for block in blocks:
                yield FactorBlock(block.ids[::3], block.rows[::3])

        def step(block, own, received):
            known = [own_rows.ids.tolist() for own_rows in own]
            stored = FactorBlock(block.ids, FactorBlock.latest(own, block.ids, 5)[0])
            return BlockResult(
                stored, (known, received), sent=FactorBlock(stored.ids, stored.rows[:, :2].copy())
            )

        older, newer = (
            exchange.run_step(
                sides, None, HalfStep(USERS, numbering_step(half_step, 5, tmp_path), keep=True)
            ).factors
            for half_step in range(2)
        )
        few = with_shuffle_serializer(
            newer.mapPartitions(every_third_row, preservesPartitioning=True)
        )
        result = exchange.run_step(
            sides, None, HalfStep(USERS, step, OwnRows([older, few]), send=True, keep=True)
        )
        expected = {}
        for block in range(4):
            ids = list(range(block, 30, 4))
            assert result.reports[block].step == ([ids, ids[::3]], None)
            for id_ in ids:
                expected[id_] = numbered_rows([id_], int(id_ in ids[::3]))[0]
        stored = FactorBlock.merged(result.factors.collect(), 5)
        np.testing.assert_array_equal(stored.ids, sorted(expected))
        np.testing.assert_array_equal(stored.rows, [expected[id_] for id_ in sorted(expected)])

        def report_received(block, own, received):
            empty_rows = np.zeros((len(block.ids), 1), dtype=np.float32)
            stored = FactorBlock(block.ids, empty_rows)
            return BlockResult(stored, (block.in_block.source_ids, received))

        arrived = exchange.run_step(
            sides, result.delivery, HalfStep(PRODUCTS, report_received)
        ).reports
        assert sum(len(report.step[0]) for report in arrived) > 0
        for report in arrived:
            ids, rows = report.step
            assert rows.shape == (len(ids), 2)
            np.testing.assert_array_equal(rows, [expected[id_][:2] for id_ in ids.tolist()])
        for factors in (older, newer, result.factors):
            factors.unpersist()
        assert not footprint.remaining()

    def test_step_errors_reach_the_driver_unchanged(self, sc, linked, footprint):
        def fail(block, own, source_rows):
            raise SingularSystemError(block.ids.tolist(), 2, 0.0)

        rows = sc.parallelize([(id_, [0.5]) for id_ in range(30)], 2)
        elsewhere, shuffle = FactorTable.shuffled(rows, HashPartitioner(3), 1)
        start = start_from(elsewhere, linked.users, None)
        with pytest.raises(SingularSystemError) as caught:
            own_rows = OwnRows([start.rows], [*start.shuffles, shuffle])
            EXCHANGES[self.exchange].run_step(
                (linked.users, linked.products),
                None,
                HalfStep(USERS, fail, own_rows, send=True, keep=True),
            )
        assert caught.value.ids == tuple(range(30))
        assert not footprint.remaining()

    def test_bytes_moved_stay_within_the_prediction(
        self, sc, linked, tmp_path, stages_of, footprint
    ):
        """Rows are random numbers, which do not compress."""
        width = 64
        group = f"{self.exchange} {uuid.uuid4()}"
        sc.setJobGroup(group, "")
        _, _, result = next(self.run_half_steps(linked, tmp_path, width=width))
        sizes, _ = sizes_of_links((linked.users, linked.products), width)
        predicted = bytes_moved(sizes)[self.exchange]
        # Every needed row once: repeated rows of a message compress.
        least = min(predicted, bytes_moved(sizes)["shuffle"])
        moved, records = self.measure(sc, [s for job in stages_of(group) for s in job], footprint)
        assert 0.85 * least <= moved <= predicted + 700 * records  # 700: overhead of a serialiser
        result.delivery.release()

    def measure(self, sc, stages, footprint):
        """Return the bytes and the number of records that a half-step moved."""
        assert not footprint.remaining("broadcast file")
        return sum(s.bytes_written for s in stages), sum(s.records_written for s in stages)
