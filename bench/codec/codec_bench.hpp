// Speed and ratio of the codecs beside memcpy and general compressors, on the same bytes in the same minutes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <tersor/error.hpp>

namespace tersor::bench {

struct codec_bench_options {
  unsigned threads = 1;
  /// A safetensors file, or a directory of them, whose BF16 tensors are the input; none = synthetic weights.
  std::optional<std::filesystem::path> input = {};
  /// Where the codebooks come from (by tensor name, type or dtype); none = each tensor's own.
  std::optional<std::filesystem::path> calibration_input = {};
  /// Names of contenders ("rank", "top16", "raw", "zstd-1", "zstd-3", "lz4"); empty = all but raw.
  std::vector<std::string> codecs = {};
  std::uint64_t n_bytes = std::uint64_t{256} << 20;
  unsigned repeats = 9;  ///< rounds at least
  double seconds = 0;    ///< go on with rounds until this much time has passed
  /// Called before each round with its number (0 = warm-up and check) and the number of rounds planned.
  std::function<void(unsigned, unsigned)> on_round = {};
};

struct codec_row {
  std::string name;
  double ratio = 0;  ///< original bytes / encoded bytes
  double encode_gb_s = 0;
  double decode_gb_s = 0;
  std::optional<double> encode_auto_gb_s =
      {};  ///< with the exact histogram inside; Tersor's coded codecs only
};

struct codec_bench_report {
  double memcpy_gb_s = 0;
  unsigned threads = 1;
  std::string input;
  std::uint64_t n_bytes = 0;
  std::string backend;
  unsigned rounds = 0;
  std::uint64_t input_bytes = 0;  ///< distinct content before tiling
  std::vector<codec_row> rows;
  std::vector<std::string> absent;  ///< contenders that this build does not have
};

/// Every contender must give the input back bit for bit (errc::internal otherwise) before anything is
/// reported. All speeds are medians, in 1e9 original bytes a second.
[[nodiscard]] result<codec_bench_report> run_codec_bench(const codec_bench_options& options);

/// Versions of the compressors that this build measures beside Tersor, e.g. {"zstd", "1.5.4"}.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> peer_versions();

}  // namespace tersor::bench
