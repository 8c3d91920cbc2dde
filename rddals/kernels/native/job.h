/* Arguments of the kernels. */
#ifndef RDDALS_JOB_H
#define RDDALS_JOB_H

#include <stdint.h>

/* Input and output of a half-step; `rows.py` mirrors this struct. */
typedef struct {
    int64_t rank;
    int64_t stride;     /* elements from one row of `table` to the next; a multiple of 64 bytes */
    int64_t dual_below; /* rows with fewer ratings are solved in the dual form */
    const int64_t *pointers; /* row r has entries pointers[r] to pointers[r + 1] */
    const void *sources;     /* source row of each entry: uint16 or int32 */
    int64_t source_bytes;
    const void *codes;      /* per entry: uint8 positions in `scale`, or float32 ratings */
    const float *scale;     /* distinct ratings, or NULL */
    const void *table;      /* source rows; aligned to 64 bytes, padded with zeros, with a
                               row of zeros at the end */
    int64_t table_rows;     /* number of source rows, without the row of zeros */
    const void *ridge;      /* per row: added to the diagonal */
    const void *eigenvalues; /* per column: added to the diagonal */
    const int32_t *positives; /* per row: number of ratings above zero; NULL if explicit */
    double alpha;
    int64_t vector_bytes; /* maximum vector width */
    void *solved;      /* output: (rows, rank) */
    uint8_t *singular; /* output per row: 1 if singular */
} rddals_job;

/* Input and output of a top-N scan; `scan.py` mirrors this struct. All numbers are finite. */
typedef struct {
    int64_t rank;
    int64_t count;        /* number of queries */
    const float *queries; /* (count, rank) */
    const double *query_norms;
    const double *errors; /* error bound of the scores of each query */
    int64_t items;           /* number of items */
    const float *rows;       /* (items, rank), by descending norm */
    const double *norms;     /* norms of items */
    const int64_t *pointers; /* query q excludes excluded[pointers[q]] to
                                excluded[pointers[q + 1]], ascending; or NULL */
    const int64_t *excluded; /* places of excluded items, or NULL */
    int64_t tile; /* items scored at a time */
    int64_t vector_bytes;
    int64_t width; /* candidates per query, at most `items` */
    int64_t *keys; /* output, unordered: (count, width), items and scores */
} rddals_scan;

#endif
