// The twin's arithmetic against definitions written bit by bit.
#include <array>

#include <gtest/gtest.h>

#include "cuda/ptx/ptx.cuh"
#include "simt/random.hpp"

namespace {

using namespace tersor::cuda;

constexpr int kRounds = 20000;

u32 word(simt::random& from) {
  // Words of few bits and of many, since edges lie there.
  const u64 x = from.next();
  switch (x >> 62) {
    case 0:
      return static_cast<u32>(x & (x >> 32));
    case 1:
      return static_cast<u32>(x | (x >> 32));
    default:
      return static_cast<u32>(x);
  }
}

bool bit(u32 low, u32 high, u32 i) {
  return ((i < 32 ? low >> i : high >> (i - 32)) & 1u) != 0;
}

TEST(bits, prmt_picks_bytes_and_signs) {
  simt::random r(1);
  for (int round = 0; round < kRounds; ++round) {
    const u32 a = word(r);
    const u32 b = word(r);
    const u32 selector = static_cast<u32>(r.next());
    std::array<u8, 8> pool{};
    for (u32 i = 0; i < 4; ++i) {
      pool[i] = static_cast<u8>(a >> (8 * i));
      pool[i + 4] = static_cast<u8>(b >> (8 * i));
    }
    u32 expected = 0;
    for (u32 i = 4; i-- > 0;) {
      const u32 nibble = (selector >> (4 * i)) % 16;
      u8 byte = pool[nibble % 8];
      if (nibble >= 8) {
        byte = byte >= 128 ? 255 : 0;
      }
      expected = expected * 256 + byte;
    }
    ASSERT_EQ(ptx::prmt(a, b, selector), expected) << std::hex << a << ' ' << b << ' ' << selector;
  }
  EXPECT_EQ(ptx::prmt(0x33221100u, 0x77665544u, 0x7531u), 0x77553311u);
  EXPECT_EQ(ptx::prmt(0x00008000u, 0x80000000u, 0xf890u), 0xff00ff00u);
}

TEST(bits, funnels_shift_two_words) {
  simt::random r(2);
  for (int round = 0; round < kRounds; ++round) {
    const u32 low = word(r);
    const u32 high = word(r);
    const u32 shift = static_cast<u32>(r.below(80));
    u32 left[2] = {};
    u32 right[2] = {};
    const u32 by[2] = {shift % 32, shift < 32 ? shift : 32};
    for (u32 k = 0; k < 2; ++k) {
      for (u32 i = 0; i < 32; ++i) {
        left[k] |= u32{bit(low, high, i + 32 - by[k])} << i;
        right[k] |= u32{bit(low, high, i + by[k])} << i;
      }
    }
    ASSERT_EQ(ptx::funnel_left(low, high, shift), left[0]) << shift;
    ASSERT_EQ(ptx::funnel_left_clamped(low, high, shift), left[1]) << shift;
    ASSERT_EQ(ptx::funnel_right(low, high, shift), right[0]) << shift;
    ASSERT_EQ(ptx::funnel_right_clamped(low, high, shift), right[1]) << shift;
  }
}

TEST(bits, counts_and_orders) {
  simt::random r(3);
  for (int round = 0; round < kRounds; ++round) {
    const u32 x = word(r);
    u32 n = 0;
    u32 reversed = 0;
    u32 lowest = 32;
    for (u32 i = 32; i-- > 0;) {
      if (bit(x, 0, i)) {
        n += 1;
        reversed |= 1u << (31 - i);
        lowest = i;
      }
    }
    ASSERT_EQ(ptx::popc(x), n);
    ASSERT_EQ(ptx::reverse(x), reversed) << std::hex << x;
    if (x != 0) {
      ASSERT_EQ(ptx::lowest_bit(x), lowest);
    }
  }
}

TEST(bits, products_and_blend) {
  simt::random r(4);
  for (int round = 0; round < kRounds; ++round) {
    const u32 a = word(r);
    const u32 b = word(r);
    const u32 c = word(r);
    u64 sum = c;
    for (u32 i = 0; i < 4; ++i) {
      sum += u64{static_cast<u8>(a >> (8 * i))} * static_cast<u8>(b >> (8 * i));
    }
    ASSERT_EQ(ptx::dot_bytes(a, b, c), static_cast<u32>(sum));
    // Schoolbook, by halves.
    const u64 cross = u64{a % 65536} * (b / 65536) + (u64{a % 65536} * (b % 65536)) / 65536;
    const u64 other = u64{a / 65536} * (b % 65536) + cross % 65536;
    const u64 high = u64{a / 65536} * (b / 65536) + cross / 65536 + other / 65536;
    ASSERT_EQ(ptx::mul_high(a, b), static_cast<u32>(high));
    u32 mixed = 0;
    for (u32 i = 0; i < 32; ++i) {
      mixed |= u32{bit(c, 0, i) ? bit(a, 0, i) : bit(b, 0, i)} << i;
    }
    ASSERT_EQ(ptx::blend(a, b, c), mixed);
  }
}

}  // namespace
