#include "frames.hpp"

#include <cstring>

#include "../faults/support.hpp"
#include <tersor/version.hpp>

namespace fuzz {
namespace {

/// Frames that declare more than this are left to the targets that only look.
constexpr std::uint64_t kMaxDecoded = std::uint64_t{1} << 22;

}  // namespace

const std::vector<tersor::context>& contexts() {
  static const std::vector<tersor::context> kContexts = [] {
    std::vector<tersor::context> all;
    for (const std::string& name : faults::backend_names()) all.push_back(faults::make_context(1, name));
    return all;
  }();
  return kContexts;
}

const tersor::context& any_context() {
  return contexts().front();
}

std::vector<std::byte> frame_of(input data, std::optional<tersor::codec> c) {
  reader in(data);
  const std::uint8_t disguise = in.byte();
  const auto rest = as_bytes(in.rest());
  std::vector<std::byte> frame(rest.begin(), rest.end());
  if (c && frame.size() >= 128) {
    constexpr std::uint16_t kWidths[] = {0, 0x0004, 0x3222};
    constexpr unsigned char kMagic[] = {0x89, 'T', 'E', 'R', 'S', 'O', 'R', 0x0a, tersor::kFrameFormatVersion,
                                        0};
    std::memcpy(frame.data(), kMagic, sizeof kMagic);
    frame[10] = static_cast<std::byte>(*c);
    frame[13] = std::byte{0};
    const std::uint16_t widths = kWidths[static_cast<std::size_t>(*c)];
    frame[14] = static_cast<std::byte>(widths & 0xff);
    frame[15] = static_cast<std::byte>(widths >> 8);
  }
  if (disguise % 8 != 0) faults::reseal(frame);
  return frame;
}

void decode_and_check(const tersor::context& ctx, std::span<const std::byte> frame) {
  const auto info = tersor::inspect(frame);
  const std::uint64_t size = info ? info->decoded_bytes : 64;
  if (size > kMaxDecoded) return;
  const std::vector<std::byte> exact(frame.begin(), frame.end());
  std::vector<std::byte> data(size);
  const auto decoded = tersor::decode_into(ctx, exact, data);
  if (!decoded) {
    require(decoded.error().code != tersor::errc::internal && decoded.error().code != tersor::errc::ok);
    return;
  }
  require(info.has_value() && *decoded == size);
  const auto again =
      tersor::encode(ctx, {.type = info->type, .shape = info->shape, .data = data}, {.codec = info->codec});
  require(again.has_value());
  const auto back = tersor::decode(ctx, *again);
  require(back.has_value() && back->data == data && back->shape == info->shape);
}

}  // namespace fuzz
