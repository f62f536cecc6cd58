#include "damage.hpp"

#include <algorithm>
#include <cstring>

#include "../golden/sample_data.hpp"

namespace gpu_test {
namespace {

using golden::frame_edit;
using golden::record;

constexpr std::uint64_t kHeader = 128;

std::uint64_t any_u64(prng& random, std::uint64_t old) {
  const std::uint64_t bits = random.next();
  switch (random.below(9)) {
    case 0:
      return 0;
    case 1:
      return ~std::uint64_t{0} - bits % 3;
    case 2:
      return old + 1;
    case 3:
      return old - 1;
    case 4:
      return std::uint64_t{1} << (bits & 63);
    case 5:
      return (std::uint64_t{1} << (bits & 63)) - 1;
    case 6:
      return old ^ std::uint64_t{1} << (bits & 63);
    case 7:
      return old + (bits & 0xfff);
    default:
      return bits;
  }
}

/// Any field gets a value that is wrong in an interesting way; the shape often follows the values.
void header_field(frame_edit& f, prng& random) {
  struct field {
    std::uint64_t at;
    unsigned size;
  };
  constexpr field kFields[] = {{8, 2},  {10, 1}, {11, 1}, {12, 1}, {13, 1}, {14, 2}, {16, 8}, {24, 8},
                               {32, 8}, {48, 1}, {55, 1}, {62, 1}, {63, 1}, {64, 8}, {72, 8}, {120, 8}};
  const field& which = kFields[random.below(std::size(kFields))];
  const std::uint64_t old = f.get(which.at, which.size);
  std::uint64_t value = any_u64(random, old);
  if (which.at == 10 || which.at == 11) value = random.below(18);
  f.set(which.at, which.size, value);
  if (which.at == 16 && random.below(3) != 0) f.set(64, 8, f.get(16, 8));
  f.fix_header();
}

void record_field(frame_edit& f, prng& random) {
  const std::uint64_t chunk = random.below(f.find("index").size / 24);
  record r = f.chunk(chunk);
  const std::size_t tile = random.below(8), other = random.below(8);
  switch (random.below(8)) {
    case 0:
      r.digest ^= std::uint64_t{1} << random.below(64);
      break;
    case 1:
      r.first_word = any_u64(random, r.first_word);
      break;
    case 2:
      r.escapes = static_cast<std::uint8_t>(r.escapes ^ 1u << tile);
      break;
    case 3:
      r.raw = static_cast<std::uint8_t>(r.raw ^ 1u << tile);
      break;
    case 4:
      r.words[tile] = static_cast<std::uint8_t>(random.next());
      break;
    case 5:  // the sum stays right
      --r.words[tile];
      ++r.words[other];
      break;
    case 6:
      r.escapes = static_cast<std::uint8_t>(random.next());
      r.raw = static_cast<std::uint8_t>(random.next());
      break;
    default:
      std::swap(r.words[tile], r.words[other]);
      break;
  }
  f.put_chunk(chunk, r);
}

/// Longer or shorter tails with a header and an index that agree.
void tail_length(frame_edit& f, prng& random) {
  record r = f.chunk(0);
  const bool longer = random.below(2) == 0;
  const std::uint64_t words = f.get(24, 8);
  r.words[0] = static_cast<std::uint8_t>(longer ? r.words[0] + 1 : r.words[0] - 1);
  f.set(24, 8, longer ? words + 1 : words - 1);
  if (longer) f.resize(f.data().size() + 128);
  f.put_chunk(0, r);
}

void random_bytes(frame_edit& f, std::uint64_t at, std::uint64_t n, prng& random) {
  for (std::uint64_t i = 0; i < n; ++i) f.data()[at + i] = static_cast<std::byte>(random.next());
}

/// Part of a section gets random bytes.
void random_part(frame_edit& f, const golden::section& part, prng& random) {
  if (part.size == 0) return;
  const std::uint64_t at = random.below(part.size);
  random_bytes(f, part.offset + at, 1 + random.below(std::min<std::uint64_t>(part.size - at, 300)), random);
}

void flip_in(frame_edit& f, const golden::section& part, std::uint64_t from, std::uint64_t to, prng& random) {
  if (to > from)
    f.flip(part.offset + from + random.below(to - from), static_cast<std::uint8_t>(1u << random.below(8)));
}

/// A bit of the zero bytes behind a section.
void flip_padding(frame_edit& f, prng& random) {
  const auto& part = random.below(2) == 0 ? f.find("index") : f.find("tails");
  const std::uint64_t end = part.offset + part.size;
  const std::uint64_t next = (end + 127) / 128 * 128;
  flip_in(f, part, part.size, part.size + (next - end), random);
}

/// Codes or rests of the values that the last tile does not have.
void flip_last_tile(frame_edit& f, prng& random) {
  const auto& part = f.sections()[1 + random.below(f.sections().size() - 2)];
  if (part.tile_bytes != 0) flip_in(f, part, part.size - part.tile_bytes, part.size, random);
}

void splice(frame_edit& f, const good_frame& other, prng& random) {
  const std::uint64_t common = std::min(f.data().size(), other.frame.size());
  const std::uint64_t at = random.below(common);
  const std::uint64_t n = 1 + random.below(common - at);
  std::copy_n(other.frame.begin() + static_cast<std::ptrdiff_t>(at), n,
              f.data().begin() + static_cast<std::ptrdiff_t>(at));
  if (random.below(2) == 0) f.fix_index();
}

void swap_records(frame_edit& f, prng& random) {
  const std::uint64_t n = f.find("index").size / 24;
  const std::uint64_t a = random.below(n), b = random.below(n);
  const record first = f.chunk(a);
  f.put_chunk(a, f.chunk(b));
  f.put_chunk(b, first);
}

/// A random header that only its magic, its version and its digest speak for.
void random_header(frame_edit& f, prng& random) {
  if (random.below(2) == 0) {
    random_bytes(f, 10, kHeader - 10, random);
  } else {
    random_bytes(f, 64, 64, random);
  }
  f.fix_header();
}

}  // namespace

std::vector<good_frame> make_good_frames(const env& e) {
  using golden::pattern;
  std::vector<good_frame> all;
  const std::vector<std::uint64_t> sizes =
      e.opt.quick ? std::vector<std::uint64_t>{700, 8999}
                  : std::vector<std::uint64_t>{1, 1000, 1024, 1500, 8999, 20'000};
  for (const tersor::codec c : kCodecs) {
    for (const tersor::dtype type : kTypes) {
      for (const std::uint64_t n : sizes) {
        const std::uint64_t shape[] = {n};
        for (const pattern p : {pattern::weights, pattern::mixed, pattern::uniform, pattern::clean}) {
          const bytes data = golden::sample(type, n, p, n + 17);
          all.push_back({.codec = c,
                         .type = type,
                         .n_values = n,
                         .frame = cpu_frame(e.single, c, type, shape, data, cpu_book(type, data))});
        }
      }
    }
  }
  return all;
}

const char* damage_name(unsigned damage) noexcept {
  constexpr const char* kNames[kDamages] = {
      "bit anywhere", "header byte",  "header field", "random header",
      "all random",   "cut",          "record field", "record random",
      "codes random", "tails random", "tail bit",     "rest bit",
      "padding bit",  "last tile",    "spliced",      "records swapped or tail length"};
  return kNames[damage];
}

bytes make_damaged(const good_frame& good, const good_frame& other, unsigned damage, prng& random) {
  frame_edit f(good.frame);
  const std::uint64_t size = good.frame.size();
  switch (damage) {
    case 0:
      f.flip(random.below(size), static_cast<std::uint8_t>(1u << random.below(8)));
      break;
    case 1:
      f.flip(8 + random.below(kHeader - 8), static_cast<std::uint8_t>(1 + random.below(255)));
      if (random.below(4) != 0) f.fix_header();
      break;
    case 2:
      header_field(f, random);
      break;
    case 3:
      random_header(f, random);
      break;
    case 4:
      random_bytes(f, random.below(2) * 8, size - 8, random);
      break;
    case 5:
      f.resize(random.below(8) == 0 ? random.below(200) : size - 1 - random.below(size));
      break;
    case 6:
      record_field(f, random);
      break;
    case 7:
      random_bytes(f, kHeader + 24 * random.below(f.find("index").size / 24), 24, random);
      f.fix_index();
      break;
    case 8:
      random_part(f, f.find("codes"), random);
      break;
    case 9:
      random_part(f, f.find("tails"), random);
      break;
    case 10:
      flip_in(f, f.find("tails"), 0, f.find("tails").size, random);
      break;
    case 11:
      flip_in(f, f.sections()[1], 0, f.sections()[1].size, random);
      break;
    case 12:
      flip_padding(f, random);
      break;
    case 13:
      flip_last_tile(f, random);
      break;
    case 14:
      splice(f, other, random);
      break;
    default:
      random.below(2) == 0 ? swap_records(f, random) : tail_length(f, random);
      break;
  }
  return std::move(f.data());
}

}  // namespace gpu_test
