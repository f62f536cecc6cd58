// Values checked again where they lie, and tails copied to where a frame goes.
#include <gtest/gtest.h>

#include "frame_damage.hpp"
#include "twin_calls.hpp"

namespace {

using namespace twin;
using tersor::codec;
using tersor::dtype;
using tersor::errc;
using tersor::cuda::frame_result;

frame_result recheck(codec c, dtype type, byte_view values, byte_view frame, std::uint64_t seed) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
  const std::uint64_t n_values = values.size() / tersor::value_bytes(type);
  auto* result = d.reserve_array<frame_result>(1, "result");
  const tersor::cuda::recheck_task task{
      .type = type,
      .n_values = n_values,
      .values_dev = d.upload(values, "values", seed % 2 == 0 ? 0 : seed % 16),
      .frame_dev = d.upload(frame, "frame", tersor::cuda::kFrameAlignment),
      .frame_bytes = frame.size(),
      .result_dev = result};
  const auto ws = d.reserve_workspace(tersor::cuda::recheck_workspace_size());
  const tersor::status call = tersor::cuda::recheck_async(c, {&task, 1}, ws, nullptr);
  EXPECT_TRUE(call.has_value()) << call.error().describe();
  if (!call) return {};
  d.expect_ready(ws);
  return d.download_value(result);
}

TEST(frames, values_that_are_right_are_good) {
  std::uint64_t seed = 0;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      for (const std::uint64_t n : {0ULL, 1ULL, 1023ULL, 1025ULL, 8192ULL, 20001ULL}) {
        if (left_out(++seed, 5)) continue;
        SCOPED_TRACE(label(c, type, n, kind::mixed));
        const bytes data = make_data(type, n, kind::mixed, seed);
        const bytes frame = cpu_frame(c, type, {&n, 1}, data, book_of(type, data));
        expect_good(recheck(c, type, data, frame, seed), frame);
      }
    }
  }
}

TEST(frames, a_changed_value_is_found_in_its_chunk) {
  simt::random random(7);
  const std::uint64_t n = 40'001;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      const bytes data = make_data(type, n, kind::normal, 3);
      const bytes frame = cpu_frame(c, type, {&n, 1}, data, book_of(type, data));
      for (std::uint64_t i = 0; i < (kSlow ? 2U : 12U); ++i) {
        bytes changed = data;
        const std::uint64_t at = random.next() % changed.size();
        changed[at] ^= static_cast<std::byte>(1U << random.next() % 8);
        const frame_result got = recheck(c, type, changed, frame, i);
        EXPECT_EQ(got.code, static_cast<std::int32_t>(errc::digest_mismatch));
        EXPECT_EQ(got.chunk, at / tersor::value_bytes(type) / 8192);
      }
    }
  }
}

TEST(frames, a_damaged_header_or_index_is_refused) {
  simt::random random(11);
  const std::uint64_t n = 20'001;
  for (const codec c : kCodecs) {
    const bytes data = make_data(dtype::bf16, n, kind::normal, 3);
    const bytes frame = cpu_frame(c, dtype::bf16, {&n, 1}, data, book_of(dtype::bf16, data));
    for (std::uint64_t i = 0; i < (kSlow ? 10U : 200U); ++i) {
      bytes changed = frame;
      changed[random.next() % (128 + 3 * 24)] ^= static_cast<std::byte>(1U << random.next() % 8);
      EXPECT_NE(recheck(c, dtype::bf16, data, changed, i).code, 0);
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{64}, std::size_t{128}, std::size_t{400}}) {
      const byte_view cut = byte_view(frame).first(size);
      EXPECT_EQ(recheck(c, dtype::bf16, data, cut, size).code, static_cast<std::int32_t>(errc::truncated));
    }
    // Another number of values than the frame holds.
    EXPECT_EQ(recheck(c, dtype::bf16, byte_view(data).first(2000), frame, 1).code,
              static_cast<std::int32_t>(errc::mismatch));
  }
}

TEST(frames, tails_are_copied_and_nothing_else) {
  const std::uint64_t n = 50'000;
  for (const kind k : {kind::normal, kind::uniform_exponents, kind::constant}) {
    const bytes data = make_data(dtype::bf16, n, k, 5);
    const bytes frame = cpu_frame(codec::rank, dtype::bf16, {&n, 1}, data, book_of(dtype::bf16, data));
    const std::uint64_t prefix = tersor::cuda::frame_prefix_size(codec::rank, dtype::bf16, n);
    const std::uint64_t capacity = tersor::cuda::encode_bound(codec::rank, dtype::bf16, n);
    for (const std::int32_t code : {0, 2}) {
      device d(3);
      bytes source = frame;
      source.resize(capacity);
      frame_result said;
      said.code = code;
      said.frame_bytes = frame.size();
      auto* to = d.reserve(capacity, "target");
      const tersor::cuda::tails_task task{.prefix_bytes = prefix,
                                          .from_dev = d.upload(source, "frame"),
                                          .to_dev = to,
                                          .capacity = capacity,
                                          .encoded_dev = reinterpret_cast<const frame_result*>(
                                              d.upload(std::as_bytes(std::span(&said, 1)), "result"))};
      const tersor::status call = tersor::cuda::copy_tails_async({&task, 1}, nullptr);
      ASSERT_TRUE(call.has_value()) << call.error().describe();
      for (std::uint64_t i = 0; i < capacity; i += 4)
        ASSERT_EQ(d.is_written(to + i), code == 0 && i >= prefix && i < frame.size()) << i;
      if (code == 0 && frame.size() > prefix) {
        EXPECT_EQ(
            difference(d.download(to + prefix, frame.size() - prefix), byte_view(frame).subspan(prefix)), "");
      }
    }
  }
}

}  // namespace
