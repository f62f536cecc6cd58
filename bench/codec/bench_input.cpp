#include "bench_input.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>

#include "safetensors/header.hpp"
#include "safetensors/input_file.hpp"
#include <tersor/model.hpp>

namespace tersor::bench {
namespace {

status append_file(const std::filesystem::path& path, std::vector<bench_tensor>& out) {
  TERSOR_TRY(const auto file, safetensors::input_file::open(path, safetensors::read_mode::pread));
  auto header = safetensors::read_header(file);
  if (!header) {
    error e = std::move(header).error();
    e.file = path.string();
    return tl::unexpected<error>(std::move(e));
  }
  for (const auto& tensor : header->tensors) {
    if (tensor.dtype != "BF16" || tensor.begin == tensor.end) continue;
    bench_tensor& added = out.emplace_back(tensor.name, std::vector<std::byte>(tensor.end - tensor.begin));
    TERSOR_CHECK(file.read_at(header->data_offset() + tensor.begin, added.bytes));
  }
  return {};
}

result<std::vector<std::filesystem::path>> list_files(const std::filesystem::path& path) {
  std::error_code code;
  if (!std::filesystem::is_directory(path, code)) return std::vector{path};
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator it(path, code), end; !code && it != end; it.increment(code)) {
    if (it->path().extension() == ".safetensors") files.push_back(it->path());
  }
  if (code) {
    return tl::unexpected<error>(
        error{.code = errc::io_error, .message = "cannot list: " + code.message(), .file = path.string()});
  }
  std::sort(files.begin(), files.end());
  return files;
}

// SplitMix64 (Steele, Lea, Flood 2014).
struct splitmix64 {
  std::uint64_t state;
  std::uint64_t next() noexcept {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// In (0, 1].
  double uniform() noexcept { return (static_cast<double>(next() >> 11) + 1.0) * 0x1p-53; }
};

std::uint16_t to_bf16(double value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

result<std::vector<bench_tensor>> load_bf16(const std::filesystem::path& path) {
  TERSOR_TRY(const auto files, list_files(path));
  std::vector<bench_tensor> tensors;
  for (const auto& file : files) TERSOR_CHECK(append_file(file, tensors));
  if (tensors.empty()) {
    return tl::unexpected<error>(
        error{.code = errc::not_found, .message = "holds no BF16 tensor", .file = path.string()});
  }
  return tensors;
}

bench_tensor synthetic_bf16(std::size_t n_bytes) {
  constexpr double kSpread = 0.02;
  std::vector<std::byte> bytes(n_bytes / 4 * 4);
  splitmix64 random{.state = 1};
  for (std::size_t at = 0; at < bytes.size(); at += 4) {
    // Box and Muller: two normal values from two uniform ones.
    const double radius = kSpread * std::sqrt(-2.0 * std::log(random.uniform()));
    const double angle = 2.0 * std::numbers::pi * random.uniform();
    const std::uint16_t pair[2] = {to_bf16(radius * std::cos(angle)), to_bf16(radius * std::sin(angle))};
    std::memcpy(bytes.data() + at, pair, sizeof pair);
  }
  return {.name = "synthetic", .bytes = std::move(bytes)};
}

std::vector<segment> tile_by_tensor(const std::vector<bench_tensor>& tensors, std::span<std::byte> dst) {
  std::uint64_t content = 0;
  for (const bench_tensor& tensor : tensors) content += tensor.bytes.size();
  const std::uint64_t copies = (dst.size() + content - 1) / content;
  std::vector<segment> segments;
  std::uint64_t at = 0;
  for (const bench_tensor& tensor : tensors) {
    const std::uint64_t begin = at;
    for (std::uint64_t copy = 0; copy < copies && at < dst.size(); ++copy) {
      const std::uint64_t n = std::min<std::uint64_t>(tensor.bytes.size(), dst.size() - at);
      std::memcpy(dst.data() + at, tensor.bytes.data(), n);
      at += n;
    }
    if (at != begin) segments.push_back({.offset = begin, .n_bytes = at - begin});
  }
  return segments;
}

void tile_by_copy(const std::vector<bench_tensor>& tensors, std::span<std::byte> dst) noexcept {
  std::uint64_t at = 0;
  while (at < dst.size()) {
    for (const bench_tensor& tensor : tensors) {
      const std::uint64_t n = std::min<std::uint64_t>(tensor.bytes.size(), dst.size() - at);
      std::memcpy(dst.data() + at, tensor.bytes.data(), n);
      at += n;
    }
  }
}

status calibrate_segments(const context& ctx, const std::optional<std::filesystem::path>& calibration_input,
                          dtype type, std::span<const std::string> names, std::span<const std::byte> source,
                          std::span<segment> segments) {
  codebook_set books;
  if (calibration_input) {
    TERSOR_TRY(const auto found, analyze(ctx, {*calibration_input}));
    books = calibrate(found);
  }
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (const auto book = books.find(names[i], type)) {
      segments[i].book = *book;
      continue;
    }
    TERSOR_TRY(const auto counts,
               count_symbols(ctx, type, source.subspan(segments[i].offset, segments[i].n_bytes)));
    TERSOR_TRY(segments[i].book, make_codebook(type, counts));
  }
  return {};
}

}  // namespace tersor::bench
