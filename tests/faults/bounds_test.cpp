// Nothing outside the caller's buffers is read or written: destinations too small, and pages that fault when
// touched.
#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

constexpr std::byte kCanary{0xa5};
constexpr codec kCodecs[] = {codec::raw, codec::top16, codec::rank};

bool untouched(std::span<const std::byte> part) {
  return std::ranges::all_of(part, [](std::byte b) { return b == kCanary; });
}

class bounds : public testing::TestWithParam<std::string> {
 protected:
  bounds() : ctx_(faults::make_context(1, GetParam())) {}
  tersor::context ctx_;
};

TEST_P(bounds, a_destination_too_small_is_refused_untouched) {
  std::uint64_t tried = 0;
  const faults::guarded memory(1 << 17);
  for (const codec c : kCodecs) {
    for (const std::uint64_t n : {1U, 100U, 1024U, 1025U, 9000U}) {
      const bytes data = faults::mixed_values(dtype::bf16, n, n);
      const bytes frame = faults::encode_data(ctx_, c, dtype::bf16, data);
      const std::uint64_t shape[] = {n};
      const std::uint64_t bound = tersor::encode_bound(c, dtype::bf16, n);
      const std::uint64_t step = faults::long_run() ? 1 : 97;
      for (std::uint64_t less = 1; less <= data.size(); less = less < 256 ? less + 1 : less + step, ++tried) {
        const auto dst = memory.back(data.size() - less);
        std::ranges::fill(memory.front(memory.capacity()), kCanary);
        const auto decoded = tersor::decode_into(ctx_, frame, dst);
        ASSERT_FALSE(decoded);
        ASSERT_EQ(decoded.error().code, errc::destination_too_small);
        const auto part = tersor::decode_chunks(ctx_, frame, 0, tersor::inspect(frame)->n_chunks, dst);
        ASSERT_FALSE(part);
        ASSERT_EQ(part.error().code, errc::destination_too_small);
        ASSERT_TRUE(untouched(memory.front(memory.capacity())));
      }
      for (std::uint64_t less = 1; less <= bound; less = less < 256 ? less + 1 : less + step, ++tried) {
        const auto dst = memory.back(bound - less);
        std::ranges::fill(dst, kCanary);
        const auto size = tersor::encode_into(ctx_, {.type = dtype::bf16, .shape = shape, .data = data}, dst,
                                              {.codec = c, .raw_fallback = false});
        ASSERT_FALSE(size);
        ASSERT_EQ(size.error().code, errc::destination_too_small);
        ASSERT_TRUE(untouched(dst));
      }
    }
  }
  faults::publish(9, GetParam(), tried, 0, "destinations");
}

/// One tensor of `n_bytes` at the very edge of its memory, encoded into and decoded from memory that ends
/// `gap` bytes before the edge; the gap must stay as it was.
class edge_case {
 public:
  edge_case() : src_(1 << 16), frame_(1 << 16), dst_(1 << 16) {}

  void run(const tersor::context& ctx, codec c, dtype type, std::size_t n_bytes, std::size_t gap,
           bool front) {
    const auto place = [&](const faults::guarded& memory, std::size_t n, std::size_t distance) {
      return front ? memory.front(n + distance).subspan(distance) : memory.back(n, distance);
    };
    const auto src = place(src_, n_bytes, gap % 2 == 0 ? 0 : gap);
    for (std::size_t i = 0; i < n_bytes; ++i)
      src[i] = static_cast<std::byte>(i % 2 == 0 ? i * 37 : 0x3c + i % 3);
    const std::uint64_t shape[] = {n_bytes / tersor::value_bytes(type)};
    const std::uint64_t bound = tersor::encode_bound(c, type, shape[0]);
    const auto around = place(frame_, bound + gap, 0);
    std::ranges::fill(around, kCanary);
    const auto room = front ? around.subspan(gap) : around.first(bound);
    const auto size = tersor::encode_into(ctx, {.type = type, .shape = shape, .data = src}, room,
                                          {.codec = c, .raw_fallback = false});
    ASSERT_TRUE(size) << size.error().describe();
    ASSERT_TRUE(untouched(front ? around.first(gap) : around.last(gap)));
    // The frame moves so that it, too, lies against the edge.
    const auto frame = place(frame_, *size, gap);
    std::memmove(frame.data(), room.data(), *size);
    const auto out = place(dst_, n_bytes + gap, 0);
    std::ranges::fill(out, kCanary);
    const auto data = front ? out.subspan(gap) : out.first(n_bytes);
    const auto back = tersor::decode_into(ctx, frame, data);
    ASSERT_TRUE(back) << back.error().describe();
    ASSERT_TRUE(std::ranges::equal(data, src));
    ASSERT_TRUE(untouched(front ? out.first(gap) : out.last(gap)));
  }

 private:
  faults::guarded src_, frame_, dst_;
};

TEST_P(bounds, pages_around_the_buffers_are_never_touched) {
  const bool full = faults::long_run();
  edge_case edge;
  std::uint64_t tried = 0;
  for (const dtype type : {dtype::bf16, dtype::f32, dtype::f16, dtype::f8_e4m3, dtype::f8_e5m2}) {
    const std::size_t width = tersor::value_bytes(type);
    // The long run takes every size and offset for BF16 and samples the other dtypes.
    const std::size_t step = full && type == dtype::bf16 ? 1 : full ? 7 : 61;
    for (std::size_t size = 0; size <= 4096; size += step) {
      const std::size_t n_bytes = size / width * width;
      for (std::size_t gap = 0; gap < 64; gap += full ? 1 : 9) {
        for (const codec c : kCodecs) {
          for (const bool front : {false, true}) {
            ASSERT_NO_FATAL_FAILURE(edge.run(ctx_, c, type, n_bytes, gap, front))
                << to_string(type) << ' ' << to_string(c) << " size " << n_bytes << " gap " << gap;
            ++tried;
          }
        }
      }
    }
  }
  faults::publish(10, GetParam(), tried, 0, "round trips between guard pages");
}

TEST_P(bounds, a_hostile_frame_at_the_edge_faults_nothing) {
  const faults::guarded memory(1 << 18);
  const faults::guarded dst(1 << 18);
  std::uint64_t tried = 0;
  std::uint64_t state = 99;
  const auto random = [&] {
    return state = state * 6364136223846793005U + 1442695040888963407U, state >> 33;
  };
  for (const codec c : {codec::rank, codec::top16}) {
    for (const dtype type : {dtype::bf16, dtype::f16, dtype::f8_e5m2}) {
      const bytes data = faults::mixed_values(type, 20'000, 3);
      const bytes good = faults::encode_data(ctx_, c, type, data);
      for (unsigned round = 0; round < (faults::long_run() ? 20'000 : 600); ++round, ++tried) {
        const auto frame = memory.back(good.size());
        std::ranges::copy(good, frame.begin());
        for (std::uint64_t n = random() % 8 + 1; n > 0; --n) {
          // Index and tails are where lengths and addresses come from.
          const std::size_t at = random() % 3 == 0 ? 128 + random() % 72 : random() % frame.size();
          frame[at] = static_cast<std::byte>(random());
        }
        faults::reseal(frame);
        static_cast<void>(tersor::decode_into(ctx_, frame, dst.back(data.size())));
        static_cast<void>(
            tersor::decode_chunks(ctx_, frame, 1, 1, dst.back(8192 * tersor::value_bytes(type))));
      }
    }
  }
  faults::publish(10, "hostile frames, " + GetParam(), tried, 0, "frames against guard pages");
}

INSTANTIATE_TEST_SUITE_P(codec, bounds, testing::ValuesIn(faults::backend_names()),
                         [](const auto& backend) { return backend.param; });

}  // namespace
