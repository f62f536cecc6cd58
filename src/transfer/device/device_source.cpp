// Parts out of GPU memory: encode there, then one copy of the frame to the sender's slot.
#include <condition_variable>
#include <mutex>

#include "cpu/context_impl.hpp"
#include "transfer/device/stage.hpp"

namespace tersor::transfer {
namespace {

using device::ok;
using device::on_device;

class gpu_source : public device_source {
 public:
  gpu_source(device::stage s, std::vector<device::placed_region> regions,
             std::vector<device::own_event> events)
      : stage_(std::move(s)),
        regions_(std::move(regions)),
        events_(std::move(events)),
        ready_(regions_.size()),
        books_(regions_.size()) {}

  status mark_ready(std::uint32_t region_index, cuda::stream after) override {
    if (region_index >= regions_.size()) return fail(errc::invalid_argument, "there is no such region");
    const on_device guard(stage_.device());
    TERSOR_CHECK(guard.good());
    TERSOR_CHECK(device::record(events_[region_index], after));
    {
      const std::lock_guard lock(mutex_);
      ready_[region_index] = true;
    }
    changed_.notify_all();
    return {};
  }

  void give_up(error why) override {
    {
      const std::lock_guard lock(mutex_);
      if (!why_) why_ = std::move(why);
    }
    changed_.notify_all();
  }

  status wait_ready(std::uint32_t region_index) override {
    if (region_index >= regions_.size()) {
      return fail(errc::invalid_argument, "the manifest has more regions than the source");
    }
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return why_ || ready_[region_index]; });
      if (why_) return tl::unexpected<error>(*why_);
    }
    const on_device guard(stage_.device());
    TERSOR_CHECK(guard.good());
    return device::wait(stage_.stream(), events_[region_index]);
  }

  result<encoded_part> encode(const region& r, const part& p, codec c, std::span<std::byte> slot) override {
    const device::placed_region& from = regions_[p.region];
    TERSOR_CHECK(from.check(r));
    const on_device guard(stage_.device());
    TERSOR_CHECK(guard.good());
    const codec coded = c == codec::rank ? codec::rank : codec::top16;
    TERSOR_CHECK(use_book(r, p.region, coded));
    stage_.expect();
    TERSOR_CHECK(from.at.layout ? encode_pages(from, p, coded) : encode_values(from, r, p, coded));
    TERSOR_CHECK(stage_.finish("encoding"));
    const cuda::frame_result made = stage_.words().coded;
    TERSOR_CHECK(device::verdict(made, "encoding on the GPU"));
    if (made.frame_bytes > slot.size())
      return fail(errc::destination_too_small, "a frame does not fit its slot");
    TERSOR_CHECK(ok(cudaMemcpyAsync(slot.data(), stage_.frame(), made.frame_bytes, cudaMemcpyDeviceToHost,
                                    stage_.stream()),
                    "frame"));
    TERSOR_CHECK(stage_.finish("copying a frame"));
    return encoded_part{.n_bytes = made.frame_bytes, .digest = made.digest, .codec = coded};
  }

 private:
  status encode_values(const device::placed_region& from, const region& r, const part& p, codec c) {
    const std::uint64_t n_values = p.n_bytes / value_bytes(r.type);
    const cuda::encode_task task{.type = r.type,
                                 .shape = {&n_values, 1},
                                 .src_dev = static_cast<const std::byte*>(from.at.data_dev) + p.offset,
                                 .codebook_dev = stage_.book(),
                                 .frame_dev = stage_.frame(),
                                 .capacity = stage_.frame_bytes(),
                                 .result_dev = &stage_.words().coded};
    return cuda::encode_async(c, task, cuda::tail_order::free, stage_.work(), stage_.stream());
  }

  status encode_pages(const device::placed_region& from, const part& p, codec c) {
    const cuda::kv::page_store store{.kind = cuda::kv::page_frames::gathered,
                                     .frames_dev = stage_.frame(),
                                     .frame_stride = stage_.frame_bytes()};
    return cuda::kv::encode_pages_async(c, from.pools(), from.pages(p), stage_.book(), store,
                                        &stage_.words().coded, cuda::tail_order::free, stage_.work(),
                                        stage_.stream());
  }

  /// The region's codebook in device memory: the agreed one, or one that is counted once over all of it.
  status use_book(const region& r, std::uint32_t index, codec c) {
    if (book_of_ == index) return {};
    book_of_.reset();
    if (!books_[index] && r.book) books_[index] = r.book;
    if (books_[index]) {
      TERSOR_CHECK(stage_.set_book(*books_[index]));
    } else {
      TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
      const device::placed_region& from = regions_[index];
      const part all{.n_pages = from.at.blocks.size()};
      TERSOR_CHECK(from.at.layout
                       ? cuda::kv::make_codebooks_async(c, from.pools(), from.pages(all), stage_.book(),
                                                        stage_.work(), stage_.stream())
                       : cuda::make_codebook_async(c, r.type, from.at.data_dev, n_bytes / value_bytes(r.type),
                                                   stage_.book(), stage_.work(), stage_.stream()));
    }
    book_of_ = index;
    return {};
  }

  device::stage stage_;
  std::vector<device::placed_region> regions_;
  std::vector<device::own_event> events_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> ready_;
  std::optional<error> why_;
  std::vector<std::optional<codebook>> books_;
  std::optional<std::uint32_t> book_of_;  ///< whose codebook lies in device memory
};

}  // namespace

result<std::unique_ptr<device_source>> device_source::create(const context&,
                                                             const device_endpoint_options& options,
                                                             std::vector<device_region> regions) {
  return cpu::guarded([&]() -> result<std::unique_ptr<device_source>> {
    TERSOR_TRY(device::stage s, device::stage::create(options));
    const on_device guard(options.device);
    TERSOR_CHECK(guard.good());
    std::vector<device::placed_region> placed;
    for (device_region& r : regions) {
      TERSOR_TRY(device::placed_region p, device::placed_region::make(std::move(r)));
      placed.push_back(std::move(p));
    }
    TERSOR_TRY(auto events, device::make_events(static_cast<std::uint32_t>(placed.size())));
    return std::make_unique<gpu_source>(std::move(s), std::move(placed), std::move(events));
  });
}

}  // namespace tersor::transfer
