// Parts out of tensors in host memory.
#include <condition_variable>
#include <mutex>

#include "cpu/context_impl.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

/// Encodes parts; a region without a codebook gets one of its own, counted once.
class part_encoder {
 public:
  part_encoder(const context& ctx, std::vector<std::span<const std::byte>> regions)
      : ctx_(ctx), regions_(std::move(regions)), books_(regions_.size()) {}

  [[nodiscard]] status check(std::uint32_t index) const {
    if (index < regions_.size()) return {};
    return fail(errc::invalid_argument, "the manifest has more regions than the source");
  }

  [[nodiscard]] result<encoded_part> encode(const region& r, const part& p, codec c,
                                            std::span<std::byte> slot) {
    TERSOR_CHECK(check(p.region));
    const auto all = regions_[p.region];
    TERSOR_TRY(const std::uint64_t expected, region_bytes(r));
    if (all.size() != expected) {
      return fail(errc::invalid_argument, "region '" + r.name + "' has another size than the manifest says");
    }
    if (c != codec::raw) TERSOR_CHECK(find_book(r, p.region));
    const std::uint64_t n_values = p.n_bytes / value_bytes(r.type);
    const tensor_view view{.type = r.type, .shape = {&n_values, 1}, .data = all.subspan(p.offset, p.n_bytes)};
    TERSOR_TRY(const std::uint64_t size,
               encode_into(ctx_, view, slot, {.codec = c, .book = books_[p.region], .raw_fallback = true}));
    TERSOR_TRY(const frame_info info, inspect(slot.first(size)));
    return encoded_part{.n_bytes = size, .digest = info.digest, .codec = info.codec};
  }

 private:
  status find_book(const region& r, std::uint32_t index) {
    if (books_[index] || !is_codable(r.type)) return {};
    if (r.book) {
      books_[index] = r.book;
      return {};
    }
    TERSOR_TRY(const histogram counts, count_symbols(ctx_, r.type, regions_[index]));
    TERSOR_TRY(books_[index], make_codebook(r.type, counts));
    return {};
  }

  const context& ctx_;
  std::vector<std::span<const std::byte>> regions_;
  std::vector<std::optional<codebook>> books_;
};

class host_source : public source {
 public:
  host_source(const context& ctx, std::vector<std::span<const std::byte>> regions)
      : encoder_(ctx, std::move(regions)) {}
  status wait_ready(std::uint32_t region_index) override { return encoder_.check(region_index); }
  result<encoded_part> encode(const region& r, const part& p, codec c, std::span<std::byte> slot) override {
    return encoder_.encode(r, p, c, slot);
  }

 private:
  part_encoder encoder_;
};

}  // namespace

std::unique_ptr<source> make_host_source(const context& ctx,
                                         std::vector<std::span<const std::byte>> regions) {
  return std::make_unique<host_source>(ctx, std::move(regions));
}

struct layered_source::impl {
  impl(const context& ctx, std::vector<std::span<const std::byte>> regions)
      : ready(regions.size()), encoder(ctx, std::move(regions)) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> ready;
  std::optional<error> why;
  part_encoder encoder;
};

layered_source::layered_source(const context& ctx, std::vector<std::span<const std::byte>> regions)
    : impl_(std::make_unique<impl>(ctx, std::move(regions))) {}
layered_source::~layered_source() = default;

void layered_source::mark_ready(std::uint32_t region_index) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (region_index < impl_->ready.size()) impl_->ready[region_index] = true;
  }
  impl_->changed.notify_all();
}

void layered_source::give_up(error why) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->why) impl_->why = std::move(why);
  }
  impl_->changed.notify_all();
}

status layered_source::wait_ready(std::uint32_t region_index) {
  TERSOR_CHECK(impl_->encoder.check(region_index));
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return impl_->why || impl_->ready[region_index]; });
  if (impl_->why) return tl::unexpected<error>(*impl_->why);
  return {};
}

result<encoded_part> layered_source::encode(const region& r, const part& p, codec c,
                                            std::span<std::byte> slot) {
  return impl_->encoder.encode(r, p, c, slot);
}

}  // namespace tersor::transfer
