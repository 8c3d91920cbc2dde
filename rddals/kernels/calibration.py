"""Calibration of the speed of a half-step on this machine."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import numpy as np

from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.kernels.flops import flops
from rddals.kernels.half_step import half_step


@cache
def seconds_per_flop(rank: int) -> float:
    """Measure the seconds per operation of a half-step of 40 rows with 20 or 200 ratings each."""
    users = np.repeat(np.arange(40), np.tile([20, 200], 20)).astype(np.int32)
    products = np.concatenate([np.arange(d) for d in np.tile([20, 200], 20)]).astype(np.int32)
    ratings = RatingBlock(users, products, np.ones(len(users), dtype=np.float32))
    in_block = link(0, ratings, 0, HashPartitioner(1)).in_block
    rows = np.random.default_rng(1).random((200, rank), dtype=np.float32)
    objective = Objective(rank=rank, lambda_=0.1)
    work = flops(in_block.degrees, rank).sum()
    seconds = []
    for _ in range(3):
        start = perf_counter()
        half_step(in_block, rows, objective)
        seconds.append(perf_counter() - start)
    return float(min(seconds) / work)
