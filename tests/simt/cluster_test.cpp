// Clusters, barriers of some warps, copies in bulk, matrix instructions.
#include <array>
#include <numeric>

#include <gtest/gtest.h>

#include "cuda/ptx/mma.cuh"
#include "numbers.hpp"
#include "random.hpp"
#include "run.hpp"

namespace {

namespace ptx = tersor::cuda::ptx;
using tersor::cuda::u16;
using tersor::cuda::u32;
using tersor::cuda::u64;

std::string fault_of(simt::memory& global, const simt::grid& size, const std::function<void(void*)>& body) {
  try {
    simt::run(global, size, body);
  } catch (const simt::kernel_fault& fault) {
    return fault.what();
  }
  return "";
}

TEST(cluster, reads_what_the_others_wrote_before_the_barrier) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    simt::memory global;
    float* out = global.allocate_array<float>(6 * 2 * 64, "out");
    const simt::grid size{.n_ctas = 12,
                          .row_ctas = 6,
                          .cluster = 3,
                          .n_threads = 64,
                          .shared_bytes = 256,
                          .seed = seed,
                          .resident = static_cast<u32>(1 + seed % 7)};
    simt::run(global, size, [&](void* memory) {
      float* shared = static_cast<float*>(memory);
      const u32 thread = ptx::thread_index(), cta = ptx::cta_index_y() * 6 + ptx::cta_index();
      shared[thread] = static_cast<float>(100 * cta + thread);
      ptx::cluster_barrier();
      float sum = 0;
      for (u32 rank = 0; rank < 3; ++rank) sum += ptx::load_from_cluster(shared + thread / 4 * 4, rank).w;
      ptx::store(out + 64 * cta + thread, sum);
      ptx::cluster_barrier();
    });
    for (u32 cta = 0; cta < 12; ++cta) {
      for (u32 i = 0; i < 64; ++i)
        ASSERT_EQ(out[64 * cta + i], static_cast<float>(300 * (cta - cta % 3) + 300 + 3 * (i / 4 * 4 + 3)));
    }
  }
}

TEST(cluster, knows_its_ranks_and_who_has_ended) {
  simt::memory global;
  const simt::grid size{.n_ctas = 2, .cluster = 2, .n_threads = 32, .shared_bytes = 16};
  const auto reads = [](u32 rank) {
    return [rank](void* memory) { ptx::load_from_cluster(static_cast<float*>(memory), rank); };
  };
  EXPECT_NE(fault_of(global, size, reads(2)).find("no CTA of this rank"), std::string::npos);
  const std::string ended = fault_of(global, size, [](void* memory) {
    if (ptx::cta_index() == 1) return;
    // Long enough for the other CTA to end.
    for (u32 i = 0; i < 2000; ++i) ptx::has_ended(static_cast<u64*>(memory), 0);
    ptx::load_from_cluster(static_cast<float*>(memory), 1);
  });
  EXPECT_NE(ended.find("has ended"), std::string::npos) << ended;
  EXPECT_NE(fault_of(global, size,
                     [](void*) {
                       if (ptx::cta_index() == 0) ptx::cluster_barrier();
                     }),
            "");
}

TEST(cluster, arrivals_reach_the_other_counter) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    simt::memory global;
    u32* out = global.allocate_array<u32>(4, "out");
    const simt::grid size{.n_ctas = 4, .cluster = 4, .n_threads = 32, .shared_bytes = 16, .seed = seed};
    simt::run(global, size, [&](void* memory) {
      u64* counter = static_cast<u64*>(memory);
      const u32 lane = ptx::thread_index();
      if (lane == 0) ptx::arrival_init(counter, 4);
      ptx::cluster_barrier();
      if (lane < 4) ptx::arrive_in_cluster(counter, lane);
      ptx::wait_for_cluster(counter, 0);
      if (lane == 0) ptx::store(out + ptx::cta_index(), 1u);
      ptx::cluster_barrier();
    });
    EXPECT_EQ(out[0] + out[1] + out[2] + out[3], 4u);
  }
}

TEST(parts, warps_meet_without_the_others) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    simt::memory global;
    u32* out = global.allocate_array<u32>(64, "out");
    simt::run(global, {.n_threads = 96, .shared_bytes = 256, .seed = seed}, [&](void* memory) {
      u32* shared = static_cast<u32*>(memory);
      const u32 thread = ptx::thread_index();
      if (thread >= 64) return;
      for (u32 round = 0; round < 5; ++round) {
        shared[thread] = round + thread;
        ptx::barrier_of(1, 64);
        ptx::store(out + thread, shared[63 - thread]);
        ptx::barrier_of(2, 64);
      }
    });
    for (u32 i = 0; i < 64; ++i) ASSERT_EQ(out[i], 4 + 63 - i);
  }
}

TEST(bulk, lands_before_its_counter_says_so_and_not_before_the_copy) {
  std::array<u32, 64> data;
  std::iota(data.begin(), data.end(), 7u);
  u32 n_late = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    simt::memory global;
    global.add(data.data(), sizeof data, simt::access::read, "data");
    u32* early = global.allocate_array<u32>(1, "early");
    u32* out = global.allocate_array<u32>(64, "out");
    simt::run(global, {.n_threads = 32, .shared_bytes = 512, .seed = seed}, [&](void* memory) {
      u32* shared = static_cast<u32*>(memory);
      u64* counter = reinterpret_cast<u64*>(shared + 64);
      const u32 lane = ptx::thread_index();
      if (lane == 0) {
        ptx::arrival_init(counter, 1);
        ptx::arrive_expecting(counter, 256);
        ptx::bulk_copy(shared, data.data(), 128, counter);
        ptx::bulk_copy_once(shared + 32, data.data() + 32, 128, counter);
        ptx::store(early, shared[40]);
      }
      ptx::sync_warp();
      ptx::wait_until_ended(counter, 0);
      ptx::store(out + lane, shared[lane]);
      ptx::store(out + 32 + lane, shared[32 + lane]);
    });
    n_late += *early != 47 ? 1 : 0;
    for (u32 i = 0; i < 64; ++i) ASSERT_EQ(out[i], data[i]);
  }
  EXPECT_GT(n_late, 10u);
}

TEST(bulk, a_lanes_copies_arrive_together) {
  std::array<u32, 128> data;
  std::iota(data.begin(), data.end(), 1u);
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    simt::memory global;
    global.add(data.data(), sizeof data, simt::access::read, "data");
    u32* out = global.allocate_array<u32>(128, "out");
    simt::run(global, {.n_threads = 64, .shared_bytes = 1024, .seed = seed}, [&](void* memory) {
      u32* shared = static_cast<u32*>(memory);
      u64* counter = reinterpret_cast<u64*>(shared + 128);
      const u32 thread = ptx::thread_index();
      if (thread == 0) ptx::arrival_init(counter, 32);
      ptx::barrier();
      if (thread < 32) {
        ptx::copy_16_or_zero(shared + 4 * thread, data.data() + 4 * thread, thread % 2 == 0 ? 16 : 6);
        ptx::arrive_after_copies(counter);
      }
      ptx::wait_until_ended(counter, 0);
      for (u32 i = thread; i < 128; i += 64) ptx::store(out + i, shared[i]);
    });
    for (u32 i = 0; i < 128; ++i) {
      const u32 in = i % 4, want = i / 4 % 2 == 0 ? data[i]
                                   : in == 0      ? data[i]
                                   : in == 1      ? data[i] & 0xffff
                                                  : 0;
      ASSERT_EQ(out[i], want);
    }
  }
}

TEST(bulk, of_a_cta_that_ends_is_a_fault) {
  std::array<u32, 64> data = {};
  simt::memory global;
  global.add(data.data(), sizeof data, simt::access::read, "data");
  std::string fault;
  for (std::uint64_t seed = 0; seed < 20 && fault.empty(); ++seed) {
    fault = fault_of(global, {.n_threads = 32, .shared_bytes = 512, .seed = seed}, [&](void* memory) {
      u32* shared = static_cast<u32*>(memory);
      u64* counter = reinterpret_cast<u64*>(shared + 64);
      if (ptx::thread_index() != 0) return;
      ptx::arrival_init(counter, 1);
      ptx::arrive_expecting(counter, 256);
      ptx::bulk_copy(shared, data.data(), 256, counter);
    });
  }
  EXPECT_NE(fault.find("under way"), std::string::npos) << fault;
  EXPECT_NE(fault_of(global, {.n_threads = 32, .shared_bytes = 512},
                     [&](void* memory) {
                       u32* shared = static_cast<u32*>(memory);
                       ptx::bulk_copy(shared, data.data(), 24, reinterpret_cast<u64*>(shared + 64));
                     })
                .find("whole 16 bytes"),
            std::string::npos);
}

/// d = a b with small whole numbers, which both dtypes and the sums hold exactly.
template <class Mma, class ToBits>
void check_mma(const Mma& mma, const ToBits& to_bits) {
  simt::random random(5);
  std::array<std::array<int, 16>, 16> a;
  std::array<std::array<int, 8>, 16> b;
  for (auto& row : a) {
    for (int& v : row) v = static_cast<int>(random.below(15)) - 7;
  }
  for (auto& row : b) {
    for (int& v : row) v = static_cast<int>(random.below(15)) - 7;
  }
  const auto pair = [&](int low, int high) {
    return static_cast<u32>(to_bits(static_cast<float>(low))) |
           static_cast<u32>(to_bits(static_cast<float>(high))) << 16;
  };
  simt::memory global;
  float* out = global.allocate_array<float>(16 * 8, "d");
  simt::run(global, {.n_threads = 32, .shared_bytes = 1024}, [&](void* memory) {
    const u32 lane = ptx::thread_index(), g = lane / 4, t = lane % 4;
    // The columns of b as rows of matrices for ldmatrix; two of the four are the same again.
    u16* columns = static_cast<u16*>(memory);
    for (u32 k = 0; k < 8; ++k)
      columns[8 * lane + k] =
          static_cast<u16>(to_bits(static_cast<float>(b[lane / 8 % 2 * 8 + k][lane % 8])));
    ptx::sync_warp();
    u32 r[4];
    ptx::ldmatrix_x4(columns + 8 * lane, r);
    const u32 halves[4] = {pair(a[g][2 * t], a[g][2 * t + 1]), pair(a[g + 8][2 * t], a[g + 8][2 * t + 1]),
                           pair(a[g][2 * t + 8], a[g][2 * t + 9]),
                           pair(a[g + 8][2 * t + 8], a[g + 8][2 * t + 9])};
    float d[4] = {1, 2, 3, 4};
    mma(d, halves, r[0], r[1]);
    for (u32 i = 0; i < 4; ++i) ptx::store(out + 8 * (g + i / 2 * 8) + 2 * t + i % 2, d[i]);
    float same[4] = {1, 2, 3, 4};
    mma(same, halves, r[2], r[3]);
    if (same[0] != d[0] || same[3] != d[3]) throw std::runtime_error("ldmatrix gave different matrices");
  });
  for (u32 row = 0; row < 16; ++row) {
    for (u32 col = 0; col < 8; ++col) {
      int want = static_cast<int>(1 + col % 2 + (row < 8 ? 0 : 2));
      for (u32 k = 0; k < 16; ++k) want += a[row][k] * b[k][col];
      ASSERT_EQ(out[8 * row + col], static_cast<float>(want)) << row << ", " << col;
    }
  }
}

TEST(matrix_instructions, multiply_by_fragments) {
  check_mma([](float(&d)[4], const u32(&a)[4], u32 b0, u32 b1) { ptx::mma_bf16(d, a, b0, b1); },
            simt::to_bf16);
  check_mma([](float(&d)[4], const u32(&a)[4], u32 b0, u32 b1) { ptx::mma_f16(d, a, b0, b1); }, simt::to_f16);
}

TEST(number_formats, go_there_and_back) {
  for (u32 bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<u16>(bits);
    const float f16 = simt::from_f16(half), bf16 = simt::from_bf16(half);
    if (std::isnan(f16)) {
      EXPECT_EQ(simt::to_f16(f16), 0x7fff);
    } else {
      ASSERT_EQ(simt::to_f16(f16), half);
    }
    if (std::isnan(bf16)) {
      EXPECT_EQ(simt::to_bf16(bf16), 0x7fff);
    } else {
      ASSERT_EQ(simt::to_bf16(bf16), half);
    }
  }
  // Halfway goes to even, beyond the largest to infinity.
  EXPECT_EQ(simt::to_f16(2049.0f), simt::to_f16(2048.0f));
  EXPECT_EQ(simt::to_f16(2051.0f), simt::to_f16(2052.0f));
  EXPECT_EQ(simt::to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(simt::to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(simt::to_bf16(257.0f), simt::to_bf16(256.0f));
  EXPECT_EQ(simt::to_bf16(259.0f), simt::to_bf16(260.0f));
}

}  // namespace
