// Every kind of wrong kernel is reported, never hung on and never passed.
#include <array>
#include <functional>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "counter.hpp"
#include "cuda/ptx/ptx.cuh"
#include "simt/asan.hpp"
#include "simt/run.hpp"

namespace {

using namespace tersor::cuda;

constexpr u64 kSeeds = 10;

std::string text_of(simt::memory& global, const simt::grid& size, const std::function<void(void*)>& body) {
  try {
    simt::run(global, size, body);
  } catch (const simt::kernel_fault& fault) {
    return fault.what();
  }
  return "no fault";
}

/// The kernel faults with all of `words` in the text, whatever the seed.
void expect_fault(simt::memory& global, simt::grid size, std::initializer_list<const char*> words,
                  const std::function<void(void*)>& body) {
  for (size.seed = 0; size.seed < kSeeds; ++size.seed) {
    const std::string text = text_of(global, size, body);
    for (const char* word : words) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " is not in: " << text;
    }
  }
}

void expect_fault(std::initializer_list<const char*> words, const std::function<void(void*)>& body) {
  simt::memory none;
  expect_fault(none, {.n_ctas = 2, .n_threads = 64, .shared_bytes = 64, .idle_rounds = 200}, words, body);
}

TEST(fault, lanes_in_different_calls) {
  expect_fault({"warp 1", "ballot", "shfl of 32 bits", "wait for it", "fault_test.cpp"}, [](void*) {
    if (ptx::thread_index() == 40) {
      ptx::ballot(true);
    } else {
      ptx::shfl(ptx::thread_index(), 0);
    }
  });
}

TEST(fault, lanes_in_the_same_call_at_different_places) {
  expect_fault({"any at", "while lanes"}, [](void*) {
    if (ptx::thread_index() % 2 == 0) {
      ptx::any(true);
    } else {
      ptx::any(false);
    }
  });
}

TEST(fault, lane_that_skips_a_call) {
  expect_fault({"lane", "sync_warp"}, [](void*) {
    if (ptx::thread_index() != 7) {
      ptx::sync_warp();
    }
  });
}

TEST(fault, lane_that_turns_once_more) {
  expect_fault({"reduce_add"}, [](void*) {
    for (u32 i = 0; i < 3 + ptx::thread_index() / 63; ++i) {
      ptx::reduce_add(i);
    }
  });
}

TEST(fault, barrier_that_not_all_reach) {
  expect_fault({"barrier", "end"}, [](void*) {
    if (ptx::thread_index() < 32) {
      ptx::barrier();
    }
  });
}

TEST(fault, barrier_within_a_branch_of_the_warp) {
  expect_fault({"barrier", "all at"}, [](void*) {
    if (ptx::thread_index() % 4 == 0) {
      ptx::barrier();
    } else {
      ptx::all(true);
    }
  });
}

TEST(fault, count_that_nobody_reaches) {
  expect_fault({"hangs", "read_count at", "barrier"}, [](void* shared) {
    u32* count = static_cast<u32*>(shared);
    if (ptx::thread_index() == 0) {
      *count = 0;
    }
    ptx::barrier();
    simt::count_up(count);
    while (ptx::thread_index() < 32 && simt::read_count(count) < 65) {
    }
    ptx::barrier();
  });
}

TEST(fault, warp_that_waits_in_step) {
  expect_fault({"hangs", "all at"}, [](void*) {
    while (!ptx::all(ptx::thread_index() % 32 != 5)) {
    }
  });
}

TEST(fault, cta_that_waits_for_one_not_yet_started) {
  simt::memory global;
  u32 flag = 0;
  global.add(&flag, sizeof(flag), simt::access::read_write, "flag");
  const auto kernel = [&](void*) {
    if (ptx::cta_index() == 2) {
      ptx::store(&flag, 1u);
    }
    while (ptx::load_fresh(&flag) == 0) {
    }
  };
  expect_fault(global, {.n_ctas = 3, .n_threads = 32, .resident = 2, .idle_rounds = 200}, {"hangs", "cta 1"},
               kernel);
  EXPECT_EQ(text_of(global, {.n_ctas = 3, .n_threads = 32, .resident = 3}, kernel), "no fault");
}

TEST(fault, exception_in_the_kernel) {
  expect_fault({"lane 3", "the kernel threw: a long text of the kernel's own making"}, [](void*) {
    if (ptx::thread_index() == 3) {
      throw std::runtime_error("a long text of the kernel's own making");
    }
    ptx::sync_warp();
  });
}

TEST(fault, lowest_bit_of_nothing) {
  expect_fault({"lowest_bit of zero", "fault_test.cpp"}, [](void*) { ptx::lowest_bit(0); });
}

class memory_fault : public testing::Test {
 protected:
  void expect(std::initializer_list<const char*> words, const std::function<void()>& kernel) {
    expect_fault(global_, {.n_threads = 32}, words, [&](void*) {
      if (ptx::thread_index() == 9) {
        kernel();
      }
    });
  }

  simt::memory global_;
  alignas(16) std::array<u32, 8> input_{};
  u32* output_ = global_.allocate_array<u32>(10, "output");

  memory_fault() { global_.add(input_.data(), sizeof(input_), simt::access::read, "input"); }
};

TEST_F(memory_fault, store_beyond_the_end) {
  expect({"cta 0 warp 0 lane 9", "store of 4 bytes at 0x", "outside", "byte 40 of output, which has 40"},
         [&] { ptx::store(output_ + 10, 1u); });
}

TEST_F(memory_fault, load_across_the_end) {
  const auto* last = reinterpret_cast<const uint4*>(output_ + 8);
  expect({"load of 16 bytes", "outside", "byte 32 of output"}, [&] { ptx::load(last); });
}

TEST_F(memory_fault, load_below_the_start) {
  expect({"outside"}, [&] { ptx::load(output_ - 1); });
}

TEST_F(memory_fault, null) {
  expect({"store of 8 bytes at 0x0", "below every region"}, [&] { ptx::store<u64>(nullptr, 1); });
}

TEST_F(memory_fault, misaligned_for_each_width) {
  const auto* bytes = reinterpret_cast<const u8*>(input_.data());
  expect({"load_once of 2 bytes", "misaligned"},
         [&] { ptx::load_once(reinterpret_cast<const u16*>(bytes + 1)); });
  expect({"load of 4 bytes", "misaligned"}, [&] { ptx::load(reinterpret_cast<const u32*>(bytes + 2)); });
  expect({"load of 8 bytes", "misaligned"}, [&] { ptx::load(reinterpret_cast<const uint2*>(bytes + 4)); });
  expect({"load of 16 bytes", "misaligned"}, [&] { ptx::load(reinterpret_cast<const uint4*>(bytes + 8)); });
  expect({"load of 16 bytes", "misaligned"},
         [&] { ptx::load(reinterpret_cast<const ulonglong2*>(bytes + 8)); });
}

TEST_F(memory_fault, store_to_input) {
  expect({"may only be read", "byte 4 of input"}, [&] { ptx::store(&input_[1], 1u); });
}

TEST_F(memory_fault, read_before_write) {
  expect({"load_fresh of 4 bytes", "never written"}, [&] { ptx::load_fresh(output_ + 1); });
  expect({"atomic_add of 4 bytes", "never written"}, [&] { ptx::atomic_add(output_ + 1, 1); });
  expect({"load of 8 bytes", "never written"}, [&] {
    ptx::store(output_ + 2, 1u);
    EXPECT_EQ(ptx::load(output_ + 2), 1u);
    ptx::load(reinterpret_cast<const uint2*>(output_ + 2));
  });
}

TEST_F(memory_fault, atomic_on_memory_that_is_not_there) {
  expect({"atomic_exchange of 8 bytes", "outside"},
         [&] { ptx::atomic_exchange(reinterpret_cast<u64*>(output_ + 10), u64{1}); });
}

TEST_F(memory_fault, regions_do_not_overlap) {
  EXPECT_THROW(global_.add(&input_[1], 4, simt::access::read, "again"), std::invalid_argument);
  EXPECT_THROW(global_.add(output_ - 1, 8, simt::access::read, "before"), std::invalid_argument);
}

TEST(fault, shared_call_on_other_memory) {
  expect_fault({"shared_add", "not on a word of the shared memory"},
               [](void* shared) { ptx::shared_add(static_cast<u32*>(shared) + 16, 1); });
  expect_fault({"read_count", "not on a word of the shared memory"},
               [](void* shared) { simt::read_count(reinterpret_cast<u32*>(static_cast<u8*>(shared) + 2)); });
}

TEST(fault, run_after_a_fault_works) {
  simt::memory none;
  EXPECT_NE(text_of(none, {.n_threads = 64}, [](void*) { ptx::lowest_bit(0); }), "no fault");
  u32 n = 0;
  simt::run(none, {.n_threads = 64}, [&](void*) { n += ptx::reduce_add(1); });
  EXPECT_EQ(n, 64u * 32);
}

TEST(fault, misuse_of_the_runner) {
  simt::memory none;
  EXPECT_THROW(simt::run(none, {.n_threads = 33}, [](void*) {}), std::invalid_argument);
  EXPECT_THROW(ptx::sync_warp(), std::logic_error);
}

#ifdef TERSOR_SIMT_ASAN
TEST(fault_death, asan_sees_the_end_of_shared_memory) {
  simt::memory none;
  EXPECT_DEATH(simt::run(none, {.n_threads = 32, .shared_bytes = 20},
                         [](void* shared) { static_cast<volatile u8*>(shared)[20] = 1; }),
               "heap-buffer-overflow");
}

TEST(fault_death, asan_sees_the_stack_of_a_lane_that_waited) {
  simt::memory none;
  EXPECT_DEATH(simt::run(none, {.n_threads = 32},
                         [](void*) {
                           volatile u32 local[4] = {};
                           volatile u32* volatile at = local;
                           ptx::sync_warp();
                           at[4] = 1;
                         }),
               "stack-buffer-overflow");
}
#endif

}  // namespace
