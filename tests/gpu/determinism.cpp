// The same tensor again and again while other kernels take and leave multiprocessors: the same canonical
// frame each time, and free frames that decode.
#include <algorithm>

#include "kernels.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

constexpr std::uint64_t kValues = 300'007;
constexpr std::uint64_t kRounds = 100;  ///< reruns between two looks

/// Buffers for reruns; results are compared on the device, so that nothing waits between them.
struct reruns {
  codec c;
  dtype type;
  bytes data, expected;
  device_memory src, reference, frame, dst, results, differences;
  work_memory coding, decoding;
  std::uint64_t capacity;

  reruns(const env& e, codec which, dtype t)
      : c(which), type(t), data(make_data(t, kValues, kind::lognormal_columns, 6)) {
    const std::uint64_t shape[] = {kValues};
    expected = cpu_frame(e.cpu, c, type, shape, data, book());
    capacity = tersor::cuda::encode_bound(c, type, kValues);
    src.grow(data.size());
    src.put(0, data);
    reference.grow(expected.size());
    reference.put(0, expected);
    frame.grow(capacity);
    dst.grow(data.size());
    results.grow(2 * kRounds * sizeof(frame_result));
    differences.grow(8);
    differences.fill(0, 8, 0);
  }
  [[nodiscard]] tersor::codebook book() const { return cpu_book(type, data); }
};

tersor::status enqueue(reruns& r, const tersor::codebook& book, tail_order order, std::uint64_t round,
                       cudaStream_t stream) {
  const std::uint64_t shape[] = {kValues};
  must(cudaMemsetAsync(r.frame.get(), kPoison, r.capacity, stream), "cudaMemsetAsync");
  must(cudaMemsetAsync(r.dst.get(), kPoison, r.data.size(), stream), "cudaMemsetAsync");
  auto* result = r.results.as<frame_result>() + 2 * round;
  const tersor::cuda::encode_task coding{.type = r.type,
                                         .shape = shape,
                                         .src_dev = r.src.get(),
                                         .book = book,
                                         .frame_dev = r.frame.get(),
                                         .capacity = r.capacity,
                                         .result_dev = result};
  const auto work =
      r.coding.of(std::max(tersor::cuda::encode_workspace_size(r.c, tail_order::canonical, {&coding, 1}),
                           tersor::cuda::encode_workspace_size(r.c, tail_order::free, {&coding, 1})));
  TERSOR_CHECK(tersor::cuda::encode_async(r.c, coding, order, work, as_stream(stream)));
  const tersor::cuda::decode_task decoding{.type = r.type,
                                           .n_values = kValues,
                                           .frame_dev = r.frame.get(),
                                           .frame_bytes = r.capacity,
                                           .dst_dev = r.dst.get(),
                                           .result_dev = result + 1};
  const auto more = r.decoding.of(tersor::cuda::decode_workspace_size({&decoding, 1}));
  TERSOR_CHECK(tersor::cuda::decode_async(r.c, decoding, more, as_stream(stream)));
  auto* counter = r.differences.as<unsigned long long>();
  if (order == tail_order::canonical)
    launch_count_differences(r.frame.get(), r.reference.get(), r.expected.size(), counter, stream);
  launch_count_differences(r.dst.get(), r.src.get(), r.data.size(), counter, stream);
  return {};
}

void check_rounds(const env& e, section& s, reruns& r, std::uint64_t n, cudaStream_t stream,
                  const std::string& what) {
  e.wait(stream, s, what);
  s.check(r.differences.holds(0, 8, 0), "a frame or its values differ", what);
  r.differences.fill(0, 8, 0);
  for (std::uint64_t i = 0; i < 2 * n; ++i) {
    const frame_result result = take_result(r.results, i);
    s.check(result.code == 0 && result.frame_bytes == r.expected.size(),
            "code " + std::to_string(result.code), what);
  }
  s.add_values(n * kValues);
}

void rerun(const env& e, section& s, codec c, dtype type, std::uint64_t n_reruns) {
  const side_stream stream, other;
  reruns r(e, c, type);
  const tersor::codebook book = r.book();
  prng random(static_cast<std::uint64_t>(type));
  for (std::uint64_t done = 0; done < n_reruns;) {
    const std::uint64_t n = std::min(kRounds, n_reruns - done);
    const std::string what = label(c, type, kValues, "rerun " + std::to_string(done));
    for (std::uint64_t i = 0; i < n; ++i) {
      launch_busy(random.below(60'000), 1 + static_cast<unsigned>(random.below(400)), other.get());
      const auto order = (done + i) % 4 == 3 ? tail_order::free : tail_order::canonical;
      const auto called = enqueue(r, book, order, i, stream.get());
      if (!s.check(called.has_value(), text_of(called), what)) return;
    }
    check_rounds(e, s, r, n, stream.get(), what);
    e.wait(other.get(), s, "the other kernels");
    done += n;
  }
}

}  // namespace

void run_determinism(const env& e, section& s) {
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) rerun(e, s, c, type, e.pick<std::uint64_t>(4, 1700));
  }
}

}  // namespace gpu_test
