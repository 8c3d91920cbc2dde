/* Solver of the rows of a half-step; `rddals/kernels/half_step.py` states the method.
 *
 * Included once for each pair of types: T is the type of the arithmetic, S that of the source rows.
 * NAME appends the SUFFIX of the pair.
 *
 * A group is LANES rows. In the primal form each row's G'G is summed separately, as tiles of its
 * lower triangle; then the systems of the group are interleaved, so that element (i, j) of all of
 * them is one vector. In the dual form the gathered source rows are interleaved. Each later step
 * works on all systems of the group at once. They share the latency of square roots and divisions,
 * and no lane is idle at the edge of a triangle.
 */

#define NAME(name) PASTE(name, SUFFIX)
#define vec NAME(vec)
#define mask NAME(mask)
#define stored NAME(stored)
#define scratch NAME(scratch)
#define LANES (VECTOR_BYTES / (int)sizeof(T))

typedef T vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef INT mask __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef S stored __attribute__((vector_size(LANES * sizeof(S)), may_alias));

typedef struct {
    long rank, width;  /* elements of a source row: without and with padding */
    long ld;           /* row stride of gathered rows and Gram matrices, with the target */
    long chunk;        /* ratings gathered at a time */
    long gram_numbers; /* elements from one row's Gram matrix to the next */
    long order;        /* maximum order of a dual system */
    int32_t *positions; /* positions of a chunk's entries in the table */
    T *ratings;
    T *gathered;
    T *grams;
    vec *system;     /* lower triangles of a group, and the targets as the last row */
    vec *sources;    /* (order, rank): gathered rows of a group, in the dual form */
    vec *weights;    /* (order,) */
    vec *root;       /* (rank,): inverse root of the diagonal, for implicit feedback */
    T *lane;         /* (2, width): solution and right-hand side of a row */
} scratch;

/* ------------------------------------------------------------------ vectors */

INLINE vec NAME(all)(T x) { return x - (vec){0}; }

INLINE vec NAME(read)(const S *row) { return __builtin_convertvector(*(const stored *)row, vec); }

INLINE vec NAME(inverse_root)(vec x) {
    for (int l = 0; l < LANES; l++) x[l] = SQRT(x[l]);
    return 1 / x;
}

INLINE double NAME(sum)(vec x) {
    double sum = 0;
    for (int l = 0; l < LANES; l++) sum += (double)x[l];
    return sum;
}

#define SWAP(s)                                                                        \
    UNROLL for (int i = 0; i < LANES; i++) if (!(i & s)) {                             \
        const vec a = r[i], b = r[i + s];                                              \
        r[i] = SHUFFLE(mask, a, b, PASTE(PASTE(SWAP_, LANES_TOKEN), _##s##_LOW));      \
        r[i + s] = SHUFFLE(mask, a, b, PASTE(PASTE(SWAP_, LANES_TOKEN), _##s##_HIGH)); \
    }

/* Transpose LANES rows of LANES elements in place. */
INLINE void NAME(transpose)(vec *restrict r) {
    SWAP(1)
#if LANES_TOKEN >= 4
    SWAP(2)
#endif
#if LANES_TOKEN >= 8
    SWAP(4)
#endif
#if LANES_TOKEN >= 16
    SWAP(8)
#endif
}

/* ------------------------------------------------------------------ entries */

static void NAME(decode)(const rddals_job *job, int64_t first, long count, int32_t *positions) {
    if (job->source_bytes == 2) {
        const uint16_t *sources = (const uint16_t *)job->sources + first;
        for (long t = 0; t < count; t++) positions[t] = sources[t];
    } else {
        memcpy(positions, (const int32_t *)job->sources + first, count * sizeof(int32_t));
    }
}

INLINE T NAME(rating)(const rddals_job *job, int64_t entry) {
    if (job->scale) return (T)job->scale[((const uint8_t *)job->codes)[entry]];
    return (T)((const float *)job->codes)[entry];
}

/* Weight and target of a rating, and its loss for a prediction of 0. */
INLINE void NAME(aim)(const rddals_job *job, T rating, T *weight, T *target, T *zero_loss) {
    if (!job->positives) {
        *weight = 1;
        *target = rating;
        *zero_loss = rating * rating;
        return;
    }
    const T confidence = (T)job->alpha * (rating < 0 ? -rating : rating);
    *weight = SQRT(confidence);
    *target = *zero_loss = 0;
    if (rating > 0) {
        /* With alpha = 0 the weight is 0 but w t must be 1 + c, so use a tiny weight instead. */
        if (*weight < SQRT(TINY)) *weight = SQRT(TINY);
        *target = (1 + confidence) / *weight;
        *zero_loss = 1 + confidence;
    }
}

INLINE void NAME(prefetch)(const rddals_job *job, int32_t position) {
    const char *row = (const char *)job->table + (int64_t)position * job->stride * sizeof(S);
    for (long b = 0; b < job->rank * (long)sizeof(S); b += 64) __builtin_prefetch(row + b);
}

/* ------------------------------------------------------------------ Gram matrices, row by row */

/* One tile of c, rows x vectors: sum over d gathered rows of g[i + r] * g[j + ...]. */
INLINE void NAME(tile)(T *restrict c, const T *restrict g, long ld, long d, long i, long j,
                       const int rows, const int vectors, int first) {
    vec acc[NARROW_ROWS][3];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) acc[r][v] = (vec){0};
    for (long t = 0; t < d; t++, g += ld) {
        vec across[3];
        for (int v = 0; v < vectors; v++) across[v] = *(const vec *)(g + j + v * LANES);
        for (int r = 0; r < rows; r++) {
            const T down = g[i + r];
            for (int v = 0; v < vectors; v++) acc[r][v] += down * across[v];
        }
    }
    c += i * ld + j;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            vec *into = (vec *)(c + r * ld + v * LANES);
            if (!first) acc[r][v] += *into;
            *into = acc[r][v];
        }
}

#define TILE(rows, vectors) \
    case rows: NAME(tile)(c, g, ld, d, i, j, rows, vectors, first); break;

static void NAME(tile_1)(T *c, const T *g, long ld, long d, long i, long j, long rows, int first) {
    switch (rows) {
        TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
#if NARROW_ROWS > 8
        TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1) TILE(15, 1)
        TILE(16, 1)
#endif
    }
}

static void NAME(tile_2)(T *c, const T *g, long ld, long d, long i, long j, long rows, int first) {
    switch (rows) {
        TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2)
#if WIDE_ROWS > 4
        TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2)
#endif
    }
}

static void NAME(tile_3)(T *c, const T *g, long ld, long d, long i, long j, long rows, int first) {
    switch (rows) {
        TILE(1, 3) TILE(2, 3) TILE(3, 3) TILE(4, 3)
#if WIDE_ROWS > 4
        TILE(5, 3) TILE(6, 3) TILE(7, 3) TILE(8, 3)
#endif
    }
}

/* Add the lower triangle of G'G over d gathered rows, and G't below it, to c; set c if first. */
static void NAME(add_gram)(T *c, const T *g, long ld, long d, long rank, int first) {
    long rows;
    for (long i = 0; i <= rank; i += rows) {
        long vectors;
        rows = NARROW_ROWS;
        for (;;) {
            if (rows > rank + 1 - i) rows = rank + 1 - i;
            /* The target's row is as wide as the last row of the matrix. */
            vectors = ((i + rows < rank ? i + rows : rank) + LANES - 1) / LANES;
            if (vectors == 1 || rows <= WIDE_ROWS) break;
            rows = WIDE_ROWS;
        }
        for (long j = 0; vectors > 0;) {
            const long wide = vectors == 4 ? 2 : vectors > 3 ? 3 : vectors;
            if (wide == 1) NAME(tile_1)(c, g, ld, d, i, j, rows, first);
            if (wide == 2) NAME(tile_2)(c, g, ld, d, i, j, rows, first);
            if (wide == 3) NAME(tile_3)(c, g, ld, d, i, j, rows, first);
            vectors -= wide;
            j += wide * LANES;
        }
    }
}

/* Compute the Gram matrix of one row; return its loss at x = 0. */
static T NAME(row_gram)(const rddals_job *job, const scratch *s, int64_t row, int64_t last,
                        T *gram) {
    const long rank = s->rank, ld = s->ld;
    T loss = 0;
    int64_t entry = job->pointers[row];
    const int64_t stop = job->pointers[row + 1];
    if (entry == stop) memset(gram, 0, (rank + 1) * ld * sizeof(T));
    for (int first = 1; entry < stop; first = 0) {
        const long count = stop - entry < s->chunk ? stop - entry : s->chunk;
        const long ahead = last - entry < count + AHEAD ? last - entry : count + AHEAD;
        NAME(decode)(job, entry, ahead, s->positions);
        T *g = s->gathered;
        for (long t = 0; t < count; t++, g += ld) {
            if (t + AHEAD < ahead) NAME(prefetch)(job, s->positions[t + AHEAD]);
            const S *source = (const S *)job->table + s->positions[t] * job->stride;
            T weight, target, zero_loss;
            NAME(aim)(job, NAME(rating)(job, entry + t), &weight, &target, &zero_loss);
            loss += zero_loss;
            if (job->positives)
                for (long j = 0; j < rank; j += LANES)
                    *(vec *)(g + j) = weight * NAME(read)(source + j);
            else
                for (long j = 0; j < rank; j += LANES) *(vec *)(g + j) = NAME(read)(source + j);
            g[rank] = target;
        }
        NAME(add_gram)(gram, s->gathered, ld, count, rank, first);
        entry += count;
    }
    return loss;
}

/* ------------------------------------------------------------------ a group's systems */

INLINE vec *NAME(row_of)(vec *system, long i) { return system + i * (i + 1) / 2; }

/* Add or subtract (sign) the products of rows a and rows b, summed over `depth`. */
INLINE void NAME(add_products)(vec acc[BLOCK][BLOCK], const vec *const *a, const vec *const *b,
                               long depth, const int rows, const int columns, const int sign) {
    for (long p = 0; p < depth; p++) {
        vec x[BLOCK];
        for (int r = 0; r < rows; r++) x[r] = a[r][p];
        for (int c = 0; c < columns; c++) {
            const vec y = b[c][p];
            for (int r = 0; r < rows; r++) {
                if (sign > 0) acc[r][c] += x[r] * y;
                else acc[r][c] -= x[r] * y;
            }
        }
    }
}

/* Factor `rows` rows from i, below the diagonal block of `columns` columns from j. */
INLINE void NAME(below)(vec *system, const vec *sources, long rank, long i, long j, const int rows,
                        const int columns, const vec *const *across, const vec *const *sources_j) {
    vec acc[BLOCK][BLOCK];
    vec *down[BLOCK];
    const vec *sources_i[BLOCK];
    for (int r = 0; r < rows; r++) {
        down[r] = NAME(row_of)(system, i + r);
        sources_i[r] = sources ? sources + (i + r) * rank : 0;
        for (int c = 0; c < columns; c++) acc[r][c] = sources ? (vec){0} : down[r][j + c];
    }
    if (sources)
        NAME(add_products)(acc, sources_i, sources_j, rank, rows, columns, 1);
    NAME(add_products)(acc, (const vec *const *)down, across, j, rows, columns, -1);
    for (int c = 0; c < columns; c++)
        for (int r = 0; r < rows; r++) {
            for (int q = 0; q < c; q++) acc[r][c] -= acc[r][q] * across[c][j + q];
            down[r][j + c] = acc[r][c] *= across[c][j + c]; /* the diagonal stores inverses */
        }
}

INLINE void NAME(factor_block)(vec *system, const vec *sources, long rank, long n, long j,
                               const int columns, const vec *shift, mask *singular) {
    vec acc[BLOCK][BLOCK], least[BLOCK];
    vec *across[BLOCK];
    const vec *sources_j[BLOCK];
    for (int c = 0; c < columns; c++) {
        across[c] = NAME(row_of)(system, j + c);
        sources_j[c] = sources ? sources + (j + c) * rank : 0;
        for (int q = 0; q <= c; q++) acc[c][q] = sources ? (vec){0} : across[c][j + q];
        for (int q = c + 1; q < columns; q++) acc[c][q] = (vec){0};
    }
    if (sources) {
        NAME(add_products)(acc, sources_j, sources_j, rank, columns, columns, 1);
        for (int c = 0; c < columns; c++) acc[c][c] += shift[j + c];
    }
    for (int c = 0; c < columns; c++) least[c] = acc[c][c] * ((T)n * EPSILON);
    NAME(add_products)(acc, (const vec *const *)across, (const vec *const *)across, j, columns,
                       columns, -1);
    for (int c = 0; c < columns; c++) {
        *singular |= ~(acc[c][c] > least[c]);
        const vec inverse = NAME(inverse_root)(acc[c][c]);
        across[c][j + c] = inverse;
        for (int r = c + 1; r < columns; r++) across[r][j + c] = acc[r][c] *= inverse;
        for (int r = c + 1; r < columns; r++)
            for (int q = c + 1; q <= r; q++) acc[r][q] -= acc[r][c] * acc[q][c];
    }
    long i = j + columns;
    for (; i < n; i += BLOCK)
        NAME(below)(system, sources, rank, i, j, BLOCK, columns, (const vec *const *)across,
                    sources_j);
    NAME(below)(system, 0, rank, n, j, 1, columns, (const vec *const *)across, sources_j);
}

/* Solve a group's systems of order n in place, by Cholesky factorisation.
 *
 * Row n of the system contains the right-hand sides b on input and the solutions on output. With
 * `sources` the matrices are G G' + diag(shift), otherwise those in `system`. Returns b'x of each.
 */
static vec NAME(solve)(vec *system, const vec *sources, long rank, long n, const vec *shift,
                       mask *singular) {
    long j = n % BLOCK; /* partial block first; all others are whole */
    if (j == 1) NAME(factor_block)(system, sources, rank, n, 0, 1, shift, singular);
    if (j == 2) NAME(factor_block)(system, sources, rank, n, 0, 2, shift, singular);
#if BLOCK > 3
    if (j == 3) NAME(factor_block)(system, sources, rank, n, 0, 3, shift, singular);
#endif
    for (; j < n; j += BLOCK)
        NAME(factor_block)(system, sources, rank, n, j, BLOCK, shift, singular);
    vec *x = NAME(row_of)(system, n), product = {0};
    for (long i = 0; i < n; i++) product += x[i] * x[i]; /* b'A^-1 b = |L^-1 b|^2 */
    for (long i = n; i-- > 0;) {
        const vec *row = NAME(row_of)(system, i);
        const vec solved = x[i] * row[i];
        x[i] = solved;
        for (long p = 0; p < i; p++) x[p] -= row[p] * solved;
    }
    return product;
}

/* Solve a group in the primal form: interleave its Gram matrices and add the diagonal. */
static double NAME(primal)(const rddals_job *job, const scratch *s, int64_t first, int count,
                           int64_t last) {
    const long rank = s->rank, ld = s->ld, step = s->gram_numbers;
    const T *eigenvalues = job->eigenvalues;
    vec ridge = NAME(all)(1), x[LANES];
    mask singular = {0};
    double loss = 0;
    for (int l = 0; l < count; l++) {
        ridge[l] = ((const T *)job->ridge)[first + l];
        loss += (double)NAME(row_gram)(job, s, first + l, last, s->grams + l * step);
    }
    /* Unused lanes repeat the system of the first row. */
    for (long i = 0; i <= rank; i++) {
        vec *into = NAME(row_of)(s->system, i);
        const long columns = i < rank ? i + 1 : rank;
        for (long j = 0; j < columns; j += LANES) {
            UNROLL for (int l = 0; l < LANES; l++)
                x[l] = *(const vec *)(s->grams + (l < count ? l : 0) * step + i * ld + j);
            NAME(transpose)(x);
            UNROLL for (int q = 0; q < LANES; q++) if (j + q < columns) into[j + q] = x[q];
        }
        if (i < rank) into[i] += ridge + eigenvalues[i];
    }
    const vec product = NAME(solve)(s->system, 0, rank, rank, 0, &singular);
    const vec *solution = NAME(row_of)(s->system, rank);
    for (long j = 0; j < rank; j += LANES) {
        const long numbers = rank - j < LANES ? rank - j : LANES;
        UNROLL for (int q = 0; q < LANES; q++) x[q] = solution[j + q];
        NAME(transpose)(x);
        T *into = (T *)job->solved + first * rank + j;
        for (int l = 0; l < count; l++) memcpy(into + l * rank, &x[l], numbers * sizeof(T));
    }
    for (int l = 0; l < count; l++) {
        loss -= (double)product[l];
        if (singular[l]) job->singular[first + l] = 1;
    }
    return loss;
}

/* Solve a group in the dual form, with systems of the order of its largest degree. */
static double NAME(dual)(const rddals_job *job, const scratch *s, int64_t first, int count) {
    const long rank = s->rank, width = s->width, order = s->order;
    const T *eigenvalues = job->eigenvalues;
    const int implicit = job->positives != 0;
    int64_t degrees[LANES] = {0};
    long n = 0;
    double loss = 0;
    vec ridge = NAME(all)(1), x[LANES];
    mask singular = {0};
    for (int l = 0; l < count; l++) {
        ridge[l] = ((const T *)job->ridge)[first + l];
        if (implicit && job->positives[first + l] == 0) continue; /* its solution is 0 */
        degrees[l] = job->pointers[first + l + 1] - job->pointers[first + l];
        if (degrees[l] > n) n = degrees[l];
    }
    vec *targets = NAME(row_of)(s->system, n), *shift = s->weights + order;
    for (int l = 0; l < LANES; l++) {
        const int64_t entry = l < count ? job->pointers[first + l] : 0;
        int32_t *positions = s->positions + l * order;
        NAME(decode)(job, entry, degrees[l], positions);
        for (long t = 0; t < degrees[l]; t++) {
            T weight, target, zero_loss;
            NAME(aim)(job, NAME(rating)(job, entry + t), &weight, &target, &zero_loss);
            targets[t][l] = target;
            s->weights[t][l] = weight;
            shift[t][l] = implicit ? 1 : ridge[l];
            if (implicit) loss += (double)zero_loss;
        }
        for (long t = degrees[l]; t < n; t++) { /* padding: rows of zeros, with solution 0 */
            positions[t] = (int32_t)job->table_rows;
            targets[t][l] = s->weights[t][l] = 0;
            shift[t][l] = 1;
        }
    }
    if (implicit)
        for (long j = 0; j < rank; j++) s->root[j] = NAME(inverse_root)(ridge + eigenvalues[j]);
    for (long t = 0; t < n; t++) {
        const S *row[LANES];
        for (int l = 0; l < LANES; l++) {
            row[l] = (const S *)job->table + s->positions[l * order + t] * job->stride;
            if (t + 1 < n) NAME(prefetch)(job, s->positions[l * order + t + 1]);
        }
        vec *into = s->sources + t * rank;
        for (long j = 0; j < rank; j += LANES) {
            UNROLL for (int l = 0; l < LANES; l++) x[l] = NAME(read)(row[l] + j);
            NAME(transpose)(x);
            UNROLL for (int q = 0; q < LANES; q++) if (j + q < rank) into[j + q] = x[q];
        }
        if (implicit)
            for (long j = 0; j < rank; j++) into[j] *= s->weights[t] * s->root[j];
    }
    if (implicit) memcpy(s->sources + n * rank, targets, n * sizeof(vec));
    const vec *aims = s->sources + n * rank;
    const vec product = NAME(solve)(s->system, s->sources, rank, n, shift, &singular);
    /* x = G'y of each row, reading the source rows from the table again. */
    for (int l = 0; l < count; l++) {
        T *solution = s->lane, *right = s->lane + width;
        for (long j = 0; j < rank; j += LANES) {
            vec sum = {0}, sum_right = {0};
            for (long t = 0; t < degrees[l]; t++) {
                const S *row = (const S *)job->table + s->positions[l * order + t] * job->stride;
                const vec source = NAME(read)(row + j);
                if (implicit) {
                    const T weight = s->weights[t][l];
                    sum += source * (targets[t][l] * weight);
                    sum_right += source * (aims[t][l] * weight);
                } else {
                    sum += source * targets[t][l];
                }
            }
            *(vec *)(solution + j) = sum;
            *(vec *)(right + j) = sum_right;
        }
        if (implicit)
            for (long j = 0; j < rank; j++) {
                solution[j] *= s->root[j][l] * s->root[j][l];
                loss -= (double)(solution[j] * right[j]);
            }
        else
            loss += (double)(ridge[l] * product[l]); /* r'r - x'b, without cancellation */
        memcpy((T *)job->solved + (first + l) * rank, solution, rank * sizeof(T));
        if (singular[l]) job->singular[first + l] = 1;
    }
    return loss;
}

/* ------------------------------------------------------------------ rows */

/* Set the pointers into the scratch memory; return its size in bytes. */
static size_t NAME(lay_out)(const rddals_job *job, scratch *s, char *memory) {
    const long rank = job->rank;
    s->rank = rank;
    s->width = (rank + LANES - 1) / LANES * LANES;
    s->ld = (rank + LANES) / LANES * LANES; /* rank + 1, rounded up */
    s->chunk = GATHERED_BYTES / (long)(s->ld * sizeof(T));
    if (s->chunk < 16) s->chunk = 16;
    if (s->chunk > 512) s->chunk = 512;
    s->order = job->dual_below > 0 ? job->dual_below : 1;
    /* An odd number of cache lines, so that the lanes' rows do not map to the same cache sets. */
    s->gram_numbers = ((rank + 1) * s->ld * (long)sizeof(T) / 128 * 128 + 192) / (long)sizeof(T);
    const long largest = rank > s->order ? rank : s->order;
    size_t used = 0;
#define PART(name, bytes)                                     \
    s->name = (void *)(memory + used);                        \
    used += ((size_t)(bytes) + 127) / 128 * 128;
    PART(positions, (s->chunk + AHEAD + LANES * s->order) * sizeof(int32_t))
    PART(gathered, s->chunk * s->ld * sizeof(T))
    PART(grams, LANES * s->gram_numbers * sizeof(T))
    PART(system, ((largest + 1) * (largest + 2) / 2 + LANES) * sizeof(vec))
    PART(sources, s->order * (rank + 1) * sizeof(vec))
    PART(weights, 2 * s->order * sizeof(vec))
    PART(root, rank * sizeof(vec))
    PART(lane, 2 * s->width * sizeof(T))
#undef PART
    return used;
}

/* Solve rows `start` to `stop` and add their loss. Returns nonzero if out of memory. */
int NAME(rddals_solve)(const rddals_job *job, int64_t start, int64_t stop, double *loss) {
    scratch s;
    void *memory = 0;
    if (posix_memalign(&memory, 128, NAME(lay_out)(job, &s, 0))) return 1;
    NAME(lay_out)(job, &s, memory);
    const int64_t last = job->pointers[stop];
    for (int64_t row = start; row < stop;) {
        int count = 0, dual = 0;
        for (; count < LANES && row + count < stop; count++) {
            const int64_t d = job->pointers[row + count + 1] - job->pointers[row + count];
            if (count && (d < job->dual_below) != dual) break;
            dual = d < job->dual_below;
        }
        *loss += dual ? NAME(dual)(job, &s, row, count) : NAME(primal)(job, &s, row, count, last);
        row += count;
    }
    free(memory);
    return 0;
}

/* Build the normal equations of rows `start` to `stop`, (n, rank, rank) and (n, rank), and add
 * their loss at x = 0. Returns nonzero if out of memory. */
int NAME(rddals_equations)(const rddals_job *job, int64_t start, int64_t stop, void *matrices,
                           void *targets, double *loss) {
    scratch s;
    void *memory = 0;
    if (posix_memalign(&memory, 128, NAME(lay_out)(job, &s, 0))) return 1;
    NAME(lay_out)(job, &s, memory);
    const long rank = s.rank, ld = s.ld;
    for (int64_t row = start; row < stop; row++) {
        T *a = (T *)matrices + (row - start) * rank * rank, *gram = s.grams;
        *loss += (double)NAME(row_gram)(job, &s, row, job->pointers[stop], gram);
        for (long i = 0; i < rank; i++) {
            for (long j = 0; j <= i; j++) a[i * rank + j] = a[j * rank + i] = gram[i * ld + j];
            a[i * rank + i] += ((const T *)job->ridge)[row];
        }
        memcpy((T *)targets + (row - start) * rank, gram + rank * ld, rank * sizeof(T));
    }
    free(memory);
    return 0;
}

#undef SWAP
#undef TILE
#undef LANES
#undef scratch
#undef stored
#undef mask
#undef vec
#undef NAME
