// Codebooks made on the GPU are the CPU's, and can be used on the same stream without waiting for them.
#include <algorithm>
#include <cstring>

#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;

struct book_memory {
  device_memory src, book, frame, result;
  work_memory counting, coding;
};

/// top16 has 15 entries; the sixteenth may be what the histogram gives or the zero that the frame holds.
bool same_book(codec c, const bytes& found, const tersor::codebook& expected) {
  const std::size_t entries = c == codec::rank ? 16 : 15;
  if (std::memcmp(found.data(), expected.symbols.data(), entries) != 0) return false;
  return c == codec::rank || found[15] == std::byte{0} || found[15] == std::byte{expected.symbols[15]};
}

void check_book(const env& e, section& s, const side_stream& stream, book_memory& m, codec c, dtype type,
                const bytes& data, std::uint64_t offset, const std::string& what) {
  const std::uint64_t shape[] = {data.size() / tersor::value_bytes(type)};
  m.src.grow(data.size() + offset);
  m.src.put(offset, data);
  m.book.grow(48);
  m.book.fill(0, 48, kGuard);
  const std::uint64_t capacity = tersor::cuda::encode_bound(c, type, shape[0]);
  m.frame.grow(capacity);
  e.poison(m.frame, 0, capacity);
  m.result.grow(sizeof(frame_result));
  const tersor::cuda::encode_task task{.type = type,
                                       .shape = shape,
                                       .src_dev = m.src.get() + offset,
                                       .codebook_dev = m.book.get() + 16,
                                       .frame_dev = m.frame.get(),
                                       .capacity = capacity,
                                       .result_dev = m.result.as<frame_result>()};
  const auto counting = m.counting.of(tersor::cuda::codebook_workspace_size());
  const auto order = tersor::cuda::tail_order::canonical;
  const auto coding = m.coding.of(tersor::cuda::encode_workspace_size(c, order, {&task, 1}));
  const auto made = tersor::cuda::make_codebook_async(c, type, m.src.get() + offset, shape[0],
                                                      m.book.get() + 16, counting, as_stream(stream.get()));
  const auto coded = tersor::cuda::encode_async(c, task, order, coding, as_stream(stream.get()));
  e.wait(stream.get(), s, what);
  if (!s.check(made && coded, "make_codebook_async: " + text_of(made) + ", encode_async: " + text_of(coded),
               what))
    return;
  s.check(m.book.holds(0, 16, kGuard) && m.book.holds(32, 16, kGuard), "written beside the codebook", what);
  const tersor::codebook expected = cpu_book(type, data);
  s.check(same_book(c, m.book.take(16, 16), expected), "another codebook than the CPU's", what);
  const frame_result result = take_result(m.result);
  if (s.check(result.code == 0 && result.frame_bytes <= capacity,
              "encoding gave code " + std::to_string(result.code), what)) {
    s.check(m.frame.take(0, result.frame_bytes) == cpu_frame(e.single, c, type, shape, data, expected),
            "another frame than the CPU's", what);
  }
  s.add_values(shape[0]);
}

}  // namespace

void run_codebook(const env& e, section& s) {
  const side_stream stream;
  book_memory m;
  std::vector<std::uint64_t> sizes = {0, 1, 7, 1025, 100'003, 3'000'000};
  if (e.opt.quick) sizes = {0, 1, 9001};
  for (const dtype type : kTypes) {
    for (const std::uint64_t n : sizes) {
      for (const kind k : kKinds) {
        if (e.opt.quick && n < 2 && k != kind::normal) continue;
        const bytes data = make_data(type, n, k, n);
        for (const codec c : kCodecs) {
          if (e.opt.quick && (static_cast<unsigned>(k) + static_cast<unsigned>(c)) % 2 == 0) continue;
          check_book(e, s, stream, m, c, type, data, n == 1025 ? 3 : 0, label(c, type, n, to_string(k)));
        }
      }
    }
  }
}

}  // namespace gpu_test
