"""Exchanges: four ways to deliver the same source rows to the same blocks."""

from __future__ import annotations

from rddals.exchange.base import NO_ROWS, BlockResult, Delivery, Exchange, OwnRows, Step, StepResult
from rddals.exchange.broadcast import BroadcastExchange
from rddals.exchange.choice import Choice, HalfStepSizes, Resources, bytes_moved, choose
from rddals.exchange.join import JoinExchange
from rddals.exchange.local import LocalExchange
from rddals.exchange.shuffle import ShuffleExchange

__all__ = [
    "EXCHANGES",
    "NO_ROWS",
    "BlockResult",
    "Choice",
    "Delivery",
    "Exchange",
    "HalfStepSizes",
    "OwnRows",
    "Resources",
    "Step",
    "StepResult",
    "bytes_moved",
    "choose",
]

EXCHANGES: dict[str, Exchange] = {
    exchange.name: exchange
    for exchange in (ShuffleExchange(), BroadcastExchange(), JoinExchange(), LocalExchange())
}
