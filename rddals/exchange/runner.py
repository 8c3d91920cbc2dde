"""Half-steps in turn over the same links, with one exchange."""

from __future__ import annotations

from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.exchange.base import Delivery, Exchange, HalfStep, StepResult
from rddals.rdds.context import job_label
from rddals.rdds.lifetimes import discard
from rddals.rdds.links import Links


class StepRunner:
    """Runs half-steps and holds their newest results; release it with `close`.

    Attributes
    ----------
    delivery : Delivery or None
        Rows in transit from the last half-step.
    factors : list of RDD of FactorBlock or None
        Newest kept rows of users and of products.
    """

    def __init__(self, exchange: Exchange, links: tuple[Links, Links]) -> None:
        self.delivery: Delivery | None = None
        self.factors: list[RDD[FactorBlock] | None] = [None, None]
        self._exchange = exchange
        self._links = links

    def run(self, half_step: HalfStep, label: str) -> StepResult:
        """Run a half-step, whose jobs get the label; its results replace the previous ones."""
        with job_label(self._links[half_step.side].rdd.context, label):
            result = self._exchange.run_step(self._links, self.delivery, half_step)
        self.delivery = result.delivery
        if half_step.keep:
            self._discard(half_step.side)
            self.factors[half_step.side] = result.factors
        return result

    def cut_lineage(self) -> None:
        """Cut the lineage of the rows in transit."""
        if self.delivery is not None:
            self.delivery.cut_lineage()

    def take(self, side: int) -> RDD[FactorBlock]:
        """Return the newest kept rows of a side, which the caller must discard."""
        factors, self.factors[side] = self.factors[side], None
        assert factors is not None
        return factors

    def close(self) -> None:
        """Release the rows in transit, and all kept rows that nobody took."""
        delivery, self.delivery = self.delivery, None
        if delivery is not None:
            delivery.release()
        for side in range(len(self.factors)):
            self._discard(side)

    def _discard(self, side: int) -> None:
        factors, self.factors[side] = self.factors[side], None
        if factors is not None:
            discard(factors)
