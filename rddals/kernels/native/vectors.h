/* Vector types and tile sizes for the instruction set that this file is compiled for.
 *
 * GCC and Clang share vector types and arithmetic, but not the syntax of shuffles.
 */
#ifndef RDDALS_VECTORS_H
#define RDDALS_VECTORS_H

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define FLOAT_LANES 16 /* a single token, for name pasting */
#define DOUBLE_LANES 8
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define FLOAT_LANES 8
#define DOUBLE_LANES 4
#else
#define VECTOR_BYTES 16
#define FLOAT_LANES 4
#define DOUBLE_LANES 2
#endif

/* Accumulators must stay in registers: AVX-512 and NEON have 32, the others 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define NARROW_ROWS 16 /* rows of a tile that is one vector wide */
#define WIDE_ROWS 8    /* rows of a tile that is two or three vectors wide */
#define BLOCK 4 /* rows and columns of a tile whose lanes are systems */
#else
#define NARROW_ROWS 8
#define WIDE_ROWS 4
#define BLOCK 3
#endif

#if defined(__clang__)
#define SHUFFLE(mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define UNROLL _Pragma("unroll")
#else
#define SHUFFLE(mask, a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define INLINE static inline __attribute__((always_inline))
#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

/* Shuffles of a transposition: two rows, s apart, swap their off-diagonal blocks of size s.
 * Lanes of the first row count from 0, lanes of the second from V, the number of lanes.
 */
#define SWAP_2_1_LOW 0, 2
#define SWAP_2_1_HIGH 1, 3
#define SWAP_4_1_LOW 0, 4, 2, 6
#define SWAP_4_1_HIGH 1, 5, 3, 7
#define SWAP_4_2_LOW 0, 1, 4, 5
#define SWAP_4_2_HIGH 2, 3, 6, 7
#define SWAP_8_1_LOW 0, 8, 2, 10, 4, 12, 6, 14
#define SWAP_8_1_HIGH 1, 9, 3, 11, 5, 13, 7, 15
#define SWAP_8_2_LOW 0, 1, 8, 9, 4, 5, 12, 13
#define SWAP_8_2_HIGH 2, 3, 10, 11, 6, 7, 14, 15
#define SWAP_8_4_LOW 0, 1, 2, 3, 8, 9, 10, 11
#define SWAP_8_4_HIGH 4, 5, 6, 7, 12, 13, 14, 15
#define SWAP_16_1_LOW 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define SWAP_16_1_HIGH 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define SWAP_16_2_LOW 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SWAP_16_2_HIGH 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define SWAP_16_4_LOW 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define SWAP_16_4_HIGH 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define SWAP_16_8_LOW 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SWAP_16_8_HIGH 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31

#endif
