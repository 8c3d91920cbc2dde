/* Entry points: the widest instruction set that this CPU has does the work. */
#include "job.h"

#define EXPORT __attribute__((visibility("default")))

typedef int solver(const rddals_job *, int64_t, int64_t, double *);
typedef int builder(const rddals_job *, int64_t, int64_t, void *, void *, double *);

#define DECLARE(isa)                                                                       \
    solver rddals_solve_single_##isa, rddals_solve_double_##isa,                           \
        rddals_solve_double_rotated_##isa;                                                 \
    builder rddals_equations_single_##isa, rddals_equations_double_##isa;

DECLARE(baseline)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#define HAS_AVX512                                                               \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&  \
     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define CHOOSE(name)                                                    \
    (HAS_AVX512 && job->vector_bytes >= 64 ? name##_avx512              \
     : HAS_AVX2 && job->vector_bytes >= 32 ? name##_avx2                \
                                           : name##_baseline)
#else
#define CHOOSE(name) name##_baseline
#endif

/* Goes up whenever the struct or a signature changes. */
EXPORT int rddals_abi(void) { return 1; }

EXPORT const char *rddals_instruction_set(void) {
#if defined(__x86_64__)
    return HAS_AVX512 ? "avx512" : HAS_AVX2 ? "avx2" : "sse2";
#elif defined(__aarch64__)
    return "neon";
#else
    return "baseline";
#endif
}

#define SOLVE(type)                                                                          \
    EXPORT int rddals_solve_##type(const rddals_job *job, int64_t start, int64_t stop,       \
                                   double *loss) {                                           \
        return CHOOSE(rddals_solve_##type)(job, start, stop, loss);                          \
    }
SOLVE(single)
SOLVE(double)
SOLVE(double_rotated)

#define EQUATIONS(type)                                                                      \
    EXPORT int rddals_equations_##type(const rddals_job *job, int64_t start, int64_t stop,   \
                                       void *matrices, void *targets, double *loss) {        \
        return CHOOSE(rddals_equations_##type)(job, start, stop, matrices, targets, loss);   \
    }
EQUATIONS(single)
EQUATIONS(double)
