"""Training: the links of both sides, the choice of an exchange, and an alternation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
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
from rddals.training.alternation import Alternation, ExchangedAlternation
from rddals.training.events import HalfStepDone, LinksBuilt, Listener
from rddals.training.local_alternation import LocalAlternation

log = logging.getLogger("rddals")


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of training: persisted factors, popular ids, and events."""

    user_factors: RDD[FactorBlock]
    product_factors: RDD[FactorBlock]
    popular: tuple[Popularity, Popularity]
    history: tuple[HalfStepDone, ...]
    links: LinksBuilt


def train(
    source: RDD[Any],
    partitioners: tuple[Partitioner, Partitioner],
    settings: Settings,
    listeners: Sequence[Listener] = (),
    known: tuple[FactorTable, FactorTable] | None = None,
) -> Trained:
    """Factorise the ratings of `source`.

    Parameters
    ----------
    source : RDD
        Ratings from `rddals.rdds.ingest.rating_source`.
    partitioners : pair of Partitioner
        Partitioners of users and of products.
    settings : Settings
    listeners : sequence of callable
        Called on the driver with each `LinksBuilt`, `HalfStepDone` and `TrainingDone`.
    known : pair of FactorTable, optional
        Factors of users and of products to start from; other ids start from the seed.

    Returns
    -------
    Trained
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
    user_factors, product_factors = alternation.factors
    assert user_factors is not None and product_factors is not None
    return Trained(
        user_factors,
        product_factors,
        (links.users.popular, links.products.popular),
        tuple(alternation.history),
        built,
    )


def _links_built(links: LinkedRatings, settings: Settings, start_time: float) -> LinksBuilt:
    """Choose the exchange, and return the event."""
    users, products = links.users, links.products
    rank = settings.objective.rank
    sizes = sizes_of_links((users, products), rank)
    choice = Choice(settings.exchange, "requested")
    if settings.exchange == "auto":
        choice = choose(*sizes, resources_of(users.rdd.context, rank))
    log.info("exchange %s: %s", choice.exchange, choice.reason)
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
    level = logging.INFO if native.library() is not None else logging.WARNING
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
