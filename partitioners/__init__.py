"""Partitioners that map ids to block numbers; NumPy is the only dependency.

==============================  ================================================================
`HashPartitioner`               the remainder of the id, as in Spark's MLlib
`RangePartitioner`              contiguous ranges of ids, with equal numbers of ids
`DegreeBalancedPartitioner`     equal numbers of ratings per block
`LocalityPartitioner`           keeps ids that are rated together in one block
`FunctionPartitioner`           a user-defined function
`Partitioner`                   the base class for user-defined partitioners
==============================  ================================================================
"""

from partitioners.balanced import DegreeBalancedPartitioner
from partitioners.base import Partitioner
from partitioners.function import FunctionPartitioner
from partitioners.hashing import HashPartitioner
from partitioners.locality import LocalityPartitioner
from partitioners.ranges import RangePartitioner

__all__ = [
    "DegreeBalancedPartitioner",
    "FunctionPartitioner",
    "HashPartitioner",
    "LocalityPartitioner",
    "Partitioner",
    "RangePartitioner",
]
