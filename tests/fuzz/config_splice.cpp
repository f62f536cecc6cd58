// A model directory with any config.json: compressing and restoring gives the same text, and a changed text
// in a compressed directory is restored or refused.
#include "../faults/support.hpp"
#include "frames.hpp"
#include <tersor/model.hpp>

namespace {

namespace fs = std::filesystem;

/// A file of one F32 scalar.
std::vector<std::byte> tiny_model() {
  constexpr std::string_view kJson = R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  std::vector<std::byte> file(8 + kJson.size() + 4);
  file[0] = static_cast<std::byte>(kJson.size());
  for (std::size_t i = 0; i < kJson.size(); ++i) file[8 + i] = static_cast<std::byte>(kJson[i]);
  return file;
}

}  // namespace

TERSOR_FUZZ_TARGET(config_splice) {
  static const faults::temp_dir kDir;
  const fs::path src = kDir.path() / "model";
  const fs::path packed = kDir.path() / "packed";
  const fs::path back = kDir.path() / "back";
  const std::span<const std::byte> text = fuzz::as_bytes(data);
  fs::create_directory(src);
  if (!fs::exists(src / "model.safetensors")) faults::write_file(src / "model.safetensors", tiny_model());
  faults::write_file(src / "config.json", text);
  const tersor::context& ctx = fuzz::any_context();
  const tersor::model_options options{.overwrite = true};
  const auto compressed = tersor::compress(ctx, src, packed, options);
  if (compressed) {
    fuzz::require(tersor::verify(ctx, packed, src, options).has_value());
    fuzz::require(tersor::decompress(ctx, packed, back, options).has_value());
    fuzz::require(std::ranges::equal(faults::read_file(back / "config.json"), text));
    faults::write_file(packed / "config.json", text);
    const auto hostile = tersor::decompress(ctx, packed, back, options);
    fuzz::require(hostile.has_value() || hostile.error().code != tersor::errc::internal);
  } else {
    fuzz::require(compressed.error().code != tersor::errc::internal);
  }
}
