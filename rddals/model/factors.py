"""Factors of both sides of a model, and the queries that treat both sides alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast
from pyspark.mllib.recommendation import Rating

from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.blocks.sides import ID_NAMES, PRODUCTS, USERS
from rddals.errors import ModelReleasedError
from rddals.kernels.topk import pair_scores
from rddals.model.top_n import seen_pairs, top_n, top_n_for_all
from rddals.model.top_n_query import (
    TopNQuery,
    checked_id,
    popular_then_best,
    unknown_id,
    uses_fallback,
)
from rddals.rdds.context import head, is_stopped
from rddals.rdds.factors import FactorTable
from rddals.rdds.ingest import rating_source
from rddals.rdds.lifetimes import is_lost
from rddals.rdds.predictions import is_pair, predict_pairs
from rddals.rdds.shuffles import Shuffle

Row = NDArray[np.float32]


class FactorPair:
    """The factor tables of users and of products, retained until `release`.

    `popular` ids of each side are for queries with a fallback. `default_rows` are those of unknown
    users and unknown products; without them an unknown id is an error.
    """

    def __init__(
        self,
        rank: int,
        tables: tuple[FactorTable, FactorTable],
        *,
        popular: tuple[Popularity, Popularity] | None = None,
        default_rows: tuple[Row, Row] | None = None,
    ) -> None:
        self.rank = rank
        self.popular = popular or (Popularity.merged([]), Popularity.merged([]))
        self._tables = (tables[USERS].retain(), tables[PRODUCTS].retain())
        self._default_rows = default_rows
        # Recommendations for all ids are lazy, so their inputs are retained as well.
        self._broadcasts: dict[int, Broadcast[FactorBlock]] = {}
        self._seen: list[Shuffle] = []
        self._means: dict[int, Row] = {}
        self._released = False

    @property
    def tables(self) -> tuple[FactorTable, FactorTable]:
        """The factor tables.

        If they were released, raise `ModelReleasedError`: Spark would recompute them from ratings
        that may be missing or different.
        """
        if self._released:
            raise ModelReleasedError(
                "unpersist() has released this model's factors; train again, or save() the model "
                "before unpersist() and load it."
            )
        if is_stopped(self._tables[USERS].blocks.context):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() the model before stop(), and "
                "load it in a running context."
            )
        raise_if_lost([table.blocks for table in self._tables])
        return self._tables

    def described(self) -> str:
        """Return the numbers of users and products, or that they were released."""
        try:
            users, products = (table.count() for table in self.tables)
        except ModelReleasedError:
            return "released"
        return f"users={users}, products={products}"

    def release(self) -> None:
        """Release the tables and everything that was computed from them."""
        if not self._released and not is_stopped(self._tables[USERS].blocks.context):
            for table in self._tables:
                table.release()
            for broadcast in self._broadcasts.values():
                broadcast.destroy()
            for shuffle in self._seen:
                shuffle.release()
        self._broadcasts.clear()
        self._seen.clear()
        self._released = True

    def predict(self, user: Any, product: Any) -> float:
        """Return the dot product of a user's and a product's factor."""
        return float(pair_scores(self._row(USERS, user), self._row(PRODUCTS, product)))

    def predict_all(self, pairs: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Return predictions for pairs; without default rows, for pairs of known ids only."""
        assert isinstance(pairs, RDD), "user_product should be RDD of (user, product)"
        tables = self.tables
        assert all(map(is_pair, head(pairs))), "user_product should be RDD of (user, product)"
        return predict_pairs(tables, pairs, self._default_rows or (None, None)).flatMap(_as_ratings)

    def recommend(
        self, side: int, id_: Any, query: TopNQuery, fallback: Any = None
    ) -> list[Rating]:
        """Return the best ids of the other side for an id of `side`, best first.

        An unknown id, with neither a default row nor a fallback, raises `UnknownIdError`.
        """
        other = self.tables[1 - side]
        known = self._known_row(side, id_) if uses_fallback(fallback) else self._row(side, id_)
        if known is not None:
            best = _pairs(*top_n(other, known, query))
        else:
            mean = self._mean(side)
            best = popular_then_best(
                self.popular[1 - side].ids,
                query,
                lambda ids: pair_scores(mean, other.rows(ids)),
                lambda rest: _pairs(*top_n(other, mean, rest)),
            )
        own_id = checked_id(ID_NAMES[side], id_)
        return [rating_for(side, own_id, other_id, score) for other_id, score in best]

    def recommend_for_all(
        self, side: int, query: TopNQuery, seen: Any
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Return the best ids of the other side for every id of `side`."""
        table, items = self.tables[side], self.tables[1 - side]
        pairs = None
        if seen is not None:
            pairs = seen_pairs(rating_source(seen), side, table)
            self._seen.append(pairs)
        if 1 - side not in self._broadcasts:
            factors = items.collect(self.rank)
            self._broadcasts[1 - side] = items.blocks.context.broadcast(factors)
        as_rating = partial(rating_for, side)
        return top_n_for_all(table, self._broadcasts[1 - side], query, as_rating, seen=pairs)

    def similar(self, side: int, id_: Any, num: Any) -> list[tuple[int, float]]:
        """Return the ids of `side` with the most similar factors, and their cosines."""
        row = self._row(side, id_)
        own_id = np.array([checked_id(ID_NAMES[side], id_)])
        unit = FactorBlock(own_id, row[None, :]).unit().rows[0]
        query = TopNQuery.checked(num, own_id)
        return _pairs(*top_n(self.tables[side], unit, query, unit=True))

    def _row(self, side: int, id_: Any) -> Row:
        row = self._known_row(side, id_)
        if row is not None:
            return row
        if self._default_rows is None:
            raise unknown_id(ID_NAMES[side], id_)
        return self._default_rows[side]

    def _known_row(self, side: int, id_: Any) -> Row | None:
        table = self.tables[side]
        integer = checked_id(ID_NAMES[side], id_)
        return table.row(integer) if INT32_MIN <= integer <= INT32_MAX else None

    def _mean(self, side: int) -> Row:
        if side not in self._means:
            self._means[side] = self.tables[side].mean(self.rank)
        return self._means[side]


def raise_if_lost(rdds: Iterable[RDD[Any]]) -> None:
    """Raise `ModelReleasedError` if another part of the program has freed a model's RDDs."""
    if any(map(is_lost, rdds)):
        raise ModelReleasedError(
            "Another part of this program has unpersisted this model's factors, and Spark cannot "
            "recompute them. Unpersist the program's own RDDs only; to keep factors in files "
            "instead, call sc.setCheckpointDir() before the training. Train or load() again."
        )


def rating_for(
    side: int, id_: Any, other: Any, score: float, kind: Callable[[Any, Any, float], Any] = Rating
) -> Any:
    """Return the rating of an id or key of `side` and one of the other side."""
    return kind(id_, other, score) if side == USERS else kind(other, id_, score)


def _as_ratings(batch: tuple[Any, Any, Any]) -> Iterator[Rating]:
    return map(Rating, *(column.tolist() for column in batch))


def _pairs(ids: NDArray[np.int32], scores: NDArray[np.float64]) -> list[tuple[int, float]]:
    return list(zip(ids.tolist(), scores.tolist(), strict=True))
