#include <array>

#include "contender.hpp"

namespace tersor::bench {
namespace {

class tersor_contender final : public contender {
 public:
  tersor_contender(const context& ctx, codec which, std::span<const segment> segments)
      : ctx_(ctx), codec_(which), segments_(segments), frame_bytes_(segments.size()) {}

  std::string name() const override { return std::string(to_string(codec_)); }

  bool by_tensor() const override { return true; }

  std::uint64_t bound(std::uint64_t /*n_bytes*/) const override {
    std::uint64_t total = 0;
    for (const segment& part : segments_) {
      total += encode_bound(codec_, dtype::bf16, part.n_bytes / sizeof(std::uint16_t));
    }
    return total;
  }

  result<std::uint64_t> encode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return encode_all(src, dst, true);
  }

  bool has_auto() const override { return codec_ != codec::raw; }

  result<std::uint64_t> encode_auto(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return encode_all(src, dst, false);
  }

  status decode(std::span<const std::byte> encoded, std::span<std::byte> dst) override {
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto out = dst.subspan(segments_[i].offset, segments_[i].n_bytes);
      TERSOR_TRY([[maybe_unused]] const std::uint64_t size,
                 decode_into(ctx_, encoded.subspan(at, frame_bytes_[i]), out));
      at += frame_bytes_[i];
    }
    return {};
  }

 private:
  result<std::uint64_t> encode_all(std::span<const std::byte> src, std::span<std::byte> dst,
                                   bool calibrated) {
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const segment& part = segments_[i];
      const std::array<std::uint64_t, 1> shape = {part.n_bytes / sizeof(std::uint16_t)};
      encode_options options{.codec = codec_};
      if (calibrated) options.book = part.book;
      TERSOR_TRY(
          frame_bytes_[i],
          encode_into(ctx_,
                      {.type = dtype::bf16, .shape = shape, .data = src.subspan(part.offset, part.n_bytes)},
                      dst.subspan(at), options));
      at += frame_bytes_[i];
    }
    return at;
  }

  const context& ctx_;
  codec codec_;
  std::span<const segment> segments_;
  std::vector<std::uint64_t> frame_bytes_;
};

}  // namespace

std::unique_ptr<contender> make_tersor(const context& ctx, codec which, std::span<const segment> segments) {
  return std::make_unique<tersor_contender>(ctx, which, segments);
}

}  // namespace tersor::bench
