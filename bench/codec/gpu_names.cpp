#include "gpu_bench.hpp"

namespace tersor::bench {

std::string short_name(dtype type) {
  switch (type) {
    case dtype::bf16:
      return "bf16";
    case dtype::f16:
      return "f16";
    case dtype::f8_e4m3:
      return "e4m3";
    case dtype::f8_e5m2:
      return "e5m2";
    default:
      return std::string(to_string(type));
  }
}

std::optional<dtype> parse_short_name(std::string_view name) noexcept {
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f8_e4m3, dtype::f8_e5m2}) {
    if (short_name(type) == name) return type;
  }
  return std::nullopt;
}

}  // namespace tersor::bench
