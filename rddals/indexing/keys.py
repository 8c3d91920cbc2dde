"""String and 64-bit integer keys, and their ids.

Keys are sorted by a hash of their text and then by themselves; the id of a key is its position in
this order. So ids are dense and depend only on the set of keys. A bucket holds the keys of a range
of hashes, and therefore a range of ids.
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

Key = str | int
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def hash_of(keys: Iterable[Key]) -> NDArray[np.uint32]:
    """Hash the text of each key. Unlike ``hash``, the result is the same in every process."""
    checksums = np.fromiter((zlib.crc32(str(key).encode()) for key in keys), dtype=np.uint32)
    # Checksums of similar texts have similar high bits; Fibonacci hashing mixes them.
    hashes: NDArray[np.uint32] = checksums * np.uint32(0x9E3779B1)
    hashes ^= hashes >> np.uint32(15)
    return hashes


def bucket_of(keys: Iterable[Key], buckets: int) -> NDArray[np.int32]:
    """Return the bucket of each key, which is determined by the range of its hash."""
    scaled: NDArray[np.uint64] = hash_of(keys).astype(np.uint64) * np.uint64(buckets)
    return (scaled >> np.uint64(32)).astype(np.int32)


def in_id_order(keys: Iterable[Key]) -> list[Key]:
    """Sort keys of one type in the order of their ids."""
    keys = list(keys)
    return [key for _, key in sorted(zip(hash_of(keys).tolist(), keys, strict=True))]


def checked_key(key: Any) -> Key:
    """Return `key` as a plain str or int, or raise `ValueError` if it is neither."""
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{key!r} is not valid Unicode text; remove its surrogate characters"
            ) from None
        return str.__str__(key)  # str() of an Enum member is its name
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if INT64_MIN <= key <= INT64_MAX:
            return int(key)
        raise ValueError(f"{key} does not fit 64 bits; convert it to a string")
    raise ValueError(f"{key!r} is neither a string nor an integer; convert it to one of them")


class Coder:
    """Numbering of the keys of one side of one partition, in order of first appearance."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}

    def code(self, keys: Sequence[Any]) -> NDArray[np.int32]:
        """Return the number of each key, and number new keys.

        A key that is neither a string nor an integer raises `ValueError`.
        """
        # Types are checked before the dictionary lookup, where 1, 1.0 and True are equal.
        for kind in set(map(type, keys)):
            if kind is bool or not issubclass(kind, (str, int, np.integer)):
                checked_key(next(key for key in keys if type(key) is kind))
        codes = self._codes
        return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int32)

    def keys(self) -> list[Key]:
        """Return all keys, the key with number i at position i.

        A key that is not valid text or does not fit 64 bits raises `ValueError`.
        """
        return [checked_key(key) for key in self._codes]


@dataclass(frozen=True, slots=True)
class CodedRatings:
    """Ratings of one partition with key numbers that are local to it.

    Attributes
    ----------
    ratings : RatingBlock
        Ratings with the numbers from `Coder` in place of ids.
    buckets : pair of ndarray of int32
        Bucket of each numbered key, for users and products.
    """

    ratings: RatingBlock
    buckets: tuple[NDArray[np.int32], NDArray[np.int32]]

    def with_ids(self, ids: tuple[dict[int, NDArray[np.int32]], ...]) -> RatingBlock:
        """Replace the key numbers by ids.

        `ids` of users and of products are by bucket, in the order of this partition's numbers.
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
    """Keys of one bucket in the order of their ids.

    Attributes
    ----------
    users, products : list of str or int
        Keys of each side.
    """

    users: list[Key]
    products: list[Key]

    def of_side(self, side: int) -> list[Key]:
        """Return the keys of the users (0) or the products (1)."""
        return (self.users, self.products)[side]

    def rank(self, side: int, key: Key) -> int | None:
        """Return the position of a key in this bucket, or None if it is absent."""
        keys: list[Any] = self.of_side(side)
        if not keys or type(keys[0]) is not type(key):
            return None
        target = (int(hash_of([key])[0]), key)
        rank = bisect_left(keys, target, key=lambda other: (int(hash_of([other])[0]), other))
        return rank if rank < len(keys) and keys[rank] == key else None
