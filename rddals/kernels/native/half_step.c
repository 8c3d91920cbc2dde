/* The half-step, for the instruction set ISA that this file is compiled for. */
#include <math.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "vectors.h"

#define AHEAD 16               /* prefetch distance, in entries */
#define GATHERED_BYTES (24 << 10) /* gathered rows processed at a time: half an L1 cache */

/* float32 throughout */
#define T float
#define S float
#define INT int32_t
#define SQRT sqrtf
#define TINY FLT_MIN
#define EPSILON FLT_EPSILON
#define LANES_TOKEN FLOAT_LANES
#define SUFFIX PASTE(_single_, ISA)
#include "rows.h"
#undef SUFFIX
#undef LANES_TOKEN
#undef EPSILON
#undef TINY
#undef SQRT
#undef INT
#undef S
#undef T

/* float64, with source rows of either type */
#define T double
#define INT int64_t
#define SQRT sqrt
#define TINY DBL_MIN
#define EPSILON DBL_EPSILON
#define LANES_TOKEN DOUBLE_LANES
#define S float
#define SUFFIX PASTE(_double_, ISA)
#include "rows.h"
#undef SUFFIX
#undef S
#define S double
#define SUFFIX PASTE(_double_rotated_, ISA)
#include "rows.h"
