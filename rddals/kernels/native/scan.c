/* Top-N scan of items, for the instruction set ISA that this file is compiled for;
 * `rddals/kernels/topk.py` states the method.
 *
 * Each lane is a query: a panel of queries is transposed, and a tile of scores stays in registers
 * until it is compared with the thresholds of the queries. Few scores pass, so few are processed
 * one by one. For a single query, each lane is an item instead.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "job.h"
#include "vectors.h"

#define LANES FLOAT_LANES
#define PANEL (3 * LANES) /* maximum queries per panel */
#define FEW 3             /* up to this number, queries are faster one by one than as a panel */

typedef float vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef float loose __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));
typedef int32_t mask __attribute__((vector_size(VECTOR_BYTES), may_alias));

/* Bit mask of the lanes of x that are above their bar. */
INLINE unsigned above(vec x, vec bar) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, (__m512)bar, _CMP_GT_OQ);
#elif defined(__AVX__)
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)bar, _CMP_GT_OQ));
#elif defined(__SSE2__)
    return (unsigned)_mm_movemask_ps(_mm_cmpgt_ps((__m128)x, (__m128)bar));
#else
    unsigned bits = 0;
    for (int l = 0; l < LANES; l++) bits |= (unsigned)(x[l] > bar[l]) << l;
    return bits;
#endif
}

/* ------------------------------------------------------------------ current top k */

/* A key is a score in the upper and a place in the lower 32 bits, as in `kernels/scan.py`. */
static int64_t key_of(float score, int64_t place) {
    int32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits ^= bits >> 31 & 0x7fffffff;
    return (int64_t)((uint64_t)(uint32_t)bits << 32 | (uint64_t)place);
}

static float score_of(int64_t key) {
    int32_t bits = (int32_t)(key >> 32);
    bits ^= bits >> 31 & 0x7fffffff;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static int is_excluded(const rddals_scan *scan, int64_t query, int64_t place) {
    if (!scan->excluded) return 0;
    int64_t low = scan->pointers[query], high = scan->pointers[query + 1];
    const int64_t end = high;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (scan->excluded[middle] < place) low = middle + 1;
        else high = middle;
    }
    return low < end && scan->excluded[low] == place;
}

/* Replace the lowest candidate of a query; return the new lowest score, its threshold. */
static float take(const rddals_scan *scan, int64_t query, int64_t place, float score,
                  float threshold) {
    if (is_excluded(scan, query, place)) return threshold;
    int64_t *const heap = scan->keys + query * scan->width; /* min-heap */
    const int64_t key = key_of(score, place), width = scan->width;
    int64_t hole = 0;
    for (int64_t child; (child = 2 * hole + 1) < width; hole = child) {
        if (child + 1 < width && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= key) break;
        heap[hole] = heap[child];
    }
    heap[hole] = key;
    return score_of(heap[0]);
}

static int in_reach(const rddals_scan *scan, int64_t query, int64_t place) {
    const double best = scan->query_norms[query] * scan->norms[place] + scan->errors[query];
    return best > score_of(scan->keys[query * scan->width]);
}

/* ------------------------------------------------------------------ panels of queries */

typedef struct {
    float *columns;                /* (rank, vectors * LANES) */
    int64_t queries[PANEL];        /* query of each lane */
    vec thresholds[3];             /* infinity for idle lanes */
} panel;

static void fill(const rddals_scan *scan, panel *p, const int64_t *queries, long count,
                 const int vectors) {
    const long lanes = vectors * LANES, rank = scan->rank;
    float *const thresholds = (float *)p->thresholds;
    for (long l = 0; l < lanes; l++) {
        const int idle = l >= count;
        const int64_t query = idle ? queries[0] : queries[l];
        const float *const row = scan->queries + query * rank;
        for (long r = 0; r < rank; r++) p->columns[r * lanes + l] = row[r];
        p->queries[l] = query;
        thresholds[l] = idle ? INFINITY : score_of(scan->keys[query * scan->width]);
    }
}

/* Score `items` consecutive items with a panel of `vectors` vectors. */
INLINE void score_panel(const rddals_scan *scan, panel *p, int64_t place, const int items,
                        const int vectors) {
    vec scores[NARROW_ROWS][3];
    const long rank = scan->rank;
    const float *const rows = scan->rows + place * rank;
    for (int i = 0; i < items; i++)
        for (int v = 0; v < vectors; v++) scores[i][v] = (vec){0};
    const float *column = p->columns;
    for (long r = 0; r < rank; r++, column += vectors * LANES) {
        vec across[3];
        for (int v = 0; v < vectors; v++) across[v] = *(const vec *)(column + v * LANES);
        for (int i = 0; i < items; i++) {
            const float down = rows[i * rank + r];
            for (int v = 0; v < vectors; v++) scores[i][v] += down * across[v];
        }
    }
    unsigned any = 0;
    for (int v = 0; v < vectors; v++)
        for (int i = 0; i < items; i++) any |= above(scores[i][v], p->thresholds[v]);
    if (!any) return;
    vec kept[NARROW_ROWS][3];
    for (int i = 0; i < items; i++)
        for (int v = 0; v < vectors; v++) kept[i][v] = scores[i][v];
    float *const thresholds = (float *)p->thresholds;
    for (int i = 0; i < items; i++)
        for (int v = 0; v < vectors; v++) {
            unsigned passed = above(kept[i][v], p->thresholds[v]);
            for (; passed; passed &= passed - 1) {
                const int lane = __builtin_ctz(passed), l = v * LANES + lane;
                const float score = ((const float *)&kept[i][v])[lane];
                thresholds[l] = take(scan, p->queries[l], place + i, score, thresholds[l]);
            }
        }
}

#define SCAN_PANEL(vectors, items)                                                           \
    static void scan_panel_##vectors(const rddals_scan *scan, panel *p, int64_t place,       \
                                     int64_t stop) {                                         \
        for (; place + items <= stop; place += items)                                        \
            score_panel(scan, p, place, items, vectors);                                     \
        for (; place < stop; place++) score_panel(scan, p, place, 1, vectors);               \
    }
SCAN_PANEL(1, NARROW_ROWS)
SCAN_PANEL(2, WIDE_ROWS)
SCAN_PANEL(3, WIDE_ROWS)

/* ------------------------------------------------------------------ one query */

#define ADD_UP(s)                                                                       \
    UNROLL for (int i = 0; i < s; i++) {                                                \
        const vec a = r[i], b = r[i + s];                                               \
        r[i] = SHUFFLE(mask, a, b, PASTE(PASTE(SWAP_, LANES), _##s##_LOW)) +      \
               SHUFFLE(mask, a, b, PASTE(PASTE(SWAP_, LANES), _##s##_HIGH));      \
    }

/* Return the sums of LANES vectors, as one vector. */
INLINE vec sums(vec *restrict r) {
#if LANES >= 16
    ADD_UP(8)
#endif
#if LANES >= 8
    ADD_UP(4)
#endif
    ADD_UP(2)
    ADD_UP(1)
    return r[0];
}

/* Scan items for one query. `padded` is the query, padded with zeros to whole vectors. Rows are
 * read beyond their end, where the finite numbers of the next row are multiplied by zero. */
static void scan_alone(const rddals_scan *scan, int64_t query, const vec *padded, int64_t place,
                       int64_t stop) {
    const long rank = scan->rank, vectors = (rank + LANES - 1) / LANES;
    const long beyond = (vectors * LANES - rank + rank - 1) / rank; /* rows that must follow */
    const int64_t whole = stop < scan->items - beyond ? stop : scan->items - beyond;
    float threshold = score_of(scan->keys[query * scan->width]);
    for (; place + LANES <= whole; place += LANES) {
        vec partial[LANES];
        const float *const rows = scan->rows + place * rank;
        for (int i = 0; i < LANES; i++) partial[i] = (vec){0};
        for (long v = 0; v < vectors; v++)
            for (int i = 0; i < LANES; i++)
                partial[i] += *(const loose *)(rows + i * rank + v * LANES) * padded[v];
        const vec scores = sums(partial);
        unsigned passed = above(scores, threshold - (vec){0});
        for (; passed; passed &= passed - 1) {
            const int lane = __builtin_ctz(passed);
            const float score = scores[lane];
            if (score > threshold) threshold = take(scan, query, place + lane, score, threshold);
        }
    }
    const float *const own = (const float *)padded;
    for (; place < stop; place++) {
        const float *const row = scan->rows + place * rank;
        float score = 0;
        for (long r = 0; r < rank; r++) score += row[r] * own[r];
        if (score > threshold) threshold = take(scan, query, place, score, threshold);
    }
}

/* ------------------------------------------------------------------ entry point */

int PASTE(rddals_scan_items_, ISA)(const rddals_scan *scan) {
    const long rank = scan->rank;
    const int64_t nothing = key_of(-INFINITY, 0);
    for (int64_t i = 0; i < scan->count * scan->width; i++) scan->keys[i] = nothing;
    panel p;
    p.columns = aligned_alloc(64, (size_t)(rank * PANEL * 4 + 64) / 64 * 64);
    int64_t *const live = malloc((size_t)(scan->count + 1) * sizeof *live);
    if (!p.columns || !live) {
        free(p.columns);
        free(live);
        return 1;
    }
    int64_t many = scan->count;
    for (int64_t i = 0; i < many; i++) live[i] = i;
    for (int64_t place = 0; place < scan->items && many; place += scan->tile) {
        int64_t stop = place + scan->tile, left = 0;
        if (stop > scan->items) stop = scan->items;
        for (int64_t i = 0; i < many; i++)
            if (in_reach(scan, live[i], place)) live[left++] = live[i];
        many = left;
        for (int64_t i = 0; i < many;) {
            const int64_t rest = many - i;
            if (rest <= FEW) {
                memset(p.columns, 0, (size_t)(rank + LANES) * sizeof(float));
                memcpy(p.columns, scan->queries + live[i] * rank, (size_t)rank * sizeof(float));
                scan_alone(scan, live[i], (const vec *)p.columns, place, stop);
                i++;
                continue;
            }
            const int vectors = rest > 2 * LANES ? 3 : rest > LANES ? 2 : 1;
            const long own = rest < vectors * LANES ? rest : vectors * LANES;
            fill(scan, &p, live + i, own, vectors);
            (vectors == 3 ? scan_panel_3 : vectors == 2 ? scan_panel_2 : scan_panel_1)(
                scan, &p, place, stop);
            i += own;
        }
    }
    free(live);
    free(p.columns);
    return 0;
}
