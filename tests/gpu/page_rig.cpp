// Encoding and decoding of pages with everything in device memory.
#include <algorithm>
#include <cstring>

#include "cache.hpp"

namespace gpu_test {

namespace kv = tersor::cuda::kv;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

page_rig::page_rig(const env& e, section& s, const cache& from, const std::vector<std::int32_t>& ids,
                   tersor::codec c, kv::page_frames kind)
    : env_(e), section_(s), from_(from), ids_(ids), codec_(c), kind_(kind) {
  ids_dev_.grow(ids.size() * sizeof(std::int32_t));
  ids_dev_.put(0, std::as_bytes(std::span(ids)));
  books_dev_.grow(16 * from.shape().n_pools());
  used_.grow(4);
  encoded_.grow(n_frames() * sizeof(frame_result));
  decoded_.grow(n_frames() * sizeof(frame_result));
  set_store((bound() + 127) / 128 * 128, 0);
}

std::uint32_t page_rig::n_frames() const noexcept {
  const auto n_pages = static_cast<std::uint32_t>(ids_.size());
  return from_.shape().n_pools() * (kind_ == kv::page_frames::gathered ? 1 : n_pages);
}

std::uint32_t page_rig::pool_of(std::uint32_t frame) const noexcept {
  return kind_ == kv::page_frames::gathered ? frame : frame / static_cast<std::uint32_t>(ids_.size());
}

std::uint64_t page_rig::bound() const {
  return kv::page_frame_bound(codec_, from_.pools().layout, kind_, static_cast<std::uint32_t>(ids_.size()));
}

std::vector<std::uint64_t> page_rig::frame_shape() const {
  const cache_shape& shape = from_.shape();
  std::vector<std::uint64_t> dims = {shape.block_size, shape.heads, shape.dim};
  if (kind_ == kv::page_frames::gathered) dims.insert(dims.begin(), ids_.size());
  return dims;
}

bytes page_rig::expected_values(std::uint32_t frame) const {
  const std::uint32_t pool = pool_of(frame);
  if (kind_ == kv::page_frames::slots) return from_.page(pool, ids_[frame % ids_.size()]);
  bytes values;
  for (const std::int32_t id : ids_) {
    const bytes page = from_.page(pool, id);
    values.insert(values.end(), page.begin(), page.end());
  }
  return values;
}

bytes page_rig::expected_frame(std::uint32_t frame) const {
  return cpu_frame(env_.single, codec_, from_.shape().type, frame_shape(), expected_values(frame),
                   books_[pool_of(frame)]);
}

bool page_rig::make_books(std::string_view where) {
  const auto work = counting_.of(kv::codebooks_workspace_size(from_.pools()));
  const kv::page_list list{.ids_dev = ids_dev_.as<const std::int32_t>(),
                           .n_pages = static_cast<std::uint32_t>(ids_.size())};
  const auto called =
      kv::make_codebooks_async(codec_, from_.pools(), list, books_dev_.get(), work, as_stream(stream_.get()));
  env_.wait(stream_.get(), section_, where);
  if (!section_.check(called.has_value(), "make_codebooks_async: " + text_of(called), where)) return false;
  for (std::uint32_t pool = 0; pool < from_.shape().n_pools(); ++pool) {
    bytes values;
    for (const std::int32_t id : ids_) {
      const bytes page = from_.page(pool, id);
      values.insert(values.end(), page.begin(), page.end());
    }
    books_.push_back(cpu_book(from_.shape().type, values));
    const std::size_t entries = codec_ == tersor::codec::rank ? 16 : 15;
    const bytes found = books_dev_.take(std::size_t{16} * pool, 16);
    section_.check(std::memcmp(found.data(), books_.back().symbols.data(), entries) == 0,
                   "another codebook than the CPU's for pool " + std::to_string(pool), where);
    books_dev_.put(std::size_t{16} * pool, std::as_bytes(std::span(books_.back().symbols)));
  }
  return true;
}

void page_rig::set_store(std::uint64_t stride, std::uint32_t places) {
  stride_ = stride;
  places_ = places;
  frames_.grow(stride * n_frames() + kGuardBytes);
  frames_.fill(0, stride * n_frames(), kPoison);
  frames_.fill(stride * n_frames(), kGuardBytes, kGuard);
  const std::uint64_t overflow = places * kv::raw_frame_bytes(from_.pools().layout);
  overflow_.grow(overflow + kGuardBytes);
  overflow_.fill(0, overflow, kPoison);
  overflow_.fill(overflow, kGuardBytes, kGuard);
}

kv::page_store page_rig::store() const {
  return {.kind = kind_,
          .frames_dev = frames_.get(),
          .frame_stride = stride_,
          .overflow_dev = places_ == 0 ? nullptr : overflow_.get(),
          .overflow_places = places_,
          .overflow_used_dev = places_ == 0 ? nullptr : used_.as<std::uint32_t>()};
}

tersor::status page_rig::encode(tail_order order, std::string_view where) {
  used_.fill(0, 4, 0);
  env_.poison(encoded_, 0, n_frames() * sizeof(frame_result));
  const kv::page_list list{.ids_dev = ids_dev_.as<const std::int32_t>(),
                           .n_pages = static_cast<std::uint32_t>(ids_.size())};
  const auto work = coding_.of(kv::pages_workspace_size(codec_, from_.pools(), kind_, list.n_pages, order));
  const auto called =
      kv::encode_pages_async(codec_, from_.pools(), list, books_dev_.get(), store(),
                             encoded_.as<frame_result>(), order, work, as_stream(stream_.get()));
  env_.wait(stream_.get(), section_, where);
  return called;
}

tersor::status page_rig::encode_others(const std::vector<std::int32_t>& ids, tail_order order,
                                       std::string_view where) {
  ids_dev_.put(0, std::as_bytes(std::span(ids)));
  auto called = encode(order, where);
  ids_dev_.put(0, std::as_bytes(std::span(ids_)));
  return called;
}

tersor::status page_rig::decode(const cache& to, const std::vector<std::int32_t>& ids,
                                std::string_view where) {
  env_.poison(decoded_, 0, n_frames() * sizeof(frame_result));
  ids_dev_.put(0, std::as_bytes(std::span(ids)));
  const kv::page_list list{.ids_dev = ids_dev_.as<const std::int32_t>(),
                           .n_pages = static_cast<std::uint32_t>(ids.size())};
  const auto work = coding_.of(
      std::max(kv::pages_workspace_size(codec_, to.pools(), kind_, list.n_pages, tail_order::canonical),
               kv::pages_workspace_size(codec_, to.pools(), kind_, list.n_pages, tail_order::free)));
  const auto called = kv::decode_pages_async(codec_, to.pools(), list, store(),
                                             places_ == 0 ? nullptr : encoded_.as<const frame_result>(),
                                             decoded_.as<frame_result>(), work, as_stream(stream_.get()));
  env_.wait(stream_.get(), section_, where);
  ids_dev_.put(0, std::as_bytes(std::span(ids_)));
  return called;
}

bytes page_rig::overflowed(std::uint32_t place) const {
  const std::uint64_t size = kv::raw_frame_bytes(from_.pools().layout);
  return overflow_.take(place * size, size);
}

std::uint32_t page_rig::overflow_used() const {
  std::uint32_t used = 0;
  std::memcpy(&used, used_.take(0, 4).data(), 4);
  return used;
}

bool page_rig::guards_hold() const {
  return frames_.holds(stride_ * n_frames(), kGuardBytes, kGuard) &&
         overflow_.holds(places_ * kv::raw_frame_bytes(from_.pools().layout), kGuardBytes, kGuard);
}

}  // namespace gpu_test
