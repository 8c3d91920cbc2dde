"""The streaming query that a batch belongs to."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

__all__ = ["query_checkpoint"]


def query_checkpoint(frame: DataFrame) -> str | None:
    """Where the query keeps its checkpoint whose ``foreachBatch`` this is; None outside of one.

    The frame's session is a copy of the one that the query was started in, and knows of no query;
    what they share does.
    """
    query = frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    if query is None:
        return None
    session: Any = frame.sparkSession
    uuid = session._jvm.java.util.UUID.fromString(query)
    running = session._jsparkSession.sharedState().activeStreamingQueries().get(uuid)
    return None if running is None else str(running.resolvedCheckpointRoot())
