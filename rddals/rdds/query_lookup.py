"""Finding the streaming query to which a batch belongs."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

__all__ = ["query_checkpoint"]


def query_checkpoint(frame: DataFrame) -> str | None:
    """Return the checkpoint location of the query that calls ``foreachBatch`` with `frame`.

    Return None outside a query. Spark gives the frame a copy of the session in which the query was
    started, and the copy does not list the query; the state that both sessions share does.
    """
    query = frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    if query is None:
        return None
    session: Any = frame.sparkSession
    uuid = session._jvm.java.util.UUID.fromString(query)
    running = session._jsparkSession.sharedState().activeStreamingQueries().get(uuid)
    return None if running is None else str(running.resolvedCheckpointRoot())
