// Ragged batches: empty tensors, single values and large ones, of all dtypes, in one launch.
#include <algorithm>

#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::decode_task;
using tersor::cuda::encode_task;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

struct item {
  dtype type = dtype::bf16;
  std::vector<std::uint64_t> shape;
  bytes data, expected;
  tersor::codebook book;
  std::uint64_t src_at = 0, frame_at = 0, dst_at = 0, capacity = 0;
};

/// The tensors of a batch in one arena each for sources, frames and destinations.
struct batch {
  codec c = codec::rank;
  tail_order order = tail_order::canonical;
  std::vector<item> items;
  device_memory src, frames, dst, books, results, more_results;
  std::uint64_t src_bytes = 0, frame_bytes = 0, dst_bytes = 0;
};

std::uint64_t random_size(const env& e, prng& random) {
  const std::uint64_t large = e.pick<std::uint64_t>(20'000, 300'000);
  switch (random.below(8)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return random.below(large);
    default:
      return random.below(3000);
  }
}

void plan(const env& e, batch& b, std::uint64_t n_items, prng& random) {
  for (std::uint64_t i = 0; i < n_items; ++i) {
    item it;
    it.type = kTypes[random.below(kTypes.size())];
    const std::uint64_t n = random_size(e, random);
    it.shape = n % 2 == 0 ? std::vector<std::uint64_t>{n / 2, 2} : std::vector<std::uint64_t>{n};
    it.data = make_data(it.type, n, kKinds[random.below(kKinds.size())], random.next());
    it.book = cpu_book(it.type, it.data);
    it.expected = cpu_frame(e.single, b.c, it.type, it.shape, it.data, it.book);
    it.capacity = tersor::cuda::encode_bound(b.c, it.type, n);
    it.src_at = b.src_bytes + random.below(4);
    b.src_bytes = it.src_at + it.data.size();
    it.frame_at = b.frame_bytes + 16 * random.below(8);
    b.frame_bytes = (it.frame_at + it.capacity + kGuardBytes + 127) / 128 * 128;
    it.dst_at = b.dst_bytes + 256 + random.below(16);
    b.dst_bytes = it.dst_at + it.data.size() + 256;
    b.items.push_back(std::move(it));
  }
}

void upload(const env& e, batch& b) {
  b.src.grow(b.src_bytes + 1);
  b.frames.grow(b.frame_bytes);
  b.frames.fill(0, b.frame_bytes, kPoison);
  b.dst.grow(b.dst_bytes);
  b.dst.fill(0, b.dst_bytes, kGuard);
  b.books.grow(16 * b.items.size());
  const std::uint64_t n_results = b.items.size() * sizeof(frame_result);
  b.results.grow(n_results);
  b.more_results.grow(n_results);
  e.poison(b.results, 0, n_results);
  e.poison(b.more_results, 0, n_results);
  for (std::size_t i = 0; i < b.items.size(); ++i) {
    b.src.put(b.items[i].src_at, b.items[i].data);
    b.books.put(16 * i, std::as_bytes(std::span(b.items[i].book.symbols)));
  }
}

std::vector<encode_task> encode_tasks(const batch& b) {
  std::vector<encode_task> tasks;
  for (std::size_t i = 0; i < b.items.size(); ++i) {
    const item& it = b.items[i];
    tasks.push_back({.type = it.type,
                     .shape = it.shape,
                     .src_dev = b.src.get() + it.src_at,
                     .codebook_dev = i % 2 == 0 ? nullptr : b.books.get() + 16 * i,
                     .book = i % 2 == 0 ? it.book : tersor::codebook{},
                     .frame_dev = b.frames.get() + it.frame_at,
                     .capacity = it.capacity,
                     .result_dev = b.results.as<frame_result>() + i});
  }
  return tasks;
}

std::vector<decode_task> decode_tasks(const batch& b) {
  std::vector<decode_task> tasks;
  for (std::size_t i = 0; i < b.items.size(); ++i) {
    const item& it = b.items[i];
    tasks.push_back({.type = it.type,
                     .n_values = it.data.size() / tersor::value_bytes(it.type),
                     .frame_dev = b.frames.get() + it.frame_at,
                     .frame_bytes = i % 3 == 0 ? it.expected.size() : it.capacity,
                     .dst_dev = b.dst.get() + it.dst_at,
                     .result_dev = b.more_results.as<frame_result>() + i});
  }
  return tasks;
}

void check_frames(const env& e, section& s, const batch& b, const std::string& what) {
  for (std::size_t i = 0; i < b.items.size(); ++i) {
    const item& it = b.items[i];
    const std::string where = what + ", item " + std::to_string(i);
    const frame_result r = take_result(b.results, i);
    s.check(r.code == 0 && r.frame_bytes == it.expected.size(),
            "code " + std::to_string(r.code) + ", " + std::to_string(r.frame_bytes) + " bytes", where);
    const bytes frame = b.frames.take(it.frame_at, it.expected.size());
    if (b.order == tail_order::canonical) {
      s.check(frame == it.expected, "another frame than the CPU's", where);
    } else {
      const verdict v = cpu_verdict(e.single, frame);
      s.check(v.code == tersor::errc::ok && v.data == it.data && v.digest == r.digest,
              "the CPU does not decode the free frame to the input", where);
    }
    s.check(b.frames.holds(it.frame_at + it.capacity, kGuardBytes / 2, kPoison),
            "written behind the capacity", where);
    s.add_values(it.data.size() / tersor::value_bytes(it.type));
  }
}

void check_data(section& s, const batch& b, const std::string& what) {
  const bytes found = b.dst.take(0, b.dst_bytes);
  bytes expected(b.dst_bytes, std::byte{kGuard});
  for (std::size_t i = 0; i < b.items.size(); ++i) {
    const frame_result r = take_result(b.more_results, i);
    s.check(r.code == 0, "decoding gave code " + std::to_string(r.code),
            what + ", item " + std::to_string(i));
    std::ranges::copy(b.items[i].data, expected.begin() + static_cast<std::ptrdiff_t>(b.items[i].dst_at));
  }
  s.check(found == expected, "decoded values differ, or bytes beside them were written", what);
}

}  // namespace

void run_batch(const env& e, section& s) {
  const side_stream stream;
  work_memory encoding, decoding;
  prng random(11);
  const std::vector<std::uint64_t> quick = {1, 3, 17};
  const std::size_t n_batches = e.pick<std::size_t>(quick.size(), 100);
  for (std::size_t i = 0; i < n_batches; ++i) {
    batch b;
    b.c = kCodecs[i % 2];
    b.order = i % 3 == 1 ? tail_order::free : tail_order::canonical;
    plan(e, b, e.opt.quick ? quick[i] : i + 1, random);
    upload(e, b);
    const std::string what = "batch of " + std::to_string(b.items.size());
    const auto tasks = encode_tasks(b);
    const auto back = decode_tasks(b);
    const auto work = encoding.of(tersor::cuda::encode_workspace_size(b.c, b.order, tasks));
    const auto more = decoding.of(tersor::cuda::decode_workspace_size(back));
    const auto coded = tersor::cuda::encode_batch_async(b.c, tasks, b.order, work, as_stream(stream.get()));
    const auto restored = tersor::cuda::decode_batch_async(b.c, back, more, as_stream(stream.get()));
    e.wait(stream.get(), s, what);
    if (!s.check(coded && restored, "encode: " + text_of(coded) + ", decode: " + text_of(restored), what))
      continue;
    check_frames(e, s, b, what);
    check_data(s, b, what);
  }
}

}  // namespace gpu_test
