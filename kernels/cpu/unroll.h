/* Loops over register tiles must be unrolled, or the tile lives in memory. */
#ifndef CPU_UNROLL_H
#define CPU_UNROLL_H

#ifdef CPU_NO_UNROLL /* sanitizer builds */
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#endif
