/* Entry points: dispatch to the widest instruction set that this CPU supports. */
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "job.h"

#define EXPORT __attribute__((visibility("default")))

typedef int solver(const rddals_job *, int64_t, int64_t, double *);
typedef int builder(const rddals_job *, int64_t, int64_t, void *, void *, double *);
typedef int scanner(const rddals_scan *);

#define DECLARE(isa)                                                                       \
    solver rddals_solve_single_##isa, rddals_solve_double_##isa,                           \
        rddals_solve_double_rotated_##isa;                                                 \
    builder rddals_equations_single_##isa, rddals_equations_double_##isa;                  \
    scanner rddals_scan_items_##isa;

DECLARE(baseline)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#endif

#if defined(__x86_64__)
/* Registers that the operating system saves: XCR0. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Not every compiler's run-time library supports __builtin_cpu_supports. */
static int64_t widest_vectors(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 16;
    const int fma = c & bit_FMA, saves = (c & bit_OSXSAVE) && (c & bit_AVX);
    if (!saves || !fma || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 16;
    const uint64_t saved = saved_registers();
    const unsigned avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512VL | bit_AVX512BW;
    if ((saved & 0xe6) == 0xe6 && (b & avx512) == avx512) return 64;
    return (saved & 6) == 6 ? 32 : 16;
}
#else
static int64_t widest_vectors(void) { return 16; }
#endif

/* Vector width in bytes that this CPU and the job allow. */
static int64_t vector_bytes(int64_t most) {
    const int64_t widest = widest_vectors();
    return widest < most ? widest : most;
}

#if defined(__x86_64__)
#define CHOOSE(name, most)                                 \
    (vector_bytes(most) == 64   ? name##_avx512            \
     : vector_bytes(most) == 32 ? name##_avx2              \
                                : name##_baseline)
#else
#define CHOOSE(name, most) name##_baseline
#endif

/* Version of the structs and signatures; increment it with every change to them. */
EXPORT int rddals_abi(void) { return 2; }

EXPORT const char *rddals_instruction_set(void) {
#if defined(__x86_64__)
    const int64_t bytes = vector_bytes(64);
    return bytes == 64 ? "avx512" : bytes == 32 ? "avx2" : "sse2";
#elif defined(__aarch64__)
    return "neon";
#else
    return "baseline";
#endif
}

#define SOLVE(type)                                                                          \
    EXPORT int rddals_solve_##type(const rddals_job *job, int64_t start, int64_t stop,       \
                                   double *loss) {                                           \
        return CHOOSE(rddals_solve_##type, job->vector_bytes)(job, start, stop, loss);       \
    }
SOLVE(single)
SOLVE(double)
SOLVE(double_rotated)

#define EQUATIONS(type)                                                                      \
    EXPORT int rddals_equations_##type(const rddals_job *job, int64_t start, int64_t stop,   \
                                       void *matrices, void *targets, double *loss) {        \
        return CHOOSE(rddals_equations_##type, job->vector_bytes)(job, start, stop, matrices, \
                                                                   targets, loss);         \
    }
EQUATIONS(single)
EQUATIONS(double)

EXPORT int rddals_scan_items(const rddals_scan *scan) {
    return CHOOSE(rddals_scan_items, scan->vector_bytes)(scan);
}
