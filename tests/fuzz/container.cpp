// Any bytes as a compressed file: verify, inspect and decompress must agree, and leave nothing behind on an
// error.
#include <cstdio>

#include "../faults/support.hpp"
#include "frames.hpp"
#include <tersor/model.hpp>

namespace {

/// Puts the right digest into a header that begins like a container's.
void reseal_container(std::vector<std::byte>& file) {
  constexpr std::string_view kStart = R"({"__metadata__":{"tersor":"1","tersor.header_digest":")";
  constexpr std::size_t kDigits = 16;
  if (file.size() < 8 + kStart.size() + kDigits) return;
  std::uint64_t n = 0;
  for (unsigned i = 0; i < 8; ++i) n |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  if (n > file.size() - 8 || n < kStart.size() + kDigits) return;
  char* json = reinterpret_cast<char*>(file.data()) + 8;
  char* digits = json + kStart.size();
  std::fill_n(digits, kDigits, '0');
  const std::uint64_t digest = tersor::digest_bytes(
      fuzz::any_context(), 3, std::as_bytes(std::span(json, static_cast<std::size_t>(n))));
  for (std::size_t i = 0; i < kDigits; ++i) digits[i] = "0123456789abcdef"[digest >> (60 - 4 * i) & 15];
}

}  // namespace

TERSOR_FUZZ_TARGET(container) {
  static const faults::temp_dir kDir;
  const auto src = kDir.path() / "in.safetensors";
  const auto dst = kDir.path() / "out.safetensors";
  fuzz::reader in(data);
  const std::uint8_t disguise = in.byte();
  const auto rest = fuzz::as_bytes(in.rest());
  std::vector<std::byte> file(rest.begin(), rest.end());
  if (disguise % 8 != 0) reseal_container(file);
  faults::write_file(src, file);
  const tersor::context& ctx = fuzz::any_context();
  const tersor::model_options options{
      .overwrite = true, .read = disguise % 2 == 0 ? tersor::read_mode::pread : tersor::read_mode::mmap};
  const auto verified = tersor::verify(ctx, src, std::nullopt, options);
  const auto restored = tersor::decompress(ctx, src, dst, options);
  fuzz::require(verified.has_value() == restored.has_value());
  if (restored) {
    fuzz::require(tersor::inspect_model(src, options).has_value());
    std::filesystem::remove(dst);
  } else {
    fuzz::require(restored.error().code == verified.error().code);
    fuzz::require(restored.error().code != tersor::errc::internal);
  }
  fuzz::require(kDir.names().size() == 1);
}
