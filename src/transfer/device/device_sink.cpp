// Parts into GPU memory: one copy of the frame from the receiver's slot, then decode into the final place.
#include <map>
#include <mutex>

#include "cpu/context_impl.hpp"
#include "transfer/device/stage.hpp"

namespace tersor::transfer {
namespace {

using device::ok;
using device::on_device;

class gpu_sink : public sink {
 public:
  gpu_sink(const context& ctx, device::stage s, device_places places)
      : ctx_(ctx), stage_(std::move(s)), places_(std::move(places)) {}

  status prepare(const manifest& m) override {
    return cpu::guarded([&]() -> status {
      TERSOR_TRY(std::vector<device_region> regions, places_.allocate(m));
      status placed = place(m, std::move(regions));
      if (!placed && places_.discard) places_.discard(m);
      return placed;
    });
  }

  status decode(const manifest& m, const part& p, std::span<const std::byte> frame) override {
    const std::lock_guard lock(mutex_);
    const auto found = requests_.find(m.request);
    if (found == requests_.end()) return fail(errc::internal, "no such request");
    const region& r = m.regions[p.region];
    TERSOR_TRY(const frame_info info, inspect(frame));
    if (info.codec != codec::raw) return decode_coded(found->second[p.region], r, p, info.codec, frame);
    TERSOR_TRY(const std::vector<std::byte> coded, recode(r, p, frame));
    return decode_coded(found->second[p.region], r, p, codec::top16, coded);
  }

  status publish(const manifest& m) override {
    {
      const std::lock_guard lock(mutex_);
      requests_.erase(m.request);
    }
    return places_.publish ? places_.publish(m) : status{};
  }

  void discard(const manifest& m) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      requests_.erase(m.request);
    }
    if (places_.discard) places_.discard(m);
  }

 private:
  status place(const manifest& m, std::vector<device_region> regions) {
    if (regions.size() != m.regions.size()) return fail(errc::invalid_argument, "not one place a region");
    const on_device guard(stage_.device());
    TERSOR_CHECK(guard.good());
    std::vector<device::placed_region> placed;
    for (std::size_t i = 0; i < regions.size(); ++i) {
      TERSOR_TRY(device::placed_region p, device::placed_region::make(std::move(regions[i])));
      TERSOR_CHECK(p.check(m.regions[i]));
      placed.push_back(std::move(p));
    }
    const std::lock_guard lock(mutex_);
    requests_.insert_or_assign(m.request, std::move(placed));
    return {};
  }

  /// A raw frame as one that the GPU decodes: verified here, and again there.
  result<std::vector<std::byte>> recode(const region& r, const part& p, std::span<const std::byte> frame) {
    std::vector<std::byte> values(p.n_bytes);
    TERSOR_TRY(const std::uint64_t n_bytes, decode_into(ctx_, frame, values));
    const std::uint64_t n_values = n_bytes / value_bytes(r.type);
    return tersor::encode(ctx_, {.type = r.type, .shape = {&n_values, 1}, .data = values},
                          {.codec = codec::top16, .raw_fallback = false});
  }

  status decode_coded(const device::placed_region& to, const region& r, const part& p, codec c,
                      std::span<const std::byte> frame) {
    if (frame.size() > stage_.frame_bytes())
      return fail(errc::destination_too_small, "a frame is larger than its stage");
    const on_device guard(stage_.device());
    TERSOR_CHECK(guard.good());
    TERSOR_CHECK(ok(
        cudaMemcpyAsync(stage_.frame(), frame.data(), frame.size(), cudaMemcpyHostToDevice, stage_.stream()),
        "frame"));
    stage_.expect();
    if (to.at.layout) {
      const cuda::kv::page_store store{.kind = cuda::kv::page_frames::gathered,
                                       .frames_dev = stage_.frame(),
                                       .frame_stride = stage_.frame_bytes()};
      TERSOR_CHECK(cuda::kv::decode_pages_async(c, to.pools(), to.pages(p), store, nullptr,
                                                &stage_.words().coded, stage_.work(), stage_.stream()));
      stage_.words().again.code = 0;
    } else {
      TERSOR_CHECK(decode_values(to, r, p, c, frame.size()));
    }
    TERSOR_CHECK(stage_.finish("decoding"));
    TERSOR_CHECK(device::verdict(stage_.words().coded, "decoding on the GPU"));
    return device::verdict(stage_.words().again, "the GPU's memory does not hold what was decoded into it");
  }

  status decode_values(const device::placed_region& to, const region& r, const part& p, codec c,
                       std::uint64_t n_bytes) {
    const std::uint64_t n_values = p.n_bytes / value_bytes(r.type);
    std::byte* const dst = static_cast<std::byte*>(to.at.data_dev) + p.offset;
    const cuda::decode_task task{.type = r.type,
                                 .n_values = n_values,
                                 .frame_dev = stage_.frame(),
                                 .frame_bytes = n_bytes,
                                 .dst_dev = dst,
                                 .result_dev = &stage_.words().coded};
    TERSOR_CHECK(cuda::decode_async(c, task, stage_.work(), stage_.stream()));
    const cuda::recheck_task again{.type = r.type,
                                   .n_values = n_values,
                                   .values_dev = dst,
                                   .frame_dev = stage_.frame(),
                                   .frame_bytes = n_bytes,
                                   .result_dev = &stage_.words().again};
    return cuda::recheck_async(c, {&again, 1}, stage_.work(), stage_.stream());
  }

  const context& ctx_;
  std::mutex mutex_;  ///< one part at a time has the stage
  device::stage stage_;
  device_places places_;
  std::map<std::uint64_t, std::vector<device::placed_region>> requests_;
};

}  // namespace

result<std::unique_ptr<sink>> make_device_sink(const context& ctx, const device_endpoint_options& options,
                                               device_places places) {
  return cpu::guarded([&]() -> result<std::unique_ptr<sink>> {
    if (!places.allocate) return fail(errc::invalid_argument, "nobody says where requests go");
    TERSOR_TRY(device::stage s, device::stage::create(options));
    return std::make_unique<gpu_sink>(ctx, std::move(s), std::move(places));
  });
}

}  // namespace tersor::transfer
