#include "twin_calls.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace twin {

using tersor::cuda::frame_result;

encoded encode(device& d, tersor::codec c, tersor::dtype type, std::span<const std::uint64_t> shape,
               byte_view data, const tersor::codebook& book, const encode_choice& choice) {
  const std::uint64_t n_values = data.size() / tersor::value_bytes(type);
  tersor::cuda::encode_task task{.type = type, .shape = shape, .book = book};
  task.src_dev = d.upload(data, "tensor", choice.src_offset);
  if (choice.book_on_device) {
    const tersor::codebook stored = stored_book(c, book);
    task.codebook_dev =
        reinterpret_cast<const std::uint8_t*>(d.upload(std::as_bytes(std::span(stored.symbols)), "codebook"));
    task.book = {};
  }
  task.capacity = choice.capacity.value_or(tersor::cuda::encode_bound(c, type, n_values));
  EXPECT_EQ(tersor::cuda::encode_bound(c, type, n_values), tersor::encode_bound(c, type, n_values));
  // The least alignment that is promised to be enough.
  auto* frame = d.reserve(task.capacity, "frame", tersor::cuda::kFrameAlignment);
  task.frame_dev = frame;
  task.result_dev = d.reserve_array<frame_result>(1, "result");
  const auto ws = d.reserve_workspace(tersor::cuda::encode_workspace_size(c, choice.order, {&task, 1}));
  encoded out{tersor::cuda::encode_async(c, task, choice.order, ws, nullptr), {}, {}};
  if (!out.call) return out;
  out.result = d.download_value(task.result_dev);
  d.expect_ready(ws);
  if (out.result.code == 0) out.frame = d.download(frame, out.result.frame_bytes);
  return out;
}

decoded decode(device& d, tersor::codec c, tersor::dtype type, std::uint64_t n_values, byte_view frame,
               std::size_t dst_offset) {
  const std::uint64_t n_bytes = n_values * tersor::value_bytes(type);
  const std::uint64_t n_chunks = (n_values + 8191) / 8192;
  tersor::cuda::decode_task task{.type = type, .n_values = n_values};
  task.frame_dev = d.upload(frame, "frame", tersor::cuda::kFrameAlignment);
  task.frame_bytes = frame.size();
  auto* dst = d.reserve(n_bytes, "destination", dst_offset);
  task.dst_dev = dst;
  task.result_dev = d.reserve_array<frame_result>(1, "result");
  task.chunk_codes_dev = reinterpret_cast<std::uint8_t*>(d.reserve(n_chunks, "chunk codes"));
  const auto ws = d.reserve_workspace(tersor::cuda::decode_workspace_size({&task, 1}));
  decoded out{tersor::cuda::decode_async(c, task, ws, nullptr), {}, {}, {}, task.chunk_codes_dev};
  if (!out.call) return out;
  out.result = d.download_value(task.result_dev);
  d.expect_ready(ws);
  if (out.result.code == 0) {
    out.data = d.download(dst, n_bytes);
    out.chunk_codes = d.download(task.chunk_codes_dev, n_chunks);
  }
  return out;
}

void expect_good(const frame_result& result, byte_view frame) {
  const auto info = tersor::inspect(frame);
  ASSERT_TRUE(info.has_value()) << info.error().describe();
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.chunk, tersor::cuda::kNoChunk);
  EXPECT_EQ(result.frame_bytes, info->frame_bytes);
  EXPECT_EQ(result.digest, info->digest);
  EXPECT_EQ(result.overflow, tersor::cuda::kInPlace);
  EXPECT_EQ(result.reserved, 0u);
}

}  // namespace twin
