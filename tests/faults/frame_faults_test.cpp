// Damaged frames: every changed bit and byte, every cut, chunks in the wrong place.
#include <algorithm>

#include <gtest/gtest.h>

#include "../golden/frame_edit.hpp"
#include "../golden/sample_data.hpp"
#include "support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

/// A frame of about `n_bytes` of BF16 with all kinds of tiles, its last tile not full.
bytes sample_frame(const tersor::context& ctx, codec c, std::uint64_t n_values, std::uint64_t seed = 5) {
  return faults::encode_data(ctx, c, dtype::bf16, faults::mixed_values(dtype::bf16, n_values, seed));
}

/// Decodes a changed frame; counts what was not noticed.
class change_counter {
 public:
  explicit change_counter(const tersor::context& ctx, std::size_t capacity) : ctx_(&ctx), dst_(capacity) {}

  void try_frame(std::span<const std::byte> frame, std::string_view what, std::uint64_t where) {
    ++tried_;
    const auto decoded = tersor::decode_into(*ctx_, frame, dst_);
    if (!decoded && tersor::is_data_error(decoded.error().code)) return;
    ++silent_;
    ADD_FAILURE() << what << " at " << where << ": " << (decoded ? "decoded" : decoded.error().describe());
  }
  [[nodiscard]] std::uint64_t tried() const noexcept { return tried_; }
  [[nodiscard]] std::uint64_t silent() const noexcept { return silent_; }

 private:
  const tersor::context* ctx_;
  bytes dst_;
  std::uint64_t tried_ = 0, silent_ = 0;
};

TEST(frame_faults, every_changed_byte_is_noticed) {
  const tersor::context ctx = faults::make_context();
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    // 40,100 values make a rank frame of 64 KiB; the short run takes a smaller one.
    bytes frame = sample_frame(ctx, c, faults::long_run() ? 40'100 : 4'300);
    change_counter count(ctx, 1 << 18);
    for (std::size_t at = 0; at < frame.size(); at += faults::slowness()) {
      const std::byte good = frame[at];
      for (unsigned change = 1; change < 256; ++change) {
        const bool one_bit = (change & (change - 1)) == 0;
        if (!one_bit && !faults::long_run() && at >= 128 + 48) continue;
        frame[at] = good ^ static_cast<std::byte>(change);
        count.try_frame(frame, to_string(c), at * 256 + change);
      }
      frame[at] = good;
      if (testing::Test::HasFailure()) break;
    }
    faults::publish(
        6,
        std::string("frame, ") + std::string(to_string(c)) + ", " + std::to_string(frame.size()) + " bytes",
        count.tried(), count.silent(), "changes");
  }
}

TEST(frame_faults, a_frame_cut_anywhere_is_an_error) {
  const tersor::context ctx = faults::make_context();
  std::uint64_t tried = 0;
  std::uint64_t wrong = 0;
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    const bytes frame = sample_frame(ctx, c, faults::long_run() ? 40'100 : 20'100);
    bytes dst(1 << 18);
    for (std::size_t n = 0; n < frame.size(); n += faults::slowness(), ++tried) {
      const auto decoded = tersor::decode_into(ctx, std::span(frame).first(n), dst);
      const auto inspected = tersor::inspect(std::span(frame).first(n));
      const bool right = !decoded && decoded.error().code == errc::truncated && !inspected;
      if (!right) ++wrong;
      ASSERT_TRUE(right) << to_string(c) << " cut to " << n;
    }
    bytes longer = frame;
    for (unsigned n = 0; n < 256; ++n, ++tried) {
      longer.push_back(std::byte{0});
      const auto decoded = tersor::decode_into(ctx, longer, dst);
      ASSERT_FALSE(decoded);
      EXPECT_EQ(decoded.error().code, errc::malformed);
      EXPECT_TRUE(tersor::inspect(longer)) << "bytes may follow a frame that is only looked at";
    }
  }
  faults::publish(8, "frames cut or lengthened", tried, wrong, "lengths");
}

TEST(frame_faults, a_coded_codec_on_a_dtype_without_exponent_is_malformed) {
  const tersor::context ctx = faults::make_context();
  for (const codec c : {codec::rank, codec::top16}) {
    for (const unsigned type : {0U, 6U, 7U, 8U, 9U, 10U, 11U, 12U, 13U, 14U, 15U}) {
      bytes frame = sample_frame(ctx, c, 2000);
      frame[11] = static_cast<std::byte>(type);
      faults::reseal(frame);
      const auto decoded = tersor::decode(ctx, frame);
      ASSERT_FALSE(decoded);
      EXPECT_EQ(decoded.error().code, errc::malformed) << "dtype " << type;
      const auto book = tersor::make_codebook(static_cast<dtype>(type), {});
      ASSERT_FALSE(book);
      EXPECT_EQ(book.error().code, errc::unsupported) << "dtype " << type;
    }
  }
}

/// Exchanges two chunks of equal geometry with their records, then makes index and header right again.
void swap_chunks(golden::frame_edit& edit, std::uint64_t a, std::uint64_t b, bool records, bool planes) {
  if (records) {
    const auto ra = edit.chunk(a);
    const auto rb = edit.chunk(b);
    edit.put_chunk(a, rb);
    edit.put_chunk(b, ra);
  }
  if (!planes) return;
  for (const char* name : {"rest bytes", "codes"}) {
    const auto& section = edit.find(name);
    const auto chunk_bytes = static_cast<std::ptrdiff_t>(section.tile_bytes * 8);
    const auto at = edit.data().begin() + static_cast<std::ptrdiff_t>(section.offset);
    std::swap_ranges(at + static_cast<std::ptrdiff_t>(a) * chunk_bytes,
                     at + static_cast<std::ptrdiff_t>(a + 1) * chunk_bytes,
                     at + static_cast<std::ptrdiff_t>(b) * chunk_bytes);
  }
}

TEST(frame_faults, chunks_out_of_place_are_noticed) {
  const tersor::context ctx = faults::make_context();
  constexpr std::uint64_t kChunks = 6;
  change_counter count(ctx, 1 << 18);
  for (const codec c : {codec::rank, codec::top16}) {
    const bytes frame = sample_frame(ctx, c, kChunks * 8192);
    for (std::uint64_t a = 0; a < kChunks; ++a) {
      for (std::uint64_t b = a + 1; b < kChunks; ++b) {
        for (const unsigned parts : {1U, 2U, 3U}) {
          golden::frame_edit edit(frame);
          swap_chunks(edit, a, b, (parts & 1) != 0, (parts & 2) != 0);
          count.try_frame(edit.data(), "swap", a * kChunks + b);
        }
        golden::frame_edit edit(frame);
        edit.put_chunk(b, edit.chunk(a));
        count.try_frame(edit.data(), "duplicate", a * kChunks + b);
      }
    }
  }
  faults::publish(7, "chunks swapped or duplicated with the digests above made right", count.tried(),
                  count.silent(), "frames");
}

TEST(frame_faults, chunks_of_another_frame_are_noticed) {
  const tersor::context ctx = faults::make_context();
  constexpr std::uint64_t kValues = 6 * 8192;
  change_counter count(ctx, 1 << 18);
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    const bytes a = sample_frame(ctx, c, kValues, 1);
    const bytes b = sample_frame(ctx, c, kValues, 2);
    const std::size_t common = std::min(a.size(), b.size());
    // Every block of b, of 128 bytes up to a chunk's plane, laid over the same and over another place of a.
    for (const std::size_t block : {std::size_t{128}, std::size_t{2048}, std::size_t{8192}}) {
      for (std::size_t at = 0; at + block <= common; at += block) {
        for (const std::size_t from : {at, (at + block) % (common - block + 1)}) {
          bytes spliced = a;
          std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(from), block,
                      spliced.begin() + static_cast<std::ptrdiff_t>(at));
          if (spliced == a) continue;
          count.try_frame(spliced, "splice", at);
          if (at < 128) continue;
          faults::reseal(spliced);
          // With a record of b the frame can be a good one again: nothing but planes and tails is tried here.
          if (at >= 128 + 256) count.try_frame(spliced, "resealed splice", at);
        }
      }
    }
  }
  faults::publish(7, "blocks of another frame spliced in", count.tried(), count.silent(), "frames");
}

TEST(frame_faults, raw_chunks_out_of_place_are_noticed) {
  const tersor::context ctx = faults::make_context();
  const bytes frame = sample_frame(ctx, codec::raw, 6 * 8192);
  change_counter count(ctx, 1 << 18);
  for (std::uint64_t a = 0; a < 6; ++a) {
    for (std::uint64_t b = a + 1; b < 6; ++b) {
      golden::frame_edit edit(frame);
      const auto payload = edit.data().begin() + static_cast<std::ptrdiff_t>(edit.at("payload"));
      std::swap_ranges(payload + static_cast<std::ptrdiff_t>(a * 16384),
                       payload + static_cast<std::ptrdiff_t>((a + 1) * 16384),
                       payload + static_cast<std::ptrdiff_t>(b * 16384));
      count.try_frame(edit.data(), "payload", a * 6 + b);
      const std::uint64_t index = edit.at("index");
      const std::uint64_t digest_a = edit.get(index + 8 * a, 8);
      edit.set(index + 8 * a, 8, edit.get(index + 8 * b, 8));
      edit.set(index + 8 * b, 8, digest_a);
      edit.fix_index();
      count.try_frame(edit.data(), "payload and digests", a * 6 + b);
    }
  }
  faults::publish(7, "raw chunks swapped with their digests", count.tried(), count.silent(), "frames");
}

}  // namespace
