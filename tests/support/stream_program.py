"""Learn a directory of ratings file by file, resuming after a kill.

python stream_program.py SOURCE CHECKPOINTS OUTPUT UPDATE
"""

import json
import sys

from pyspark.sql import SparkSession

from rddals import StreamingALS
from stream_files import FILE_COLUMNS, split_by_file
from stream_models import stored_ratings

source, checkpoints, output, update = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[2]")
    .appName("a stream that is killed")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .config("spark.log.level", "ERROR")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.python.unix.domain.socket.enabled", "true")
    .getOrCreate()
)
als = StreamingALS(
    rank=3, seed=42, blocks=2, update=update, checkpointLocation=f"{checkpoints}/als"
)
print("restored", als.model and als.model.batches, flush=True)


def learn(batch, batch_id):
    before = als.model.batches if als.model else 0
    als.updateBatch(split_by_file(batch.persist()), batch_id)
    batch.unpersist()
    if als.model.batches > before + 1:  # after a kill Spark merged the files of batches
        print("merged", als.model.batches - before, file=sys.stderr)
    print("batch", batch_id, als.model.batches, als.model.ratings, flush=True)


files = (
    spark.readStream.schema("user int, item int, rating float")
    .option("maxFilesPerTrigger", 1)
    .csv(source)
    .select("*", *FILE_COLUMNS)
)
(
    files.writeStream.foreachBatch(learn)
    .option("checkpointLocation", f"{checkpoints}/query")
    .trigger(availableNow=True)
    .start()
    .awaitTermination()
)

model = als.model
sides = [side.table().collect(model.rank + 2) for side in model.state.sides]
learned = {
    "batches": model.batches,
    "ratings": model.ratings,
    "mean": model.mean.hex(),
    "ids": [side.ids.tolist() for side in sides],
    "rows": [side.rows.tobytes().hex() for side in sides],
    "history": stored_ratings(model),
}
with open(output, "w") as file:
    json.dump(learned, file)
print("done", flush=True)
