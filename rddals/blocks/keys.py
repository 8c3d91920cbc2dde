"""Keys that are no 32-bit integers, and the ids they get.

Keys are spread over buckets by a hash of their text and sorted within each. The id of a key is its
place in the line of all buckets, so that ids are dense and follow from the set of keys alone.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError

__all__ = ["CodedRatings", "Coder", "Key", "Keys", "bucket_of", "checked_key"]

Key = str | int
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def bucket_of(keys: Iterable[Key], buckets: int) -> NDArray[np.int32]:
    """The bucket of each key; the same in every process, as ``hash`` is not."""
    texts = (str(key).encode(errors="surrogatepass") for key in keys)
    hashes = np.fromiter(map(zlib.crc32, texts), dtype=np.uint32)
    found: NDArray[np.int32] = (hashes % np.uint32(buckets)).astype(np.int32)
    return found


def checked_key(key: Any) -> Key:
    """`key` as a plain string or integer; a `ValueError` if it is neither."""
    if isinstance(key, str):
        return str(key)
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if INT64_MIN <= key <= INT64_MAX:
            return int(key)
        raise ValueError(f"{key} does not fit 64 bits; make it a string")
    raise ValueError(f"{key!r} is neither a string nor an integer; make it one of these")


class Coder:
    """Numbers the keys of one side of one partition in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}

    def code(self, keys: Iterable[Any]) -> NDArray[np.int32]:
        """The number of each key; new ones get the next."""
        codes = self._codes
        return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int32)

    def keys(self) -> list[Key]:
        """All keys, the one with number i at place i; a `ValueError` names one that is none."""
        return [checked_key(key) for key in self._codes]


@dataclass(frozen=True, slots=True)
class CodedRatings:
    """Ratings of one partition, with numbers that mean something there alone.

    Attributes
    ----------
    ratings : RatingBlock
        In place of ids the numbers that `Coder` gave.
    buckets : pair of ndarray of int32
        For users and products, the bucket of the key with each number.
    """

    ratings: RatingBlock
    buckets: tuple[NDArray[np.int32], NDArray[np.int32]]

    def identified(self, ids: tuple[dict[int, NDArray[np.int32]], ...]) -> RatingBlock:
        """The ratings with ids.

        Parameters
        ----------
        ids : pair of dict
            For users and products, by bucket, the ids of this partition's keys in the order of
            their numbers.
        """
        columns = []
        for codes, buckets, replies in zip(
            (self.ratings.users, self.ratings.products), self.buckets, ids, strict=True
        ):
            id_of = np.empty(len(buckets), dtype=np.int32)
            for bucket, reply in replies.items():
                id_of[buckets == bucket] = reply
            columns.append(id_of[codes])
        return RatingBlock(columns[0], columns[1], self.ratings.ratings)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one bucket, both sides'; sorted.

    Attributes
    ----------
    users, products : list of str or int
    """

    users: list[Key]
    products: list[Key]

    @classmethod
    def distinct(cls, users: Iterable[Sequence[Key]], products: Iterable[Sequence[Key]]) -> Keys:
        """All keys of some lists, each once.

        Raises
        ------
        RatingError
            If keys of one side are of two kinds.
        """
        sides = [set().union(*lists) for lists in (users, products)]
        for name, keys in zip(("user", "product"), sides, strict=True):
            if len(set(map(type, keys))) > 1:
                raise mixed(name, *(next(k for k in keys if type(k) is t) for t in (str, int)))
        return cls(sorted(sides[0]), sorted(sides[1]))

    def of_side(self, side: int) -> list[Key]:
        """The keys of users (0) or products (1)."""
        return (self.users, self.products)[side]

    def rank(self, side: int, key: Key) -> int | None:
        """The place of one key, if it is here."""
        keys: list[Any] = self.of_side(side)
        if not keys or type(keys[0]) is not type(key):
            return None
        rank = bisect_left(keys, key)
        return rank if rank < len(keys) and keys[rank] == key else None


def mixed(name: str, *examples: Any) -> RatingError:
    """The error for two kinds of keys on one side."""
    return RatingError(
        f"{name} keys are strings ({examples[0]!r}) and integers ({examples[1]!r}); make all of a "
        "side the same."
    )
