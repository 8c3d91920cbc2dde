"""The contract on every exchange of the package, and tests of single exchanges."""

from __future__ import annotations

import os

import numpy as np
import pytest

from exchange_contract import (
    ExchangeContract,
    expected,  # noqa: F401 - a fixture
    numbered_rows,
    shared_links,  # noqa: F401 - a fixture
)
from rddals.exchange import EXCHANGES


class MessageContract(ExchangeContract):
    """Contract of exchanges that send messages from block to block."""

    shuffles_per_half_step = 1

    def messages(self, linked):
        """Return the messages of a half-step in which users send, by (sender, destination)."""
        exchange = EXCHANGES[self.exchange]
        blocks = linked.users.rdd.collect()
        return {
            (block.block, destination): exchange.pack(
                block, numbered_rows(block.in_block.ids, 0), destination
            )
            for block in blocks
            for destination in range(linked.products.partitioner.num_blocks)
        }

    @pytest.fixture
    def needed_users(self, ratings):
        """Users with ratings in each pair of user and product blocks."""
        needed_users = {(s, d): set() for s in range(4) for d in range(6)}
        for user, product, _ in ratings:
            if user % 2 == product % 2:
                needed_users[user % 4, product % 6].add(user)
        return {pair: sorted(users) for pair, users in needed_users.items()}

    def test_blocks_without_shared_ratings_exchange_nothing(self, linked, needed_users):
        sent = {pair for pair, message in self.messages(linked).items() if message is not None}
        assert sent == {pair for pair, users in needed_users.items() if users}
        assert len(sent) == 12

    def test_one_record_per_pair_of_blocks_with_shared_ratings(
        self, sc, linked, needed_users, tmp_path, stages_of
    ):
        group = f"records of {self.exchange} {tmp_path}"
        sc.setJobGroup(group, "")
        _, _, result = next(self.run_half_steps(linked, tmp_path))
        records = sum(stage.records_written for job in stages_of(group) for stage in job)
        assert records == sum(1 for users in needed_users.values() if users)
        result.delivery.release()


class TestShuffle(MessageContract):
    exchange = "shuffle"

    def test_only_needed_rows_are_sent(self, linked, needed_users):
        for pair, message in self.messages(linked).items():
            if message is not None:
                count, sent = message
                rows = np.frombuffer(sent, dtype=np.float32).reshape(count, -1)
                np.testing.assert_array_equal(rows, numbered_rows(needed_users[pair], 0))


class TestJoin(MessageContract):
    exchange = "join"

    def test_every_rating_is_sent_with_its_row(self, linked, ratings):
        sent = []
        for message in self.messages(linked).values():
            if message is None:
                continue
            users, products, stars, rows = message
            np.testing.assert_array_equal(rows, numbered_rows(users, 0))
            sent += zip(users.tolist(), products.tolist(), stars.tolist(), strict=True)
        assert sorted(sent) == sorted(r for r in ratings if r[0] % 2 == r[1] % 2)


class TestBroadcast(ExchangeContract):
    exchange = "broadcast"
    shuffles_per_half_step = 0

    def measure(self, sc, stages, footprint):
        """Count the rows sent to the driver and the broadcast file sent to the executor."""
        assert not sum(stage.bytes_written for stage in stages)
        paths = [
            os.path.join(sc._temp_dir, name)
            for kind, name in footprint.current() - footprint.baseline
            if kind == "broadcast file"
        ]
        return 2 * sum(map(os.path.getsize, paths)), 2 * 4


class TestLocal(ExchangeContract):
    exchange = "local"
    shuffles_per_half_step = 0
