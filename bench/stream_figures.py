"""Draw the figures of docs/explanation/streaming.md: ``python -m bench.stream_figures``.

MovieLens 100K in time order. Each batch is predicted before it is learned, including pairs with
unknown ids. Predictions are clipped to 1..5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from bench.data import in_batches, in_time_order, part
from bench.local_stream import LocalStream, rmse
from rddals import ALS, RatingBlock

BATCH = 1_000
FOLDER = Path(__file__).parents[1] / "docs" / "explanation"
RULES = ("sgd", "als")
COLOURS = {"sgd": "C0", "als": "C1", "River": "C2", "batch ALS": "C3"}

#: Settings, the update rules that they apply to, and the values to try.
TRIALS: tuple[tuple[str, tuple[str, ...], tuple[float, ...]], ...] = (
    ("gamma", ("sgd",), (0.05, 0.1, 0.2, 0.5, 1, 2, 5)),
    ("lambda_", ("sgd",), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)),
    ("lambda_", ("als",), (0.5, 1, 2, 4, 8, 16, 32)),
    ("rank", RULES, (2, 5, 10, 20, 50)),
    ("iterations", RULES, (1, 2, 3, 5, 10)),
)

Doubles = NDArray[np.float64]


def errors_of(stream: RatingBlock, size: int, **settings: Any) -> Doubles:
    """Return the prediction error of every rating before it is learned."""
    model, errors = LocalStream(**settings), []
    for batch in in_batches(stream, size):
        predicted = np.clip(model.predict(batch), 1, 5) if model.count else 3.0
        errors.append(predicted - batch.ratings)
        model.learn(batch)
    return np.concatenate(errors)


def errors_of_river(stream: RatingBlock, size: int) -> Doubles:
    """Return the errors of River's biased factorisation, which learns one rating at a time."""
    from river import reco

    model, errors = reco.BiasedMF(n_factors=10, seed=42), []
    for batch in in_batches(stream, size):
        columns = batch.users.tolist(), batch.products.tolist(), batch.ratings.tolist()
        pairs = zip(*columns[:2], strict=True)
        predicted = [model.predict_one(*pair) if errors else 3.0 for pair in pairs]
        errors.append(np.clip(predicted, 1, 5) - batch.ratings)
        for user, product, rating in zip(*columns, strict=True):
            model.learn_one(user, product, rating)
    return np.concatenate(errors)


def errors_of_batch_als(sc: Any, stream: RatingBlock, size: int, every: int = 10) -> Doubles:
    """Return the errors of batch ALS, retrained on all ratings after every tenth batch.

    The prediction for pairs with unknown ids is the mean of the training ratings.
    """
    users: dict[int, Any] = {}
    products: dict[int, Any] = {}
    mean, errors = 3.0, []
    for number, batch in enumerate(in_batches(stream, size)):
        if number and number % every == 0:
            seen = part(stream, 0, number * size)
            mean = float(seen.ratings.mean())
            model = ALS.train(sc.parallelize([seen], 2), 10, 10, 0.1, seed=42)
            users, products = (
                {id_: np.asarray(row) for id_, row in side.collect()}
                for side in (model.userFeatures(), model.productFeatures())
            )
            model.unpersist()
        pairs = zip(batch.users.tolist(), batch.products.tolist(), strict=True)
        predicted = [
            users[u] @ products[p] if u in users and p in products else mean for u, p in pairs
        ]
        errors.append(np.clip(predicted, 1, 5) - batch.ratings)
    return np.concatenate(errors)


def draw_error(sc: Any, stream: RatingBlock) -> None:
    """Plot the error of the last ten batches, and the error of the stream by batch size."""
    figure, (running, sizes) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=(3, 2))
    methods: dict[str, Callable[[int], Doubles]] = {
        "sgd": lambda size: errors_of(stream, size, update="sgd"),
        "als": lambda size: errors_of(stream, size, update="als"),
        "River": lambda size: errors_of_river(stream, size),
    }
    batch_sizes = {"sgd": (1_000, 100, 10), "als": (1_000, 100, 10), "River": (1_000, 100, 10, 1)}
    errors = {name: {n: method(n) for n in batch_sizes[name]} for name, method in methods.items()}
    for name, by_size in errors.items():
        curve = [rmse(each) for each in by_size.values()]
        sizes.plot(list(by_size), curve, "o-", color=COLOURS[name], label=name)
        print(name, dict(zip(by_size, curve, strict=True)), flush=True)
    errors["batch ALS"] = {BATCH: errors_of_batch_als(sc, stream, BATCH)}
    print("batch ALS", rmse(errors["batch ALS"][BATCH]), flush=True)
    for name, by_size in errors.items():
        squares = np.square(by_size[BATCH]).reshape(-1, BATCH).mean(axis=1)
        window = np.sqrt(np.convolve(squares, np.full(10, 0.1), mode="valid"))
        running.plot(np.arange(10, len(squares) + 1), window, color=COLOURS[name], label=name)
    running.set(xlabel="batches of 1,000 learned", ylabel="RMSE of the last ten batches")
    sizes.set(xscale="log", xlabel="ratings per batch", ylabel="RMSE of the whole stream")
    running.legend(frameon=False)
    save(figure, "streaming-error.svg")


def draw_settings(stream: RatingBlock) -> None:
    """Plot the error of the stream by each setting, with the others at their defaults."""
    figure, axes = plt.subplots(1, len(TRIALS), figsize=(11, 2.8), sharey=True)
    for axis, (name, rules, values) in zip(axes, TRIALS, strict=True):
        for rule in rules:
            curve = [rmse(errors_of(stream, BATCH, update=rule, **{name: v})) for v in values]
            print(rule, name, dict(zip(values, curve, strict=True)), flush=True)
            axis.plot(values, curve, "o-", color=COLOURS[rule], label=rule)
        axis.set(xscale="log", xlabel=name.rstrip("_"), xticks=values[::2])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axes[0].set_ylabel("RMSE of the whole stream")
    axes[-1].legend(frameon=False)
    save(figure, "streaming-settings.svg")


def save(figure: Any, name: str) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FOLDER / name, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    from pyspark.sql import SparkSession

    mpl.rcParams |= {"svg.hashsalt": "rddals", "font.size": 9}
    stream = in_time_order()
    draw_settings(stream)
    session = SparkSession.builder.master("local[2]").getOrCreate()
    try:
        draw_error(session.sparkContext, stream)
    finally:
        session.stop()


if __name__ == "__main__":
    main()
