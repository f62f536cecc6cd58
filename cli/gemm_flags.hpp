// What `tersor bench gemm` and `tersor tune` have in common.
#pragma once

#include <string>
#include <vector>

#include "command.hpp"
#include "gemm_bench.hpp"

namespace tersor::cli {

struct gemm_flags {
  std::string device = "cuda:0";
  std::vector<std::string> shapes;  ///< names, or MxK
  std::vector<std::string> layouts;
  std::string type = "bf16";
  std::string input;
  bench::gemm_bench_options options;
};

/// --device, --shapes, --n, --layout, --dtype, --input, --repeats, -T.
void add_gemm_flags(CLI::App& verb, gemm_flags& flags, common_flags& common);

/// The options with all names understood. Errors: `invalid_argument`.
[[nodiscard]] result<bench::gemm_bench_options> gemm_options_of(const gemm_flags& flags,
                                                                const common_flags& common);

}  // namespace tersor::cli
