"""Keys that are no 32-bit integers, and the ids they get.

Keys stand in a line, ordered by a hash of their text and then by themselves; the id of a key is its
place. So ids are dense and follow from the set of keys alone. A bucket is a stretch of hashes, and
with them of the line.
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

__all__ = [
    "CodedRatings",
    "Coder",
    "Key",
    "Keys",
    "bucket_of",
    "checked_key",
    "in_id_order",
    "mixed",
]

Key = str | int
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def hash_of(keys: Iterable[Key]) -> NDArray[np.uint32]:
    """The hash of each key's text; the same in every process, as ``hash`` is not."""
    checksums = np.fromiter((zlib.crc32(str(key).encode()) for key in keys), dtype=np.uint32)
    # Checksums of similar texts differ little in their high bits; Fibonacci hashing mixes them.
    mixed: NDArray[np.uint32] = checksums * np.uint32(0x9E3779B1)
    mixed ^= mixed >> np.uint32(15)
    return mixed


def bucket_of(keys: Iterable[Key], buckets: int) -> NDArray[np.int32]:
    """The bucket of each key: that of the stretch of hashes its own is in."""
    places: NDArray[np.uint64] = hash_of(keys).astype(np.uint64) * np.uint64(buckets)
    found: NDArray[np.int32] = (places >> np.uint64(32)).astype(np.int32)
    return found


def in_id_order(keys: Iterable[Key]) -> list[Key]:
    """Keys of one kind in the order of their ids."""
    listed = list(keys)
    return [key for _, key in sorted(zip(hash_of(listed).tolist(), listed, strict=True))]


def checked_key(key: Any) -> Key:
    """`key` as a plain string or integer; a `ValueError` if it is neither."""
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{key!r} is no Unicode text, and could not be saved") from None
        return str.__str__(key)  # of an Enum's member str() gives the name
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if INT64_MIN <= key <= INT64_MAX:
            return int(key)
        raise ValueError(f"{key} does not fit 64 bits; make it a string")
    raise ValueError(f"{key!r} is neither a string nor an integer; make it one of these")


class Coder:
    """Numbers the keys of one side of one partition in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}

    def code(self, keys: Sequence[Any]) -> NDArray[np.int32]:
        """The number of each key; new ones get the next. A `ValueError` names one that is none."""
        # Looked at before they meet in a dictionary, where 1, 1.0 and True are one.
        for kind in set(map(type, keys)):
            if kind is bool or not issubclass(kind, (str, int, np.integer)):
                checked_key(next(key for key in keys if type(key) is kind))
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
    """The keys of one bucket, both sides', in the order of their ids.

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
        return cls(in_id_order(sides[0]), in_id_order(sides[1]))

    def of_side(self, side: int) -> list[Key]:
        """The keys of users (0) or products (1)."""
        return (self.users, self.products)[side]

    def rank(self, side: int, key: Key) -> int | None:
        """The place of one key, if it is here."""
        keys: list[Any] = self.of_side(side)
        if not keys or type(keys[0]) is not type(key):
            return None
        wanted = (int(hash_of([key])[0]), key)
        rank = bisect_left(keys, wanted, key=lambda other: (int(hash_of([other])[0]), other))
        return rank if rank < len(keys) and keys[rank] == key else None


def mixed(name: str, *examples: Any) -> RatingError:
    """The error for two kinds of keys on one side."""
    return RatingError(
        f"{name} keys are strings ({examples[0]!r}) and integers ({examples[1]!r}); make all of a "
        "side the same."
    )
