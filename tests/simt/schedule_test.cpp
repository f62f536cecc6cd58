// Interleavings: right kernels end with every seed, wrong ones are found by some.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "counter.hpp"
#include "cuda/ptx/ptx.cuh"
#include "simt/run.hpp"

namespace {

using namespace tersor::cuda;

constexpr u64 kSeeds = 40;

/// Warp 0 hands words to the others through a ring; a slot is written again when all have read it.
struct ring {
  static constexpr u32 kSlots = 3;
  static constexpr u32 kWords = 40;
  u32 word[kSlots][32];
  u32 written;
  u32 read[kSlots];
};

u32 sum_through_ring(ring& r, u32 n_readers, bool writer_waits) {
  const u32 warp = ptx::thread_index() / 32;
  const u32 lane = ptx::thread_index() % 32;
  if (ptx::thread_index() == 0) {
    r.written = 0;
    std::fill_n(r.read, ring::kSlots, 0u);
  }
  ptx::barrier();
  u32 sum = 0;
  for (u32 i = 0; i < ring::kWords; ++i) {
    if (warp == 0) {
      const u32 n_read = writer_waits ? i / ring::kSlots * n_readers : 0;
      while (simt::read_count(&r.read[i % ring::kSlots]) < n_read) {
      }
      r.word[i % ring::kSlots][lane] = i * 100 + lane;
      ptx::sync_warp();
      if (lane == 0) {
        simt::count_up(&r.written);
      }
      continue;
    }
    while (simt::read_count(&r.written) <= i) {
    }
    ptx::sync_warp();
    sum += ptx::shfl(r.word[i % ring::kSlots][31 - lane], 31 - lane);
    ptx::sync_warp();
    if (lane == 0) {
      simt::count_up(&r.read[i % ring::kSlots]);
    }
  }
  return sum;
}

/// How many threads got another sum than the words that were handed out.
u32 wrong_sums(u64 seed, bool writer_waits) {
  constexpr u32 kThreads = 128;
  simt::memory none;
  u32 n_wrong = 0;
  const auto kernel = [&](void* shared) {
    const u32 sum = sum_through_ring(*static_cast<ring*>(shared), kThreads / 32 - 1, writer_waits);
    u32 expected = 0;
    for (u32 i = 0; i < ring::kWords; ++i) {
      expected += i * 100 + ptx::thread_index() % 32;
    }
    n_wrong += ptx::thread_index() >= 32 && sum != expected ? 1u : 0;
  };
  simt::run(none, {.n_ctas = 3, .n_threads = kThreads, .shared_bytes = sizeof(ring), .seed = seed}, kernel);
  return n_wrong;
}

TEST(schedule, ring_between_warps_holds_with_every_seed) {
  for (u64 seed = 0; seed < kSeeds; ++seed) {
    EXPECT_EQ(wrong_sums(seed, true), 0u) << seed;
  }
}

TEST(schedule, ring_whose_writer_does_not_wait_breaks) {
  u64 n_broken = 0;
  for (u64 seed = 0; seed < kSeeds; ++seed) {
    n_broken += wrong_sums(seed, false) != 0 ? 1u : 0;
  }
  EXPECT_GT(n_broken, kSeeds / 2);
}

/// Lanes that read what the next lane wrote, without saying that they wait for it.
bool neighbours_agree(u64 seed, bool syncs) {
  simt::memory none;
  bool agree = true;
  simt::run(none, {.n_threads = 32, .shared_bytes = 32 * sizeof(u32), .seed = seed}, [&](void* shared) {
    u32* words = static_cast<u32*>(shared);
    const u32 lane = ptx::thread_index();
    words[lane] = lane;
    if (syncs) {
      ptx::sync_warp();
    }
    const u32 next = (lane + 1) % 32;
    agree = words[next] == next && agree;
  });
  return agree;
}

TEST(schedule, missing_sync_of_a_warp_shows) {
  for (u64 seed = 0; seed < kSeeds; ++seed) {
    EXPECT_TRUE(neighbours_agree(seed, true));
    EXPECT_FALSE(neighbours_agree(seed, false));
  }
}

std::string order_of_events(u64 seed) {
  simt::memory none;
  std::string order;
  simt::run(none, {.n_ctas = 2, .n_threads = 64, .seed = seed}, [&](void*) {
    for (u32 i = 0; i < 4; ++i) {
      order += static_cast<char>('a' + ptx::cta_index() * 2 + ptx::thread_index() / 32);
      ptx::sync_warp();
    }
  });
  return order;
}

TEST(schedule, seed_decides_the_order) {
  std::set<std::string> orders;
  for (u64 seed = 0; seed < kSeeds; ++seed) {
    const std::string order = order_of_events(seed);
    EXPECT_EQ(order_of_events(seed), order);
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), kSeeds * 3 / 4);
}

/// The most CTAs that had started and not ended.
u32 most_under_way(u32 n_ctas, u32 resident, u64 seed) {
  constexpr u32 kThreads = 64;
  simt::memory none;
  std::vector<u32> started(n_ctas);
  std::vector<u32> ended(n_ctas);
  u32 most = 0;
  const simt::grid size{.n_ctas = n_ctas, .n_threads = kThreads, .seed = seed, .resident = resident};
  simt::run(none, size, [&](void*) {
    started[ptx::cta_index()] += 1;
    u32 under_way = 0;
    for (u32 i = 0; i < n_ctas; ++i) {
      under_way += started[i] != 0 && ended[i] != kThreads ? 1u : 0;
    }
    most = std::max(most, under_way);
    ptx::barrier();
    ended[ptx::cta_index()] += 1;
  });
  EXPECT_EQ(std::count(ended.begin(), ended.end(), kThreads), n_ctas);
  return most;
}

TEST(schedule, ctas_under_way_are_limited) {
  for (const u32 resident : {1u, 2u, 5u, 50u}) {
    constexpr u32 kCtas = 12;
    u32 most = 0;
    for (u64 seed = 0; seed < kSeeds; ++seed) {
      most = std::max(most, most_under_way(kCtas, resident, seed));
    }
    EXPECT_EQ(most, std::min(resident, kCtas));
  }
}

TEST(schedule, cta_waits_for_the_one_before) {
  constexpr u32 kCtas = 20;
  for (u64 seed = 0; seed < kSeeds; ++seed) {
    simt::memory global;
    u32 turn = 0;
    global.add(&turn, sizeof(turn), simt::access::read_write, "turn");
    std::vector<u32> order;
    simt::run(global, {.n_ctas = kCtas, .n_threads = 32, .seed = seed, .resident = 4}, [&](void*) {
      while (ptx::load_fresh(&turn) != ptx::cta_index()) {
      }
      ptx::sync_warp();
      if (ptx::thread_index() == 0) {
        order.push_back(ptx::cta_index());
        ptx::atomic_add(&turn, 1);
      }
    });
    ASSERT_EQ(order.size(), kCtas);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  }
}

}  // namespace
