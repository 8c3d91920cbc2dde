"""Exchanges: four methods to deliver source rows to the blocks that need them."""

from __future__ import annotations

from rddals.exchange.base import (
    BlockResult,
    Delivery,
    Exchange,
    HalfStep,
    OwnRows,
    Step,
    StepResult,
)
from rddals.exchange.broadcast import BroadcastExchange
from rddals.exchange.choice import Choice, HalfStepSizes, Resources, bytes_moved, choose
from rddals.exchange.join import JoinExchange
from rddals.exchange.local import LocalExchange
from rddals.exchange.runner import StepRunner
from rddals.exchange.shuffle import ShuffleExchange

__all__ = [
    "EXCHANGES",
    "BlockResult",
    "Choice",
    "Delivery",
    "Exchange",
    "HalfStep",
    "HalfStepSizes",
    "OwnRows",
    "Resources",
    "Step",
    "StepResult",
    "StepRunner",
    "bytes_moved",
    "choose",
]

EXCHANGES: dict[str, Exchange] = {
    exchange.name: exchange
    for exchange in (ShuffleExchange(), BroadcastExchange(), JoinExchange(), LocalExchange())
}
