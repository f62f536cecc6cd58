// Global memory: types, atomics, and what shared memory holds at the start.
#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "counter.hpp"
#include "cuda/ptx/ptx.cuh"
#include "simt/run.hpp"

namespace {

using namespace tersor::cuda;

static_assert(alignof(uint2) == 8 && sizeof(uint2) == 8);
static_assert(alignof(uint4) == 16 && sizeof(uint4) == 16);
static_assert(alignof(ulonglong2) == 16 && sizeof(ulonglong2) == 16);

template <class T>
void copy_through_kernel(T (*load)(const T*)) {
  constexpr std::size_t kValues = 64;
  std::vector<T> source(kValues);
  for (std::size_t i = 0; i < kValues * sizeof(T); ++i) {
    reinterpret_cast<unsigned char*>(source.data())[i] = static_cast<unsigned char>(i * 7);
  }
  simt::memory global;
  global.add(source.data(), kValues * sizeof(T), simt::access::read, "source");
  T* target = global.allocate_array<T>(kValues, "target");
  simt::run(global, {.n_threads = kValues},
            [&](void*) { ptx::store(target + ptx::thread_index(), load(&source[ptx::thread_index()])); });
  EXPECT_EQ(std::memcmp(target, source.data(), kValues * sizeof(T)), 0);
}

TEST(global_memory, every_type_goes_through) {
  copy_through_kernel<u8>([](const u8* p) { return ptx::load(p); });
  copy_through_kernel<u16>([](const u16* p) { return ptx::load_once(p); });
  copy_through_kernel<u32>([](const u32* p) { return ptx::load_fresh(p); });
  copy_through_kernel<u64>([](const u64* p) { return ptx::load_once(p); });
  copy_through_kernel<uint2>([](const uint2* p) { return ptx::load(p); });
  copy_through_kernel<uint4>([](const uint4* p) { return ptx::load_once(p); });
  copy_through_kernel<ulonglong2>([](const ulonglong2* p) { return ptx::load_fresh(p); });
}

TEST(global_memory, atomics_lose_nothing) {
  constexpr u32 kThreads = 96;
  constexpr u32 kCtas = 5;
  constexpr u32 kAll = kThreads * kCtas;
  struct totals {
    u64 wide = u64{1} << 40;
    u64 last = 0;
    u32 sum = 0;
    u32 smallest = ~0u;
    u32 largest = 0;
    u32 slot = 0;
  };
  for (u64 seed = 0; seed < 10; ++seed) {
    totals t;
    std::array<u32, kAll> seen{};
    std::array<u32, kAll + 1> handed_on{};
    simt::memory global;
    global.add(&t, sizeof(t), simt::access::read_write, "totals");
    simt::run(global, {.n_ctas = kCtas, .n_threads = kThreads, .seed = seed}, [&](void*) {
      const u32 id = ptx::cta_index() * kThreads + ptx::thread_index();
      seen.at(ptx::atomic_add(&t.sum, 1)) += 1;
      ptx::atomic_add(&t.wide, u64{id} << 32);
      ptx::atomic_min(&t.smallest, id + 3);
      ptx::atomic_max(&t.largest, id + 3);
      ptx::fence();
      handed_on.at(ptx::atomic_exchange(&t.slot, id + 1)) += 1;
      ptx::atomic_exchange(&t.last, u64{id} + 1);
    });
    EXPECT_EQ(t.sum, kAll);
    EXPECT_EQ(t.wide, (u64{1} << 40) + (u64{kAll} * (kAll - 1) / 2 << 32));
    EXPECT_EQ(t.smallest, 3u);
    EXPECT_EQ(t.largest, kAll + 2);
    handed_on.at(t.slot) += 1;
    for (u32 i = 0; i < kAll; ++i) {
      EXPECT_EQ(seen[i], 1u);
      EXPECT_EQ(handed_on[i + 1], 1u);
    }
    EXPECT_TRUE(t.last >= 1 && t.last <= kAll);
  }
}

TEST(shared_memory, starts_as_garbage_in_every_cta) {
  constexpr u32 kWords = 5;
  simt::memory none;
  simt::run(none, {.n_ctas = 4, .n_threads = 32, .shared_bytes = kWords * 4}, [](void* shared) {
    u32* words = static_cast<u32*>(shared);
    for (u32 i = 0; i < kWords; ++i) {
      ASSERT_EQ(words[i], 0xa5a5a5a5u);
    }
    ptx::barrier();
    words[ptx::thread_index() % kWords] = 0;
  });
}

TEST(shared_memory, calls_change_words) {
  struct shared_words {
    u32 bits, some_bits, sum, count;
  };
  constexpr u32 kThreads = 64;
  simt::memory none;
  simt::run(none, {.n_threads = kThreads, .shared_bytes = sizeof(shared_words)}, [&](void* at) {
    auto& s = *static_cast<shared_words*>(at);
    const u32 i = ptx::thread_index();
    if (i == 0) {
      s = {};
    }
    ptx::barrier();
    ptx::shared_or(&s.bits, 1u << (i % 32));
    ptx::shared_or_nonzero(&s.some_bits, i % 2 == 0 ? 1u << (i % 32) : 0);
    ptx::shared_add(&s.sum, i);
    simt::count_up(&s.count);
    ptx::barrier();
    ASSERT_EQ(s.bits, ~0u);
    ASSERT_EQ(s.some_bits, 0x55555555u);
    ASSERT_EQ(s.sum, kThreads * (kThreads - 1) / 2);
    ASSERT_EQ(simt::read_count(&s.count), kThreads);
  });
}

}  // namespace
