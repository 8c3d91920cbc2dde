"""Where an id lives: partitioners from ids to block numbers, in NumPy alone.

==============================  ================================================================
`HashPartitioner`               the remainder of the id, as Spark's MLlib places it
`RangePartitioner`              contiguous ranges of ids, as many ids in each
`DegreeBalancedPartitioner`     as many ratings in each block
`LocalityPartitioner`           neighbours together: few blocks need a row
`FunctionPartitioner`           a function of your own
`Partitioner`                   the contract, to write one of your own
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
