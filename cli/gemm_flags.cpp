#include "gemm_flags.hpp"

#include <charconv>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "bench_gpu.hpp"

namespace tersor::cli {
namespace {

std::optional<std::uint64_t> parse_side(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

/// "4096x14336"
std::optional<bench::gemm_size> parse_size(std::string_view text) {
  const std::size_t cross = text.find('x');
  if (cross == std::string_view::npos) return std::nullopt;
  const auto rows = parse_side(text.substr(0, cross)), cols = parse_side(text.substr(cross + 1));
  if (!rows || !cols) return std::nullopt;
  return bench::gemm_size{*rows, *cols};
}

result<std::vector<bench::gemm_size>> sizes_of(const std::vector<std::string>& shapes) {
  std::vector<bench::gemm_size> sizes;
  for (const std::string& name : shapes) {
    std::vector<bench::gemm_size> named = bench::gemm_sizes_of(name);
    if (const auto size = parse_size(name)) named = {*size};
    if (named.empty()) {
      return fail(errc::invalid_argument,
                  fmt::format("no shapes '{}' (MxK, {})", name, fmt::join(bench::gemm_size_names(), ", ")));
    }
    sizes.insert(sizes.end(), named.begin(), named.end());
  }
  return sizes;
}

}  // namespace

void add_gemm_flags(CLI::App& verb, gemm_flags& flags, common_flags& common) {
  verb.add_option("--device", flags.device, "cuda:N; default: cuda:0")->type_name("NAME");
  verb.add_option("--shapes", flags.shapes,
                  "MxK, or a model's layers: " +
                      fmt::format("{}", fmt::join(bench::gemm_size_names(), ", ")) + "; default: targets")
      ->type_name("NAMES")
      ->delimiter(',');
  verb.add_option("--n", flags.options.n, "tokens; default: 1,8,16,32,64,128,256,1024,4096")
      ->type_name("NUMBERS")
      ->delimiter(',');
  verb.add_option("--layout", flags.layouts, "packed, tcatbe; default: packed")
      ->type_name("NAMES")
      ->delimiter(',');
  verb.add_option("--dtype", flags.type, "bf16 or f16; default: bf16")->type_name("NAME");
  verb.add_option("--input", flags.input, "BF16 weights of this file or directory, repeated to each shape")
      ->type_name("SRC");
  verb.add_option("--repeats", flags.options.repeats, "measurements, of which the median counts; default: 9")
      ->type_name("N")
      ->check(CLI::Range(1U, 100000U).description(""));
  add_threads_flag(verb, common);
}

result<bench::gemm_bench_options> gemm_options_of(const gemm_flags& flags, const common_flags& common) {
  bench::gemm_bench_options options = flags.options;
  const auto device = parse_cuda_device(flags.device);
  if (!device) return fail(errc::invalid_argument, fmt::format("no device '{}'; cuda:N is", flags.device));
  options.device = *device;
  options.threads = common.threads;
  if (options.sizes.empty()) {
    TERSOR_TRY(options.sizes,
               sizes_of(flags.shapes.empty() ? std::vector<std::string>{"targets"} : flags.shapes));
  }
  if (!flags.layouts.empty()) options.layouts.clear();
  for (const std::string& name : flags.layouts) {
    const auto layout = parse_matrix_layout(name);
    if (!layout) return fail(errc::invalid_argument, fmt::format("no layout '{}' (packed, tcatbe)", name));
    options.layouts.push_back(*layout);
  }
  if (flags.type != "bf16" && flags.type != "f16") {
    return fail(errc::invalid_argument, fmt::format("no dtype '{}' (bf16, f16)", flags.type));
  }
  options.type = flags.type == "f16" ? dtype::f16 : dtype::bf16;
  if (!flags.input.empty()) options.input = flags.input;
  return options;
}

}  // namespace tersor::cli
