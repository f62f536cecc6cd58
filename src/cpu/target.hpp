// Marks code for an instruction set newer than the build's baseline. Only anonymous-namespace code may stand
// between BEGIN and END, and every header must be included before: a weak inline function compiled here could
// otherwise be the copy that the linker keeps for callers on older CPUs.
#pragma once

#define TERSOR_PRAGMA(text) _Pragma(#text)

#ifdef __clang__
#define TERSOR_TARGET_BEGIN(list) \
  TERSOR_PRAGMA(clang attribute push(__attribute__((target(list))), apply_to = function))
#define TERSOR_TARGET_END TERSOR_PRAGMA(clang attribute pop)
#else
#define TERSOR_TARGET_BEGIN(list) TERSOR_PRAGMA(GCC push_options) TERSOR_PRAGMA(GCC target(list))
#define TERSOR_TARGET_END TERSOR_PRAGMA(GCC pop_options)
#endif

#define TERSOR_TARGET_AVX2 "avx2,bmi,bmi2,popcnt"
#define TERSOR_TARGET_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2," TERSOR_TARGET_AVX2
