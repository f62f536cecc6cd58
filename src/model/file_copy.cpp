// Files that are copied or compared as they are.
#include <algorithm>
#include <cstring>

#include "model/file_jobs.hpp"

namespace tersor::model_detail {
namespace {

constexpr std::uint64_t kStep = std::uint64_t{8} << 20;

}  // namespace

tl::unexpected<error> fail_file(errc code, std::string message, const std::filesystem::path& file) {
  return tl::unexpected<error>(error{.code = code, .message = std::move(message), .file = file.string()});
}

std::optional<std::uint64_t> first_difference(std::span<const std::byte> a,
                                              std::span<const std::byte> b) noexcept {
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0) return std::nullopt;
  return static_cast<std::uint64_t>(std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin());
}

status copy_file(session& run, const std::filesystem::path& src, safetensors::atomic_file& out) {
  TERSOR_TRY(const auto in, open_input(src, read_mode::pread));
  std::vector<std::byte> scratch;
  for (std::uint64_t at = 0; at < in.size(); at += kStep) {
    TERSOR_TRY(const auto bytes, in.view(at, std::min(kStep, in.size() - at), scratch));
    TERSOR_CHECK(out.write(bytes));
    TERSOR_CHECK(run.advance(bytes.size()));
  }
  return {};
}

result<std::string> read_text(const std::filesystem::path& path) {
  TERSOR_TRY(const auto in, open_input(path, read_mode::pread));
  std::string text(static_cast<std::size_t>(in.size()), '\0');
  TERSOR_CHECK(in.read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

status compare_files(session& run, const std::filesystem::path& a, const std::filesystem::path& b) {
  TERSOR_TRY(const auto left, open_input(a, read_mode::pread));
  TERSOR_TRY(const auto right, open_input(b, read_mode::pread));
  if (left.size() != right.size()) return fail_file(errc::mismatch, "the files have different sizes", b);
  std::vector<std::byte> left_scratch;
  std::vector<std::byte> right_scratch;
  for (std::uint64_t at = 0; at < left.size(); at += kStep) {
    const std::uint64_t n_bytes = std::min(kStep, left.size() - at);
    TERSOR_TRY(const auto x, left.view(at, n_bytes, left_scratch));
    TERSOR_TRY(const auto y, right.view(at, n_bytes, right_scratch));
    if (const auto differs = first_difference(x, y)) {
      auto e = fail_file(errc::mismatch, "the file differs from its copy", b);
      e.value().byte_offset = at + *differs;
      return e;
    }
    TERSOR_CHECK(run.advance(n_bytes));
  }
  return {};
}

}  // namespace tersor::model_detail
