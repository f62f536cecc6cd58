#include "gpu_contiguous.hpp"

#include <algorithm>
#include <cstring>

namespace tersor::bench {
namespace {

constexpr std::uint64_t kPlace = 256;  // what device allocators align to
constexpr std::uint64_t kCpuCheckBytes = std::uint64_t{64} << 20;
constexpr int kPoison = 0xa5;

std::uint64_t round_up(std::uint64_t n) noexcept {
  return (n + kPlace - 1) / kPlace * kPlace;
}

template <class T>
T* at(const device_buffer& buffer, std::uint64_t offset) noexcept {
  return reinterpret_cast<T*>(buffer.data() + offset);
}

}  // namespace

result<contiguous_set> contiguous_set::create(const gpu_env& env, codec which, const workload& work,
                                              std::uint64_t n_slots) {
  contiguous_set set;
  set.codec_ = which;
  set.work_ = &work;
  set.name_ = std::string(to_string(which)) + " " + short_name(work.type) + " " + work.data;
  TERSOR_CHECK(set.place(work));
  env.step("preparing " + set.name_);
  for (std::uint64_t i = 0; i < n_slots; ++i) {
    TERSOR_CHECK(set.fill(set.slots_.emplace_back(), i == 0));
  }
  TERSOR_CHECK(set.allocate_workspaces());
  return set;
}

status contiguous_set::place(const workload& work) {
  for (const segment& part : work.segments) {
    const std::uint64_t bound = cuda::encode_bound(codec_, work.type, part.n_bytes / value_bytes(work.type));
    if (bound == 0) return fail(errc::unsupported, name_ + ": the GPU does not encode this");
    source_at_.push_back(source_bytes_);
    frame_at_.push_back(capacity_);
    bounds_.push_back(bound);
    source_bytes_ += round_up(part.n_bytes);
    capacity_ += round_up(bound);
    n_bytes_ += part.n_bytes;
  }
  return {};
}

status contiguous_set::fill(slot& s, bool first) {
  const std::size_t n = work_->segments.size();
  TERSOR_TRY(s.source, device_buffer::allocate(source_bytes_));
  TERSOR_TRY(s.restored, device_buffer::allocate(source_bytes_, kPoison));
  TERSOR_TRY(s.frames, device_buffer::allocate(capacity_, kPoison));
  TERSOR_TRY(s.books, device_buffer::allocate(n * sizeof(codebook)));
  TERSOR_TRY(s.encoded, device_buffer::allocate(n * sizeof(cuda::frame_result), 0xff));
  TERSOR_TRY(s.decoded, device_buffer::allocate(n * sizeof(cuda::frame_result), 0xff));
  if (!first) {
    TERSOR_CHECK(cuda_ok(
        cudaMemcpy(s.source.data(), slots_.front().source.data(), source_bytes_, cudaMemcpyDeviceToDevice),
        "copy"));
    TERSOR_CHECK(cuda_ok(cudaDeviceSynchronize(), "copy"));
  }
  for (std::size_t i = 0; i < n; ++i) {
    const segment& part = work_->segments[i];
    if (first) {
      TERSOR_CHECK(upload(s.source.data() + source_at_[i],
                          std::span(work_->bytes).subspan(part.offset, part.n_bytes)));
    }
    s.shapes.push_back(work_->shape_of(part));
    s.encode_tasks.push_back({.type = work_->type,
                              .shape = s.shapes.back(),
                              .src_dev = s.source.data() + source_at_[i],
                              .book = part.book,
                              .frame_dev = s.frames.data() + frame_at_[i],
                              .capacity = bounds_[i],
                              .result_dev = at<cuda::frame_result>(s.encoded, 0) + i});
    s.decode_tasks.push_back({.type = work_->type,
                              .n_values = part.n_bytes / value_bytes(work_->type),
                              .frame_dev = s.frames.data() + frame_at_[i],
                              .frame_bytes = bounds_[i],
                              .dst_dev = s.restored.data() + source_at_[i],
                              .result_dev = at<cuda::frame_result>(s.decoded, 0) + i});
  }
  return {};
}

status contiguous_set::allocate_workspaces() {
  const auto& encodes = slots_.front().encode_tasks;
  TERSOR_CHECK(free_ws_.allocate(cuda::encode_workspace_size(codec_, cuda::tail_order::free, encodes)));
  TERSOR_CHECK(
      canonical_ws_.allocate(cuda::encode_workspace_size(codec_, cuda::tail_order::canonical, encodes)));
  TERSOR_CHECK(decode_ws_.allocate(cuda::decode_workspace_size(slots_.front().decode_tasks)));
  return book_ws_.allocate(cuda::codebook_workspace_size());
}

status contiguous_set::encode(std::uint64_t i, cuda::tail_order order, cudaStream_t s) const {
  const auto& tasks = slots_[i].encode_tasks;
  const cuda::workspace& ws = order == cuda::tail_order::free ? free_ws_.view() : canonical_ws_.view();
  if (tasks.size() == 1) return cuda::encode_async(codec_, tasks.front(), order, ws, s);
  return cuda::encode_batch_async(codec_, tasks, order, ws, s);
}

status contiguous_set::decode(std::uint64_t i, cudaStream_t s) const {
  const auto& tasks = slots_[i].decode_tasks;
  if (tasks.size() == 1) return cuda::decode_async(codec_, tasks.front(), decode_ws_.view(), s);
  return cuda::decode_batch_async(codec_, tasks, decode_ws_.view(), s);
}

status contiguous_set::make_codebooks(std::uint64_t i, cudaStream_t s) const {
  const auto& tasks = slots_[i].encode_tasks;
  for (std::size_t k = 0; k < tasks.size(); ++k) {
    TERSOR_CHECK(cuda::make_codebook_async(
        codec_, tasks[k].type, tasks[k].src_dev, slots_[i].decode_tasks[k].n_values,
        at<std::uint8_t>(slots_[i].books, k * sizeof(codebook)), book_ws_.view(), s));
  }
  return {};
}

status contiguous_set::poison() {
  for (slot& s : slots_) {
    TERSOR_CHECK(s.restored.fill(kPoison));
    TERSOR_CHECK(s.decoded.fill(0xff));
  }
  return {};
}

status contiguous_set::check_codebooks(const gpu_env& env) {
  TERSOR_CHECK(make_codebooks(0, env.stream.get()));
  TERSOR_CHECK(env.stream.wait());
  std::vector<codebook> got(work_->segments.size());
  TERSOR_CHECK(download(std::as_writable_bytes(std::span(got)), slots_.front().books.data()));
  const std::size_t n_symbols = codec_ == codec::top16 ? 15 : 16;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const segment& part = work_->segments[i];
    TERSOR_TRY(
        const histogram counts,
        count_symbols(env.cpu, work_->type, std::span(work_->bytes).subspan(part.offset, part.n_bytes)));
    TERSOR_TRY(const codebook want, make_codebook(work_->type, counts));
    if (!std::equal(want.symbols.begin(), want.symbols.begin() + static_cast<std::ptrdiff_t>(n_symbols),
                    got[i].symbols.begin())) {
      return fail(errc::internal, name_ + ": the GPU's codebook is not the CPU's");
    }
  }
  return {};
}

status contiguous_set::check_restored(const slot& s) const {
  for (std::size_t i = 0; i < work_->segments.size(); ++i) {
    const segment& part = work_->segments[i];
    TERSOR_CHECK(expect_equal(s.restored.data() + source_at_[i],
                              std::span(work_->bytes).subspan(part.offset, part.n_bytes),
                              name_ + ": decoded values"));
  }
  return {};
}

status contiguous_set::round_trip(const gpu_env& env, std::uint64_t i, cuda::tail_order order) {
  slot& s = slots_[i];
  TERSOR_CHECK(s.frames.fill(kPoison));
  TERSOR_CHECK(s.encoded.fill(0xff));
  TERSOR_CHECK(s.decoded.fill(0xff));
  TERSOR_CHECK(s.restored.fill(kPoison));
  TERSOR_CHECK(encode(i, order, env.stream.get()));
  TERSOR_TRY(const auto results, good_results(env, s.encoded, s.encode_tasks.size(), name_ + ": encode"));
  std::uint64_t total = 0;
  for (std::size_t k = 0; k < results.size(); ++k) {
    if (results[k].frame_bytes > bounds_[k]) return fail(errc::internal, name_ + ": a frame above its bound");
    s.decode_tasks[k].frame_bytes = results[k].frame_bytes;
    total += results[k].frame_bytes;
  }
  if (frame_bytes_ != 0 && total != frame_bytes_) {
    return fail(errc::internal, name_ + ": tail orders differ in size");
  }
  frame_bytes_ = total;
  TERSOR_CHECK(decode(i, env.stream.get()));
  TERSOR_TRY([[maybe_unused]] const auto decoded,
             good_results(env, s.decoded, s.decode_tasks.size(), name_ + ": decode"));
  return check_restored(s);
}

status contiguous_set::check_frames(const gpu_env& env) {
  const slot& s = slots_.front();
  TERSOR_TRY(const auto results, good_results(env, s.encoded, s.encode_tasks.size(), name_ + ": encode"));
  for (std::size_t i = 0; i < results.size(); ++i) {
    const segment& part = work_->segments[i];
    if (part.n_bytes > kCpuCheckBytes) {
      TERSOR_CHECK(check_prefix(env, part));
      continue;
    }
    const tensor_view values{.type = work_->type,
                             .shape = s.shapes[i],
                             .data = std::span(work_->bytes).subspan(part.offset, part.n_bytes)};
    TERSOR_CHECK(
        check_against_cpu(env, codec_, values, part.book, s.encode_tasks[i].frame_dev, results[i], name_));
  }
  return {};
}

status contiguous_set::check_prefix(const gpu_env& env, const segment& part) const {
  // Not a whole number of tiles, so that partial ones are among what is compared.
  const std::uint64_t n = kCpuCheckBytes - 77 * std::uint64_t{value_bytes(work_->type)};
  workload prefix{.data = work_->data + ", first 64 MiB", .type = work_->type};
  const auto source = std::span(work_->bytes).subspan(part.offset, n);
  prefix.bytes.assign(source.begin(), source.end());
  prefix.segments = {{.offset = 0, .n_bytes = n, .book = part.book}};
  TERSOR_TRY(auto set, create(env, codec_, prefix, 1));
  return set.verify(env);
}

status contiguous_set::verify(const gpu_env& env) {
  env.step("checking " + name_);
  TERSOR_CHECK(check_codebooks(env));
  TERSOR_CHECK(round_trip(env, 0, cuda::tail_order::canonical));
  TERSOR_CHECK(check_frames(env));
  for (std::uint64_t i = 0; i < slots_.size(); ++i) {
    TERSOR_CHECK(round_trip(env, i, cuda::tail_order::free));
  }
  return {};
}

status contiguous_set::verify_left_behind(const gpu_env& env) {
  for (const slot& s : slots_) {
    for (const device_buffer* results : {&s.encoded, &s.decoded}) {
      TERSOR_TRY([[maybe_unused]] const auto good,
                 good_results(env, *results, s.encode_tasks.size(), name_ + ": a timed call"));
    }
    TERSOR_CHECK(check_restored(s));
  }
  return {};
}

}  // namespace tersor::bench
