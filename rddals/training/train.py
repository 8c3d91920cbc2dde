"""Training: the links of both sides, the choice of an exchange, and an alternation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from time import perf_counter
from typing import Any

from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.popularity import Popularity
from rddals.blocks.sides import USERS
from rddals.config import Settings
from rddals.exchange import Choice, HalfStepSizes, choose
from rddals.exchange.choice import half_step_sizes
from rddals.exchange.resources import resources_of
from rddals.kernels import native
from rddals.rdds.context import executors_of, job_label
from rddals.rdds.factors import FactorTable
from rddals.rdds.links import LinkedRatings, Links, build_links
from rddals.training.alternation import Alternation, ExchangedAlternation, FactorTables
from rddals.training.events import HalfStepDone, LinksBuilt, Listener
from rddals.training.local_alternation import LocalAlternation

log = logging.getLogger("rddals")


def train(
    source: RDD[Any],
    partitioners: tuple[Partitioner, Partitioner],
    settings: Settings,
    listeners: Sequence[Listener] = (),
    known: FactorTables | None = None,
) -> tuple[FactorTables, tuple[Popularity, Popularity], tuple[HalfStepDone, ...]]:
    """Factorise ratings from `rating_source`; return the factors, popular ids, and half-steps.

    Listeners are called on the driver with each `LinksBuilt`, `HalfStepDone` and `TrainingDone`.
    Ids without a row in `known` start from the seed.
    """
    start_time = perf_counter()
    with job_label(source.context, "links"):
        links = build_links(source, *partitioners, settings.duplicates)
    try:
        built = _links_built(links, settings, start_time)
        local = built.exchange.exchange == "local" and settings.iterations > 0
        kind: type[Alternation] = LocalAlternation if local else ExchangedAlternation
        alternation = kind((links.users, links.products), settings, listeners, known, built)
        alternation.run(start_time)
    finally:
        links.release()
    users, products = alternation.factors
    assert users is not None and products is not None
    factors = (FactorTable(users, partitioners[0]), FactorTable(products, partitioners[1]))
    return factors, (links.users.popular, links.products.popular), tuple(alternation.history)


def _links_built(links: LinkedRatings, settings: Settings, start_time: float) -> LinksBuilt:
    """Choose the exchange, and return the event."""
    users, products = links.users, links.products
    rank = settings.objective.rank
    sizes = sizes_of_links((users, products), rank)
    choice = Choice(settings.exchange, "requested")
    if settings.exchange == "auto":
        choice = choose(*sizes, resources_of(users.rdd.context, rank))
    log.debug("exchange %s: %s", choice.exchange, choice.reason)
    _log_kernels()
    return LinksBuilt(
        ratings=sum(s.ratings for s in users.summaries),
        users=sum(s.ids for s in users.summaries),
        products=sum(s.ids for s in products.summaries),
        exchange=choice,
        sizes=sizes,
        seconds=perf_counter() - start_time,
    )


@cache
def _log_kernels() -> None:
    """Log the available kernels, once per process."""
    level = logging.DEBUG if native.library() is not None else logging.WARNING
    log.log(level, "kernels: %s", native.describe())


def sizes_of_links(links: tuple[Links, Links], rank: int) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Return the sizes of the half-steps in which users send, and in which products send."""
    summaries = [side.summaries for side in links]
    return half_step_sizes(
        [[s.ids for s in side] for side in summaries],
        [[s.ratings for s in side] for side in summaries],
        [sum(s.receives for s in other) for other in summaries[::-1]],
        rank,
        executors_of(links[USERS].rdd.context),
    )
