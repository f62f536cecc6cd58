// The C ABI of the CUDA room, as far as it needs no GPU: null pointers, unknown numbers, sizes, pools.
#include <array>
#include <vector>

#include <gtest/gtest.h>

#include <tersor/cuda.hpp>
#include <tersor/tersor.h>

namespace {

namespace kv = tersor::cuda::kv;

/// An address that is computed with and never used.
void* address(std::uintptr_t value) {
  return reinterpret_cast<void*>(value);
}

constexpr tersor_cuda_page_layout kLayout = {.dtype = TERSOR_BF16,
                                             .block_size = 16,
                                             .kv_heads = 8,
                                             .head_dim = 128,
                                             .n_blocks = 64,
                                             .page_stride = 16384,
                                             .token_stride = 1024,
                                             .head_stride = 128,
                                             .value_stride = 1};

TEST(cuda_c_api, required_pointers_are_required) {
  const tersor_cuda_page_list list{.ids_dev = nullptr, .n_pages = 1};
  const tersor_cuda_page_store store{};
  void* pool = address(4096);
  const tersor_cuda_page_pools pools{.layout = kLayout, .pools = &pool, .n_pools = 1};
  std::uint8_t book[16] = {};
  tersor_cuda_frame_result verdict{};
  tersor_cuda_codec_speed speed{};
  const std::vector<std::int32_t> codes = {
      tersor_cuda_device_count(nullptr),
      tersor_cuda_device_info(0, nullptr),
      tersor_cuda_encode_async(TERSOR_CODEC_RANK, nullptr, TERSOR_CUDA_TAILS_FREE, nullptr, 0, nullptr),
      tersor_cuda_encode_batch_async(TERSOR_CODEC_RANK, nullptr, 1, TERSOR_CUDA_TAILS_FREE, nullptr, 0,
                                     nullptr),
      tersor_cuda_decode_async(TERSOR_CODEC_RANK, nullptr, nullptr, 0, nullptr),
      tersor_cuda_decode_batch_async(TERSOR_CODEC_RANK, nullptr, 1, nullptr, 0, nullptr),
      tersor_cuda_make_codebook_async(TERSOR_CODEC_RANK, TERSOR_BF16, nullptr, 1, nullptr, nullptr, 0,
                                      nullptr),
      tersor_cuda_make_codebooks_async(TERSOR_CODEC_RANK, &pools, &list, nullptr, nullptr, 0, nullptr),
      tersor_cuda_make_codebooks_async(TERSOR_CODEC_RANK, nullptr, &list, book, nullptr, 0, nullptr),
      tersor_cuda_make_codebooks_async(TERSOR_CODEC_RANK, &pools, nullptr, book, nullptr, 0, nullptr),
      tersor_cuda_encode_pages_async(TERSOR_CODEC_RANK, nullptr, &list, book, &store, &verdict, 0, nullptr, 0,
                                     nullptr),
      tersor_cuda_encode_pages_async(TERSOR_CODEC_RANK, &pools, nullptr, book, &store, &verdict, 0, nullptr,
                                     0, nullptr),
      tersor_cuda_encode_pages_async(TERSOR_CODEC_RANK, &pools, &list, nullptr, &store, &verdict, 0, nullptr,
                                     0, nullptr),
      tersor_cuda_encode_pages_async(TERSOR_CODEC_RANK, &pools, &list, book, nullptr, &verdict, 0, nullptr, 0,
                                     nullptr),
      tersor_cuda_encode_pages_async(TERSOR_CODEC_RANK, &pools, &list, book, &store, nullptr, 0, nullptr, 0,
                                     nullptr),
      tersor_cuda_decode_pages_async(TERSOR_CODEC_RANK, nullptr, &list, &store, nullptr, &verdict, nullptr, 0,
                                     nullptr),
      tersor_cuda_decode_pages_async(TERSOR_CODEC_RANK, &pools, nullptr, &store, nullptr, &verdict, nullptr,
                                     0, nullptr),
      tersor_cuda_decode_pages_async(TERSOR_CODEC_RANK, &pools, &list, nullptr, nullptr, &verdict, nullptr, 0,
                                     nullptr),
      tersor_cuda_decode_pages_async(TERSOR_CODEC_RANK, &pools, &list, &store, nullptr, nullptr, nullptr, 0,
                                     nullptr),
      tersor_cuda_known_speed(TERSOR_CODEC_RANK, nullptr, &speed),
      tersor_cuda_known_speed(TERSOR_CODEC_RANK, "NVIDIA H200", nullptr),
  };
  for (std::size_t i = 0; i < codes.size(); ++i) EXPECT_EQ(codes[i], TERSOR_INVALID_ARGUMENT) << "call " << i;
  EXPECT_STREQ(tersor_last_message(), "a required pointer is null");
  EXPECT_EQ(tersor_cuda_raw_frame_bytes(nullptr), 0U);
  EXPECT_EQ(tersor_cuda_page_frame_bound(TERSOR_CODEC_RANK, nullptr, TERSOR_CUDA_SLOTS, 1), 0U);
  EXPECT_EQ(tersor_cuda_suggest_slot_bytes(nullptr, 3, 0.5), 0U);
  EXPECT_EQ(tersor_cuda_pages_workspace_size(TERSOR_CODEC_RANK, nullptr, TERSOR_CUDA_SLOTS, 1, 0), 0U);
  EXPECT_EQ(tersor_cuda_codebooks_workspace_size(nullptr), 0U);
  EXPECT_EQ(tersor_cuda_encode_workspace_size(TERSOR_CODEC_RANK, 0, nullptr, 1), 0U);
  EXPECT_EQ(tersor_cuda_decode_workspace_size(nullptr, 1), 0U);
  EXPECT_EQ(tersor_cuda_worth_it(1 << 30, 1, nullptr), 0);
}

TEST(cuda_c_api, unknown_numbers_are_refused) {
  tersor_cuda_encode_task task{};
  task.dtype = TERSOR_BF16;
  EXPECT_EQ(tersor_cuda_encode_async(3, &task, 0, nullptr, 0, nullptr), TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_cuda_encode_async(-1, &task, 0, nullptr, 0, nullptr), TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_cuda_encode_async(TERSOR_CODEC_RANK, &task, 2, nullptr, 0, nullptr),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_STREQ(tersor_last_message(), "unknown tail order");
  task.rank = 1;
  EXPECT_EQ(tersor_cuda_encode_async(TERSOR_CODEC_RANK, &task, 0, nullptr, 0, nullptr),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_STREQ(tersor_last_message(), "null shape");
  task = {};
  task.dtype = 16;
  EXPECT_EQ(tersor_cuda_encode_batch_async(TERSOR_CODEC_RANK, &task, 1, 0, nullptr, 0, nullptr),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_STREQ(tersor_last_message(), "unknown dtype number");
  EXPECT_EQ(tersor_cuda_encode_bound(3, TERSOR_BF16, 1), 0U);
  EXPECT_EQ(tersor_cuda_encode_bound(TERSOR_CODEC_RANK, 16, 1), 0U);
  EXPECT_EQ(tersor_cuda_page_frame_bound(TERSOR_CODEC_RANK, &kLayout, 2, 1), 0U);
  tersor_cuda_codec_speed speed{};
  EXPECT_EQ(tersor_cuda_known_speed(TERSOR_CODEC_RANK, "abacus", &speed), TERSOR_NOT_FOUND);
}

TEST(cuda_c_api, pools_and_sizes_are_those_of_the_cpp_api) {
  const std::array<void*, 2> layers = {address(0x100000), address(0x9000000)};
  std::array<void*, 4> pools = {};
  tersor_cuda_page_pools made{};
  ASSERT_EQ(tersor_cuda_make_pools(TERSOR_CUDA_BLOCKS_KV_HND, TERSOR_BF16, layers.data(), 2, 64, 16, 8, 128,
                                   pools.data(), pools.size(), &made),
            TERSOR_OK);
  const auto want =
      kv::make_pools(kv::pool_order::blocks_kv_hnd, tersor::dtype::bf16, layers, 64, 16, 8, 128);
  ASSERT_TRUE(want);
  ASSERT_EQ(made.n_pools, 4U);
  EXPECT_EQ(made.pools, pools.data());
  EXPECT_TRUE(std::equal(pools.begin(), pools.end(), want->pools.begin(), want->pools.end()));
  EXPECT_EQ(made.layout.dtype, TERSOR_BF16);
  EXPECT_EQ(made.layout.page_stride, want->layout.page_stride);
  EXPECT_EQ(made.layout.token_stride, want->layout.token_stride);
  EXPECT_EQ(made.layout.head_stride, want->layout.head_stride);
  EXPECT_EQ(made.layout.value_stride, 1U);
  EXPECT_EQ(tersor_cuda_raw_frame_bytes(&made.layout), kv::raw_frame_bytes(want->layout));
  EXPECT_GT(tersor_cuda_raw_frame_bytes(&made.layout), 32768U);
  EXPECT_EQ(tersor_cuda_page_frame_bound(TERSOR_CODEC_TOP16, &made.layout, TERSOR_CUDA_GATHERED, 9),
            kv::page_frame_bound(tersor::codec::top16, want->layout, kv::page_frames::gathered, 9));
  EXPECT_EQ(tersor_cuda_make_pools(TERSOR_CUDA_BLOCKS_KV_HND, TERSOR_BF16, layers.data(), 2, 64, 16, 8, 128,
                                   pools.data(), 3, &made),
            TERSOR_DESTINATION_TOO_SMALL);
  EXPECT_EQ(tersor_cuda_make_pools(5, TERSOR_BF16, layers.data(), 2, 64, 16, 8, 128, pools.data(), 4, &made),
            TERSOR_INVALID_ARGUMENT);
  const std::array<std::uint64_t, 4> sizes = {1000, 2000, 3000, 4000};
  EXPECT_EQ(tersor_cuda_suggest_slot_bytes(sizes.data(), sizes.size(), 0.5), 2048U);
}

TEST(cuda_c_api, known_speed_feeds_worth_it) {
  tersor_cuda_codec_speed speed{};
  ASSERT_EQ(tersor_cuda_known_speed(TERSOR_CODEC_TOP16, "NVIDIA H200", &speed), TERSOR_OK);
  const auto want = kv::known_speed(tersor::codec::top16, "NVIDIA H200");
  ASSERT_TRUE(want);
  EXPECT_EQ(speed.encode_gb_s, want->encode_gb_s);
  EXPECT_EQ(speed.decode_gb_s, want->decode_gb_s);
  EXPECT_EQ(speed.encode_us, want->encode_us);
  EXPECT_EQ(speed.decode_us, want->decode_us);
  EXPECT_EQ(speed.ratio, want->ratio);
  EXPECT_EQ(tersor_cuda_worth_it(256 << 20, 12.5, &speed), 1);
  EXPECT_EQ(tersor_cuda_worth_it(4096, 12.5, &speed), 0);
  EXPECT_EQ(tersor_cuda_worth_it(256 << 20, 0, &speed), 0);
}

}  // namespace
