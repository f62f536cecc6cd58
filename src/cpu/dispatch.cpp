#include <array>
#include <cstdlib>
#include <string>

#include "cpu/backends.hpp"

namespace tersor::cpu {
namespace {

#if defined(TERSOR_HAVE_AVX2) || defined(TERSOR_HAVE_AVX512)
bool has_avx2() noexcept {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt");
}
#endif
#ifdef TERSOR_HAVE_AVX512
bool has_avx512() noexcept {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
}
#endif

}  // namespace

std::span<const backend> all_backends() noexcept {
  static const auto kBackends = std::to_array<backend>({
#ifdef TERSOR_HAVE_AVX512
      {&avx512_ops(), has_avx512(), "AVX-512 F, BW, DQ, VL, VBMI, VBMI2"},
#endif
#ifdef TERSOR_HAVE_AVX2
      {&avx2_ops(), has_avx2(), "AVX2, BMI1, BMI2, POPCNT"},
#endif
#ifdef TERSOR_HAVE_NEON
      {&neon_ops(), true, "NEON (every AArch64)"},
#endif
      {&scalar_ops(), true, "nothing"},
  });
  return kBackends;
}

result<const codec_detail::tile_ops*> choose_backend(std::string_view name) {
  std::string source = "backend";
  if (name.empty()) {
    if (const char* forced = std::getenv("TERSOR_BACKEND"); forced != nullptr && *forced != '\0') {
      name = forced;
      source = "TERSOR_BACKEND";
    }
  }
  for (const backend& candidate : all_backends()) {
    if (name.empty() ? candidate.supported : name == candidate.ops->name) {
      if (candidate.supported) return candidate.ops;
      return fail(errc::backend_unavailable, source + " '" + std::string(name) + "' needs " +
                                                 candidate.needs + ", which this CPU lacks");
    }
  }
  return fail(errc::backend_unavailable, source + " '" + std::string(name) + "' is not in this build");
}

}  // namespace tersor::cpu
