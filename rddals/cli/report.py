"""Results of trainings and evaluations as printed text and as JSON documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rddals import HalfStepDone, LinksBuilt
from rddals.cli.metrics import Quality
from rddals.cli.output import Output
from rddals.exchange.choice import bytes_moved


def print_links(output: Output, links: LinksBuilt) -> None:
    """Print the size of the ratings and the chosen exchange."""
    output.fact(
        "links",
        f"{links.ratings:,} ratings of {links.products:,} products by {links.users:,} users, "
        f"in {links.seconds:.2f} s, including the start of Spark's workers",
    )
    output.fact("exchange", f"{links.exchange.exchange}: {links.exchange.reason}")


def links_document(links: LinksBuilt) -> dict[str, Any]:
    """Return sizes, chosen exchange, and the bytes that each exchange would move."""
    users, products = (dict(bytes_moved(sizes)) for sizes in links.sizes)
    return {
        "ratings": links.ratings,
        "users": links.users,
        "products": links.products,
        "exchange": {"name": links.exchange.exchange, "reason": links.exchange.reason},
        "bytes_per_half_step": {"users_send": users, "products_send": products},
        "link_seconds": links.seconds,
    }


def kernels_document(history: Iterable[HalfStepDone]) -> str | None:
    """Return the names of the kernels that ran; None without an iteration."""
    return ", ".join(sorted({step.kernels for step in history})) or None


def history_document(history: Iterable[HalfStepDone]) -> list[dict[str, Any]]:
    """Return the loss and the seconds of every iteration."""
    iterations: list[dict[str, Any]] = []
    seconds = 0.0
    for step in history:
        seconds += step.seconds
        if step.side == "users":
            iterations.append({"iteration": step.iteration, "loss": step.loss, "seconds": seconds})
            seconds = 0.0
    return iterations


def print_quality(output: Output, quality: Quality, label: str) -> None:
    """Print the ranking metrics if there are any, else the prediction errors."""
    errors, ranking = quality.errors, quality.ranking
    if ranking is None:
        output.fact(
            f"{label}RMSE",
            f"{number(errors.rmse)} over {errors.known:,} ratings; "
            f"{errors.unknown:,} more have a user or product unknown to the model",
        )
        output.fact("MAE", number(errors.mae))
    else:
        output.fact(
            f"NDCG@{ranking.top}",
            f"{number(ranking.ndcg)} over {ranking.users:,} users; "
            f"{ranking.unknown_users:,} more are unknown to the model",
        )
        output.fact(f"precision@{ranking.top}", number(ranking.precision))


def quality_document(quality: Quality) -> dict[str, Any]:
    """Return prediction errors and ranking metrics."""
    errors, ranking = quality.errors, quality.ranking
    document: dict[str, Any] = {
        "ratings": errors.known + errors.unknown,
        "predicted": errors.known,
        "unknown": errors.unknown,
        "rmse": errors.rmse,
        "mae": errors.mae,
    }
    if ranking is not None:
        document["ranking"] = {
            "top": ranking.top,
            "ndcg": ranking.ndcg,
            "precision": ranking.precision,
            "users": ranking.users,
            "unknown_users": ranking.unknown_users,
        }
    return document


def number(value: float | None) -> str:
    """Format a metric, which is None if it is undefined."""
    return "none" if value is None else f"{value:.4f}"
