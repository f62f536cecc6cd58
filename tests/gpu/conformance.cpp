// Every bit pattern, kind of data, tail length and odd size: the GPU's frames are the CPU's, byte for byte.
#include <algorithm>
#include <filesystem>
#include <set>

#include "rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;

void check_flat(rig& r, codec c, dtype type, const bytes& data, const tersor::codebook& book,
                bool book_on_device, const std::string& what) {
  const std::uint64_t shape[] = {data.size() / tersor::value_bytes(type)};
  check_tensor(r,
               {.codec = c,
                .type = type,
                .shape = shape,
                .data = data,
                .book = book,
                .book_on_device = book_on_device},
               label(c, type, shape[0], what));
}

/// The first stride keeps neighbours together (coded tiles), the second spreads the exponents (raw tiles).
void patterns(rig& r) {
  const env& e = r.environment();
  for (const dtype type : kTypes) {
    const bool wide = tersor::value_bytes(type) == 2;
    for (const std::uint64_t stride : {std::uint64_t{1}, std::uint64_t{wide ? 40503U : 101U}}) {
      const bytes data = all_patterns(type, stride, e.pick<std::uint64_t>(37, 1 << 16));
      const tersor::codebook own = cpu_book(type, data);
      for (const codec c : kCodecs) check_flat(r, c, type, data, own, false, "all patterns");
    }
  }
}

void kinds(rig& r) {
  const env& e = r.environment();
  const std::uint64_t n = e.pick<std::uint64_t>(20'000, 10'000'003);
  for (const dtype type : kTypes) {
    const tersor::codebook other = cpu_book(type, make_data(type, 50'000, kind::normal, 99));
    for (const kind k : kKinds) {
      if (e.opt.quick && (static_cast<unsigned>(k) + static_cast<unsigned>(type)) % 3 != 0) continue;
      const bytes data = make_data(type, n + 1000 * static_cast<std::uint64_t>(k), k, 7);
      const tersor::codebook own = cpu_book(type, data);
      for (const codec c : kCodecs) {
        check_flat(r, c, type, data, own, k == kind::normal, to_string(k));
        if (e.opt.quick) continue;
        const bytes part(data.begin(), data.begin() + 200'000);
        check_flat(r, c, type, part, other, true, std::string(to_string(k)) + ", book of other data");
      }
    }
  }
}

void tail_words(rig& r) {
  const env& e = r.environment();
  for (const dtype type : kTypes) {
    const tersor::codebook book = cpu_book(type, make_data(type, 50'000, kind::normal, 99));
    for (const codec c : kCodecs) {
      const bytes data = all_tail_lengths(c, type, book, e.pick<std::uint64_t>(48, 1 << 16));
      check_flat(r, c, type, data, book, false, "every tail length");
      if (e.opt.quick || type != dtype::bf16) continue;
      const std::uint64_t shape[] = {data.size() / 2};
      const auto lengths = tail_lengths(cpu_frame(e.cpu, c, type, shape, data, book));
      const std::set<std::uint32_t> seen(lengths.begin(), lengths.end());
      const std::size_t raw = c == codec::rank ? 192 : 128;
      r.log().check(seen.size() == raw + 1, "the data does not have every tail length",
                    std::to_string(seen.size()));
    }
  }
}

void sizes(rig& r) {
  const env& e = r.environment();
  std::vector<std::uint64_t> all = {0,    1,    7,     8,     9,     31,    32,    33,    255,
                                    256,  257,  1023,  1024,  1025,  3071,  3072,  8191,  8192,
                                    8193, 9217, 16383, 16384, 16385, 65535, 65536, 65537, 1021 * 1024 + 5};
  if (e.opt.quick) all = {0, 1, 7, 255, 1023, 1025, 3072, 8191, 8193, 17'000};
  for (const dtype type : kTypes) {
    const tersor::codebook book = cpu_book(type, make_data(type, 50'000, kind::normal, 99));
    for (const std::uint64_t n : all) {
      for (const codec c : kCodecs) {
        if (e.opt.quick && (n + static_cast<std::uint64_t>(type)) % 2 != static_cast<std::uint64_t>(c) % 2)
          continue;
        for (const kind k : {kind::normal, kind::uniform_bits, kind::lognormal_columns}) {
          if (e.opt.quick && k == kind::lognormal_columns) continue;
          check_flat(r, c, type, make_data(type, n, k, n + 1), book, n % 2 == 0, to_string(k));
        }
      }
    }
  }
}

void shapes(rig& r) {
  const std::vector<std::vector<std::uint64_t>> all = {{},
                                                       {0},
                                                       {3, 0, 5},
                                                       {0, 1, 2, 3, 4, 5, 6, 7, 8},
                                                       {1, 1},
                                                       {40, 30, 2},
                                                       {2, 1, 3, 1, 5, 1, 7, 4},
                                                       {2, 2, 2, 2, 2, 2, 2, 2, 9}};
  for (const auto& shape : all) {
    std::uint64_t n = 1;
    for (const std::uint64_t dim : shape) n *= dim;
    const bytes data = make_data(dtype::bf16, n, kind::normal, 3);
    for (const codec c : kCodecs) {
      check_tensor(r,
                   {.codec = c,
                    .type = dtype::bf16,
                    .shape = shape,
                    .data = data,
                    .book = cpu_book(dtype::bf16, data)},
                   label(c, dtype::bf16, n, std::to_string(shape.size()) + " dimensions"));
    }
  }
}

/// Golden frames: decoded to what the CPU decodes, and made again byte for byte.
void golden(rig& r) {
  const env& e = r.environment();
  if (e.opt.vectors.empty()) return r.log().note("golden frames: no --vectors given");
  unsigned n_frames = 0;
  for (const auto& file : std::filesystem::directory_iterator(e.opt.vectors)) {
    const std::string name = file.path().filename();
    // Matrix frames are the affair of the section `matrices`.
    if (file.path().extension() != ".tersor" || name.starts_with("packed-") || name.starts_with("tcatbe-"))
      continue;
    const bytes frame = read_file(file.path());
    const auto info = tersor::inspect(frame);
    if (!r.log().check(info.has_value(), "the CPU refuses a golden frame", file.path().string())) continue;
    if (info->codec == codec::raw || std::ranges::find(kTypes, info->type) == kTypes.end()) continue;
    const verdict v = cpu_verdict(e.single, frame);
    r.expect_data({.codec = info->codec, .type = info->type, .n_values = info->n_values, .frame = frame},
                  v.data, name);
    const encoded again = r.encode(
        {.codec = info->codec, .type = info->type, .shape = info->shape, .data = v.data, .book = info->book},
        name);
    r.log().check(again.call && again.frame == frame, "a golden frame is not made again", name);
    ++n_frames;
  }
  r.log().check(n_frames >= 40, "fewer than 40 golden frames", e.opt.vectors);
}

}  // namespace

void run_conformance(const env& e, section& s) {
  rig r(e, s);
  sizes(r);
  shapes(r);
  tail_words(r);
  patterns(r);
  kinds(r);
  golden(r);
  if (!e.opt.quick) s.check(s.values() >= 1'000'000'000, "fewer than 1e9 values", std::to_string(s.values()));
}

}  // namespace gpu_test
