// `tersor bench codec --device cuda:N`.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "gpu_bench.hpp"

namespace tersor::cli {

struct gpu_flags {
  bench::gpu_bench_options options;
  std::vector<std::string> codecs;
  std::vector<std::string> dtypes;
  std::string commit = "unknown";
  std::string output;
  std::string plot;
  std::string peer_json;
};

/// The number in "cuda" (0) or "cuda:N"; nullopt for other names.
[[nodiscard]] std::optional<int> parse_cuda_device(std::string_view name);

[[nodiscard]] int run_gpu_bench(const gpu_flags& flags, const common_flags& common);

}  // namespace tersor::cli
