// Batches, capacities and codebooks.
#include <algorithm>

#include <gtest/gtest.h>

#include "twin_calls.hpp"

namespace {

using namespace twin;
using tersor::codec;
using tersor::dtype;
using tersor::cuda::decode_task;
using tersor::cuda::encode_task;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

struct one_tensor {
  dtype type;
  std::array<std::uint64_t, 1> shape;
  bytes data;
  tersor::codebook book;
  std::byte* frame = nullptr;
  frame_result result = {};
};

std::vector<one_tensor> ragged(std::size_t n, bool one_type) {
  std::vector<one_tensor> all(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t n_values = i % 5 == 4 ? 0 : 1 + i * 1733 % 11000;
    all[i].type = one_type ? dtype::bf16 : kTypes[i / 3 % kTypes.size()];
    all[i].shape = {n_values};
    all[i].data = make_data(all[i].type, n_values, kKinds[i % kKinds.size()], i + 1);
    all[i].book = book_of(all[i].type, all[i].data);
  }
  return all;
}

void encode_all(device& d, codec c, std::vector<one_tensor>& all, tail_order order) {
  std::vector<encode_task> tasks;
  auto* results = d.reserve_array<frame_result>(all.size(), "results");
  for (one_tensor& t : all) {
    encode_task task{.type = t.type, .shape = t.shape, .book = t.book};
    task.src_dev = d.upload(t.data, "tensor", tasks.size() % 7);
    task.capacity = tersor::cuda::encode_bound(c, t.type, t.shape[0]);
    t.frame = d.reserve(task.capacity, "frame");
    task.frame_dev = t.frame;
    task.result_dev = results + tasks.size();
    tasks.push_back(task);
  }
  const auto ws = d.reserve_workspace(tersor::cuda::encode_workspace_size(c, order, tasks));
  const auto call = tersor::cuda::encode_batch_async(c, tasks, order, ws, nullptr);
  ASSERT_TRUE(call.has_value()) << call.error().describe();
  d.expect_ready(ws);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].result = d.download_value(results + i);
}

void decode_all(device& d, codec c, const std::vector<one_tensor>& all) {
  std::vector<decode_task> tasks;
  std::vector<std::byte*> out;
  auto* results = d.reserve_array<frame_result>(all.size(), "results");
  for (const one_tensor& t : all) {
    out.push_back(d.reserve(t.data.size(), "destination", tasks.size() % 5));
    decode_task task{.type = t.type, .n_values = t.shape[0]};
    task.frame_dev = t.frame;
    task.frame_bytes = t.result.frame_bytes;
    task.dst_dev = out.back();
    task.result_dev = results + tasks.size();
    tasks.push_back(task);
  }
  const auto ws = d.reserve_workspace(tersor::cuda::decode_workspace_size(tasks));
  const auto call = tersor::cuda::decode_batch_async(c, tasks, ws, nullptr);
  ASSERT_TRUE(call.has_value()) << call.error().describe();
  d.expect_ready(ws);
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    expect_good(d.download_value(results + i), d.download(all[i].frame, all[i].result.frame_bytes));
    EXPECT_EQ(difference(d.download(out[i], all[i].data.size()), all[i].data), "");
  }
}

TEST(batches, ragged_tensors_in_several_launches) {
  std::uint64_t seed = 40;
  for (const codec c : kCodecs) {
    for (const std::size_t n : {std::size_t{2}, std::size_t{14}, std::size_t{15}, std::size_t{31}}) {
      for (const tail_order order : {tail_order::canonical, tail_order::free}) {
        if (left_out(++seed, 3)) continue;
        SCOPED_TRACE(std::string(tersor::to_string(c)) + " " + std::to_string(n));
        device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
        std::vector<one_tensor> all = ragged(n, seed % 4 != 0);
        encode_all(d, c, all, order);
        if (HasFatalFailure()) return;
        for (const one_tensor& t : all) {
          ASSERT_EQ(t.result.code, 0);
          const bytes frame = d.download(t.frame, t.result.frame_bytes);
          expect_good(t.result, frame);
          if (order == tail_order::canonical) {
            EXPECT_EQ(difference(frame, cpu_frame(c, t.type, t.shape, t.data, t.book)), "");
          }
        }
        decode_all(d, c, all);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(batches, nothing_to_do) {
  device d;
  const auto ws =
      d.reserve_workspace(tersor::cuda::encode_workspace_size(codec::rank, tail_order::canonical, {}));
  EXPECT_TRUE(
      tersor::cuda::encode_batch_async(codec::rank, {}, tail_order::canonical, ws, nullptr).has_value());
  EXPECT_TRUE(tersor::cuda::decode_batch_async(codec::rank, {}, ws, nullptr).has_value());
  EXPECT_EQ(d.n_launches(), 0u);
}

/// More chunks than one CTA of the ordering kernel takes, and more turns than a CTA of the others has slots.
TEST(batches, many_chunks) {
  const std::array<std::uint64_t, 3> shape = {3, 27, 26000};
  const std::uint64_t n_values = shape[0] * shape[1] * shape[2];
  ASSERT_GT(n_values, 257u * 8192);
  const bytes data = make_data(dtype::f8_e5m2, n_values, kind::mixed);
  const tersor::codebook book = book_of(dtype::f8_e5m2, data);
  const bytes want = cpu_frame(codec::rank, dtype::f8_e5m2, shape, data, book);
  device d(5, 1);
  const encoded out = encode(d, codec::rank, dtype::f8_e5m2, shape, data, book);
  ASSERT_TRUE(out.call.has_value()) << out.call.error().describe();
  ASSERT_EQ(difference(out.frame, want), "");
  const decoded back = decode(d, codec::rank, dtype::f8_e5m2, n_values, want);
  ASSERT_TRUE(back.call.has_value()) << back.call.error().describe();
  expect_good(back.result, want);
  EXPECT_EQ(difference(back.data, data), "");
}

TEST(capacity, every_size_from_none_to_enough) {
  std::uint64_t seed = 0;
  for (const codec c : kCodecs) {
    for (const dtype type : {dtype::bf16, dtype::f8_e5m2}) {
      const std::array<std::uint64_t, 1> shape = {10 * 1024 + 77};
      const bytes data = make_data(type, shape[0], kind::mixed);
      const tersor::codebook book = book_of(type, data);
      const bytes want = cpu_frame(c, type, shape, data, book);
      const std::uint64_t least = want.size() - (tersor::inspect(want)->tail_words * 4 + 127) / 128 * 128;
      for (std::uint64_t capacity = least - 128; capacity <= want.size() + 128;
           capacity += 96 + 32 * (++seed % 9)) {
        for (const tail_order order : {tail_order::canonical, tail_order::free}) {
          SCOPED_TRACE(std::string(tersor::to_string(c)) + " " + std::to_string(capacity));
          device d(++seed, 2);
          const encoded out = encode(d, c, type, shape, data, book, {.order = order, .capacity = capacity});
          if (capacity < least) {
            ASSERT_FALSE(out.call.has_value());
            EXPECT_EQ(out.call.error().code, tersor::errc::destination_too_small);
            continue;
          }
          ASSERT_TRUE(out.call.has_value()) << out.call.error().describe();
          EXPECT_EQ(out.result.code, capacity < want.size() ? 2 : 0);
          EXPECT_EQ(out.result.frame_bytes, want.size());
          EXPECT_EQ(out.result.chunk, tersor::cuda::kNoChunk);
          if (order == tail_order::canonical && capacity >= want.size()) {
            EXPECT_EQ(difference(out.frame, want), "");
          }
        }
      }
    }
  }
}

TEST(codebooks, are_those_of_the_cpu) {
  std::uint64_t seed = 0;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) {
      for (const std::uint64_t n : {0u, 1u, 7u, 1023u, 1024u, 8193u, 30000u}) {
        for (const kind k : kKinds) {
          if (++seed % 3 == 0 || left_out(seed, 4)) continue;
          SCOPED_TRACE(label(c, type, n, k));
          device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
          const bytes data = make_data(type, n, k, seed);
          auto* book = reinterpret_cast<std::uint8_t*>(d.reserve(16, "codebook"));
          const auto ws = d.reserve_workspace(tersor::cuda::codebook_workspace_size());
          const auto call = tersor::cuda::make_codebook_async(c, type, d.upload(data, "tensor", seed % 9), n,
                                                              book, ws, nullptr);
          ASSERT_TRUE(call.has_value()) << call.error().describe();
          d.expect_ready(ws);
          const tersor::codebook want = stored_book(c, book_of(type, data));
          ASSERT_EQ(difference(d.download(book, 16), std::as_bytes(std::span(want.symbols))), "");
        }
      }
    }
  }
}

/// The workspace goes from call to call without being cleared again.
TEST(workspaces, serve_one_call_after_another) {
  device d(3, 2);
  const std::array<std::uint64_t, 1> shape = {9 * 1024};
  const bytes data = make_data(dtype::bf16, shape[0], kind::mixed);
  const tersor::codebook book = book_of(dtype::bf16, data);
  const bytes want = cpu_frame(codec::rank, dtype::bf16, shape, data, book);
  encode_task task{.type = dtype::bf16, .shape = shape, .book = book};
  task.src_dev = d.upload(data, "tensor");
  task.capacity = want.size();
  auto* frame = d.reserve(want.size(), "frame");
  task.frame_dev = frame;
  task.result_dev = d.reserve_array<frame_result>(1, "result");
  auto* back = d.reserve(data.size(), "destination");
  decode_task reading{
      .type = dtype::bf16, .n_values = shape[0], .frame_dev = frame, .frame_bytes = want.size()};
  reading.dst_dev = back;
  reading.result_dev = task.result_dev;
  auto* symbols = reinterpret_cast<std::uint8_t*>(d.reserve(16, "codebook"));
  const auto ws = d.reserve_workspace(
      tersor::cuda::encode_workspace_size(codec::rank, tail_order::canonical, {&task, 1}));
  for (int round = 0; round < 4; ++round) {
    const auto made = tersor::cuda::make_codebook_async(codec::rank, dtype::bf16, task.src_dev, shape[0],
                                                        symbols, ws, nullptr);
    ASSERT_TRUE(made.has_value()) << made.error().describe();
    if (round == 2) task.codebook_dev = symbols;
    const tail_order order = round % 2 == 0 ? tail_order::canonical : tail_order::free;
    const auto wrote = tersor::cuda::encode_async(codec::rank, task, order, ws, nullptr);
    ASSERT_TRUE(wrote.has_value()) << wrote.error().describe();
    expect_good(d.download_value(task.result_dev), d.download(frame, want.size()));
    if (order == tail_order::canonical) {
      EXPECT_EQ(difference(d.download(frame, want.size()), want), "");
    }
    const auto read = tersor::cuda::decode_async(codec::rank, reading, ws, nullptr);
    ASSERT_TRUE(read.has_value()) << read.error().describe();
    expect_good(d.download_value(task.result_dev), d.download(frame, want.size()));
    EXPECT_EQ(difference(d.download(back, data.size()), data), "");
    d.expect_ready(ws);
  }
}

}  // namespace
