/* What a half-step works on. `rows.py` mirrors this struct. */
#ifndef RDDALS_JOB_H
#define RDDALS_JOB_H

#include <stdint.h>

typedef struct {
    int64_t rank;
    int64_t stride;     /* numbers from one row of `table` to the next; a multiple of 64 bytes */
    int64_t dual_below; /* rows of fewer ratings are solved in the dual form */
    const int64_t *pointers; /* row r has entries pointers[r] to pointers[r + 1] */
    const void *sources;     /* of each entry: uint16 or int32 */
    int64_t source_bytes;
    const void *codes;      /* of each entry: uint8 if there is a scale, else float32 */
    const float *scale;     /* or NULL */
    const void *table;      /* source rows; aligned to 64 bytes, padded with zeros, one row of
                               zeros at the end */
    int64_t table_rows;     /* without that one */
    const void *ridge;      /* of each row, a number that is added to the diagonal */
    const void *eigenvalues; /* of each column, one that is added to it as well */
    const int32_t *positives; /* of each row, ratings above zero; NULL for explicit feedback */
    double alpha;
    int64_t vector_bytes; /* no wider vectors than these are used */
    void *solved;      /* (rows, rank) */
    uint8_t *singular; /* of each row */
} rddals_job;

/* What a scan of items for the best of each query works on; `scan.py` mirrors it. All numbers are
 * finite. */
typedef struct {
    int64_t rank;
    int64_t count;        /* of queries */
    const float *queries; /* (count, rank) */
    const double *query_norms;
    const double *errors; /* how far a query's scores may be from the exact ones */
    int64_t items;
    const float *rows;       /* (items, rank), by falling norm */
    const double *norms;     /* of items */
    const int64_t *pointers; /* query q must not find excluded[pointers[q]] to
                                excluded[pointers[q + 1]], ascending; or NULL, both */
    const int64_t *excluded;
    int64_t tile; /* items that are scored at a time */
    int64_t vector_bytes;
    int64_t width; /* so many are found, at most as many as there are items */
    int64_t *keys; /* (count, width), in no order: the best items and their scores */
} rddals_scan;

#endif
