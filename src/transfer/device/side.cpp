#include "transfer/device/side.hpp"

#include <algorithm>

namespace tersor::transfer::device {
namespace {

constexpr std::int32_t kUnfinished = static_cast<std::int32_t>(errc::internal);

}  // namespace

result<side> side::create(int device) {
  const on_device here(device);
  TERSOR_CHECK(here.good());
  side s;
  s.device_ = device;
  TERSOR_TRY(s.work_, make_memory(kLanes * kWorkBytes));
  for (std::uint32_t i = 1; i < kLanes; ++i) {
    TERSOR_TRY(s.own_[i], make_stream(true));
    TERSOR_TRY(s.ends_[i], make_event());
  }
  TERSOR_TRY(s.begins_, make_event());
  TERSOR_TRY(s.idle_, make_event());
  return s;
}

status side::begin(cudaStream_t callers) {
  callers_ = callers;
  // The last call may have used another stream as lane 0, with the same workspace.
  TERSOR_CHECK(wait(callers, idle_));
  TERSOR_CHECK(record(begins_, callers));
  for (std::uint32_t i = 1; i < kLanes; ++i) TERSOR_CHECK(wait(lane(i), begins_));
  return {};
}

status side::end() {
  for (std::uint32_t i = 1; i < kLanes; ++i) {
    TERSOR_CHECK(record(ends_[i], lane(i)));
    TERSOR_CHECK(wait(callers_, ends_[i]));
  }
  return record(idle_, callers_);
}

status side::wait_for_all() const {
  const on_device here(device_);
  TERSOR_CHECK(here.good());
  for (std::uint32_t i = 1; i < kLanes; ++i)
    TERSOR_CHECK(ok(cudaStreamSynchronize(own_[i].get()), "a link's stream"));
  return ok(cudaEventSynchronize(idle_.get()), "a link's last call");
}

status encode_part(const job& j, const part& p, const frames_at& to, const side& s, std::uint32_t lane) {
  std::array<cuda::encode_task, kMostPieces> tasks;
  const auto pieces = j.pieces(p);
  const std::uint64_t width = value_bytes(j.type);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const link_region& region = j.regions[pieces[i].region];
    tasks[i] = {.type = j.type,
                .shape = {&pieces[i].n_values, 1},
                .src_dev = static_cast<const std::byte*>(region.src) + pieces[i].first_value * width,
                .codebook_dev = region.codebook_dev,
                .book = region.book,
                .frame_dev = to.of(pieces[i]),
                .capacity = pieces[i].capacity,
                .result_dev = &j.verdict_of(p)[i].sent};
  }
  return cuda::encode_batch_async(j.code, std::span(tasks).first(pieces.size()), cuda::tail_order::free,
                                  s.work(lane), s.lane(lane));
}

status decode_part(const job& j, const part& p, const frames_at& from, bool exact, const side& s,
                   std::uint32_t lane) {
  std::array<cuda::decode_task, kMostPieces> tasks;
  std::array<cuda::recheck_task, kMostPieces> again;
  const auto pieces = j.pieces(p);
  const std::uint64_t width = value_bytes(j.type);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    link_verdict& verdict = j.verdict_of(p)[i];
    void* dst = static_cast<std::byte*>(j.regions[pieces[i].region].dst) + pieces[i].first_value * width;
    const std::uint64_t n_bytes =
        exact ? std::min(verdict.sent.frame_bytes, pieces[i].capacity) : pieces[i].capacity;
    tasks[i] = {.type = j.type,
                .n_values = pieces[i].n_values,
                .frame_dev = from.of(pieces[i]),
                .frame_bytes = n_bytes,
                .dst_dev = dst,
                .result_dev = &verdict.received};
    again[i] = {.type = j.type,
                .n_values = pieces[i].n_values,
                .values_dev = dst,
                .frame_dev = from.of(pieces[i]),
                .frame_bytes = n_bytes,
                .result_dev = &verdict.again};
  }
  TERSOR_CHECK(
      cuda::decode_batch_async(j.code, std::span(tasks).first(pieces.size()), s.work(lane), s.lane(lane)));
  if (!j.recheck) return {};
  return cuda::recheck_async(j.code, std::span(again).first(pieces.size()), s.work(lane), s.lane(lane));
}

status copy_frames(const job& j, const part& p, const frames_at& from, const frames_at& to, cudaStream_t s) {
  std::array<cuda::tails_task, kMostPieces> tails;
  const auto pieces = j.pieces(p);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    tails[i] = {.prefix_bytes = cuda::frame_prefix_size(j.code, j.type, pieces[i].n_values),
                .from_dev = from.of(pieces[i]),
                .to_dev = to.of(pieces[i]),
                .capacity = pieces[i].capacity,
                .encoded_dev = &j.verdict_of(p)[i].sent};
  }
  TERSOR_CHECK(cuda::copy_tails_async(std::span(tails).first(pieces.size()), s));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    TERSOR_CHECK(
        ok(cudaMemcpyAsync(to.of(pieces[i]), from.of(pieces[i]), tails[i].prefix_bytes, cudaMemcpyDefault, s),
           "copying frames"));
  }
  return {};
}

bool has_small_pieces(const job& j, const part& p, std::uint64_t few) noexcept {
  std::uint64_t values = 0;
  for (const piece& one : j.pieces(p)) values += one.n_values;
  return values * value_bytes(j.type) / p.n_pieces < few;
}

void reset_sent(std::span<link_verdict> all, std::uint64_t used) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].sent = {};
    if (i < used) all[i].sent.code = kUnfinished;
  }
}

void reset_received(std::span<link_verdict> all, std::uint64_t used, bool recheck) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].received = all[i].again = {};
    if (i >= used) continue;
    all[i].received.code = kUnfinished;
    if (recheck) all[i].again.code = kUnfinished;
  }
}

status copy_raw(std::span<const raw_run> runs, cudaStream_t s) {
  for (const raw_run& run : runs)
    TERSOR_CHECK(ok(cudaMemcpyAsync(run.dst, run.src, run.n_bytes, cudaMemcpyDefault, s), "copying values"));
  return {};
}

}  // namespace tersor::transfer::device
