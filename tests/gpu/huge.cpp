// Tensors around 2^31 and beyond 2^32 values.
#include <algorithm>
#include <new>

#include "kernels.hpp"
#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

constexpr std::uint64_t kPart = std::uint64_t{256} << 20;

struct big_tensor {
  codec c = codec::rank;
  dtype type = dtype::bf16;
  std::uint64_t n_values = 0;
  tail_order order = tail_order::free;
  bool against_cpu = false;  ///< compare the frame with the CPU's, byte for byte
};

struct big_memory {
  device_memory src, frame, dst, results, book, differences;
  work_memory counting, coding, decoding;
};

/// Codebook, frame and values, one after the other on one stream.
tersor::status enqueue(const big_tensor& t, big_memory& m, const tersor::cuda::encode_task& coding,
                       cudaStream_t stream) {
  auto* result = m.results.as<frame_result>();
  const auto counting = m.counting.of(tersor::cuda::codebook_workspace_size());
  TERSOR_CHECK(tersor::cuda::make_codebook_async(t.c, t.type, m.src.get(), t.n_values, m.book.get(), counting,
                                                 as_stream(stream)));
  const auto work = m.coding.of(tersor::cuda::encode_workspace_size(t.c, t.order, {&coding, 1}));
  TERSOR_CHECK(tersor::cuda::encode_async(t.c, coding, t.order, work, as_stream(stream)));
  const tersor::cuda::decode_task decoding{.type = t.type,
                                           .n_values = t.n_values,
                                           .frame_dev = m.frame.get(),
                                           .frame_bytes = coding.capacity,
                                           .dst_dev = m.dst.get(),
                                           .result_dev = result + 1};
  const auto more = m.decoding.of(tersor::cuda::decode_workspace_size({&decoding, 1}));
  TERSOR_CHECK(tersor::cuda::decode_async(t.c, decoding, more, as_stream(stream)));
  launch_count_differences(m.src.get(), m.dst.get(), t.n_values * tersor::value_bytes(t.type),
                           m.differences.as<unsigned long long>(), stream);
  return {};
}

void compare_with_cpu(const env& e, section& s, const big_tensor& t, const big_memory& m,
                      const frame_result& result, const std::string& what) {
  try {
    const bytes data = m.src.take(0, t.n_values * tersor::value_bytes(t.type));
    const std::uint64_t shape[] = {t.n_values};
    bytes expected(tersor::encode_bound(t.c, t.type, t.n_values));
    const auto size = tersor::encode_into(e.cpu, {.type = t.type, .shape = shape, .data = data}, expected,
                                          {.codec = t.c, .raw_fallback = false});
    if (!s.check(size && *size == result.frame_bytes, "the CPU's frame has another size", what)) return;
    for (std::uint64_t at = 0; at < *size; at += kPart) {
      const bytes found = m.frame.take(at, std::min(kPart, *size - at));
      s.check(std::equal(found.begin(), found.end(), expected.begin() + static_cast<std::ptrdiff_t>(at)),
              "the frame is not the CPU's from byte " + std::to_string(at), what);
    }
  } catch (const std::bad_alloc&) {
    s.note(what + ": no host memory to compare with the CPU");
  }
}

void check_big(const env& e, section& s, const big_tensor& t) {
  const std::string what = label(t.c, t.type, t.n_values, t.order == tail_order::free ? "free" : "canonical");
  const std::uint64_t width = tersor::value_bytes(t.type), size = t.n_values * width;
  const std::uint64_t capacity = tersor::cuda::encode_bound(t.c, t.type, t.n_values);
  const std::uint64_t shape[] = {t.n_values};
  big_memory m;
  tersor::cuda::encode_task coding{.type = t.type, .shape = shape, .capacity = capacity};
  std::size_t free = 0, total = 0;
  must(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const std::uint64_t needed = 2 * size + capacity +
                               tersor::cuda::encode_workspace_size(t.c, t.order, {&coding, 1}) +
                               (std::uint64_t{1} << 30);
  if (free < needed)
    return s.note(what + ": skipped, needs " + std::to_string(needed >> 20) + " MiB of device memory");
  const side_stream stream;
  m.src.grow(size);
  m.dst.grow(size);
  m.frame.grow(capacity);
  m.results.grow(2 * sizeof(frame_result));
  m.book.grow(16);
  m.differences.grow(8);
  m.differences.fill(0, 8, 0);
  m.dst.fill(0, size, kPoison);
  e.poison(m.frame, 0, capacity);
  launch_fill_values(m.src.get(), t.n_values, width == 2 ? 1 : 0, fields_of(t.type).exponent_bits, t.n_values,
                     stream.get());
  e.wait(stream.get(), s, "fill");
  coding.src_dev = m.src.get();
  coding.codebook_dev = m.book.get();
  coding.frame_dev = m.frame.get();
  coding.result_dev = m.results.as<frame_result>();
  const auto called = enqueue(t, m, coding, stream.get());
  e.wait(stream.get(), s, what);
  if (!s.check(called.has_value(), text_of(called), what)) return;
  const frame_result encoded_result = take_result(m.results, 0), decoded_result = take_result(m.results, 1);
  s.check(encoded_result.code == 0 && decoded_result.code == 0,
          "codes " + std::to_string(encoded_result.code) + " and " + std::to_string(decoded_result.code),
          what);
  s.check(encoded_result.digest == decoded_result.digest &&
              encoded_result.frame_bytes == decoded_result.frame_bytes,
          "encoding and decoding disagree on the frame", what);
  s.check(m.differences.holds(0, 8, 0), "decoded values differ", what);
  if (t.against_cpu) compare_with_cpu(e, s, t, m, encoded_result, what);
  s.add_values(t.n_values);
}

}  // namespace

void run_huge(const env& e, section& s) {
  if (e.opt.quick)
    return check_big(e, s, {.n_values = 3'000'001, .order = tail_order::canonical, .against_cpu = true});
  constexpr std::uint64_t k31 = std::uint64_t{1} << 31, k32 = std::uint64_t{1} << 32;
  check_big(e, s, {.n_values = k32 + 123'457, .order = tail_order::canonical, .against_cpu = true});
  check_big(e, s, {.c = codec::top16, .n_values = k32 + 1, .order = tail_order::free});
  check_big(e, s, {.c = codec::rank, .type = dtype::f8_e5m2, .n_values = k32 - 1, .order = tail_order::free});
  for (const std::uint64_t n : {k31 - 1, k31, k31 + 1}) {
    check_big(e, s, {.c = codec::rank, .type = dtype::f16, .n_values = n, .order = tail_order::canonical});
    check_big(e, s, {.c = codec::top16, .type = dtype::f8_e4m3, .n_values = n, .order = tail_order::free});
  }
}

}  // namespace gpu_test
