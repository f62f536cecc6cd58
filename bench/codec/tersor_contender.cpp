#include <array>

#include "contender.hpp"

namespace tersor::bench {
namespace {

class tersor_contender final : public contender {
 public:
  tersor_contender(const context& ctx, codec which, const codebook& book)
      : ctx_(ctx), codec_(which), book_(book) {}

  std::string name() const override { return std::string(to_string(codec_)); }

  std::uint64_t bound(std::uint64_t n_bytes) const override {
    return encode_bound(codec_, dtype::bf16, n_bytes / sizeof(std::uint16_t));
  }

  result<std::uint64_t> encode(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return encode_with(src, dst, book_);
  }

  bool has_auto() const override { return codec_ != codec::raw; }

  result<std::uint64_t> encode_auto(std::span<const std::byte> src, std::span<std::byte> dst) override {
    return encode_with(src, dst, std::nullopt);
  }

  status decode(std::span<const std::byte> encoded, std::span<std::byte> dst) override {
    TERSOR_TRY([[maybe_unused]] const std::uint64_t size, decode_into(ctx_, encoded, dst));
    return {};
  }

 private:
  result<std::uint64_t> encode_with(std::span<const std::byte> src, std::span<std::byte> dst,
                                    const std::optional<codebook>& book) {
    const std::array<std::uint64_t, 1> shape = {src.size() / sizeof(std::uint16_t)};
    return encode_into(ctx_, {.type = dtype::bf16, .shape = shape, .data = src}, dst,
                       {.codec = codec_, .book = book, .raw_fallback = true});
  }

  const context& ctx_;
  codec codec_;
  codebook book_;
};

}  // namespace

std::unique_ptr<contender> make_tersor(const context& ctx, codec which, const codebook& book) {
  return std::make_unique<tersor_contender>(ctx, which, book);
}

}  // namespace tersor::bench
