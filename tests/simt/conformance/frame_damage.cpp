#include "frame_damage.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "codec/frame_codec.hpp"
#include "codec/header_verdict.hpp"
#include "core/bytes.hpp"

namespace twin {
namespace {

constexpr std::size_t kHeader = 128;

std::span<const std::uint8_t> octets(byte_view data) {
  return {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()};
}

std::uint64_t get(byte_view frame, std::size_t at) {
  return tersor::core::load_le<std::uint64_t>(octets(frame).data() + at);
}
void put(bytes& frame, std::size_t at, std::uint64_t value, std::size_t n_bytes = 8) {
  for (std::size_t i = 0; i < n_bytes; ++i) frame[at + i] = static_cast<std::byte>(value >> (8 * i));
}
void flip(bytes& frame, std::size_t at, simt::random& r) {
  frame[at] ^= static_cast<std::byte>(r.one_in(2) ? 1u << r.below(8) : 1 + r.below(255));
}

std::uint64_t digest_of(byte_view frame) {
  return tersor::codec_detail::header_digest_of(octets(frame).first<kHeader>());
}

void seal(bytes& frame, std::size_t index_bytes, std::size_t record_bytes) {
  put(frame, 32,
      tersor::codec_detail::index_digest_of(octets(frame).subspan(kHeader, index_bytes), record_bytes));
  put(frame, 40, digest_of(frame));
}

const tersor::codec_detail::open_frame opened(const bytes& good) {
  return tersor::codec_detail::open(octets(good), true).value();
}

std::string change_header(bytes& frame, simt::random& r) {
  const std::size_t at = 8 + r.below(kHeader - 8);
  flip(frame, at, r);
  return "header byte " + std::to_string(at);
}

std::string change_record(bytes& frame, std::size_t n_chunks, simt::random& r) {
  const std::size_t at = kHeader + 24 * r.below(n_chunks);
  switch (r.below(6)) {
    case 0:
      flip(frame, at + r.below(8), r);
      return "chunk digest";
    case 1:
      put(frame, at + 8, r.one_in(2) ? r.below(2000) : r.next(), 6);
      return "first word";
    case 2:
      flip(frame, at + 14 + r.below(2), r);
      return "flags";
    case 3: {
      // The sum stays, so that the tiles themselves have to answer.
      const std::size_t a = at + 16 + r.below(8), b = at + 16 + r.below(8);
      std::swap(frame[a], frame[b]);
      return "lengths of two tiles swapped";
    }
    case 4: {
      const std::size_t a = at + 16 + r.below(8), b = at + 16 + r.below(8);
      const auto step = static_cast<std::uint8_t>(1 + r.below(3));
      frame[a] = static_cast<std::byte>(std::to_integer<unsigned>(frame[a]) + step);
      frame[b] = static_cast<std::byte>(std::to_integer<unsigned>(frame[b]) - step);
      return "words of one tile given to another";
    }
    default:
      put(frame, at + 16 + r.below(8), r.one_in(2) ? 255 : r.below(256), 1);
      return "length of a tile";
  }
}

std::string change_bytes(bytes& frame, std::size_t from, std::size_t to, const char* what, simt::random& r) {
  if (from >= to) return change_header(frame, r);
  const std::size_t at = from + r.below(to - from);
  if (r.one_in(3)) {
    const std::size_t end = std::min(to, at + 1 + r.below(300));
    const auto fill = static_cast<std::byte>(r.one_in(2) ? 0xff : r.next());
    std::fill(frame.begin() + static_cast<std::ptrdiff_t>(at),
              frame.begin() + static_cast<std::ptrdiff_t>(end), fill);
  } else {
    flip(frame, at, r);
  }
  return std::string(what) + " from " + std::to_string(at);
}

std::string change_once(bytes& frame, const tersor::codec_detail::open_frame& open, simt::random& r) {
  const auto& layout = open.layout;
  switch (r.below(8)) {
    case 0:
      return change_header(frame, r);
    case 1:
    case 2:
      return change_record(frame, layout.n_chunks, r);
    case 3:
    case 4:
      return change_bytes(frame, layout.code_plane, layout.tails, "codes", r);
    case 5:
    case 6:
      return change_bytes(frame, layout.tails, layout.tails_end, "tails", r);
    default:
      return change_bytes(frame, kHeader, frame.size(), "anything", r);
  }
}

}  // namespace

damage damage_frame(const bytes& good, simt::random& r) {
  const auto open = opened(good);
  damage out{good, ""};
  for (std::uint64_t n = r.one_in(3) ? 1 + r.below(4) : 1; n > 0; --n)
    out.what += change_once(out.frame, open, r) + "; ";
  if (!r.one_in(16)) seal(out.frame, open.layout.index_bytes, 24);
  if (r.one_in(24)) {
    out.frame.resize(r.below(out.frame.size()));
    out.what += "cut to " + std::to_string(out.frame.size());
  }
  return out;
}

damage damage_raw_frame(const bytes& good, simt::random& r) {
  const auto open = opened(good);
  damage out{good, ""};
  out.what = r.one_in(3)   ? change_header(out.frame, r)
             : r.one_in(2) ? change_bytes(out.frame, kHeader, kHeader + open.layout.index_bytes, "index", r)
                           : change_bytes(out.frame, kHeader, good.size(), "anything", r);
  if (!r.one_in(4)) seal(out.frame, open.layout.index_bytes, 8);
  return out;
}

verdict cpu_verdict(tersor::codec c, tersor::dtype type, std::uint64_t n_values, byte_view frame) {
  if (frame.size() < kHeader) return {.code = tersor::errc::truncated};
  std::array<std::uint64_t, 16> words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = get(frame, 8 * i);
  const auto header = tersor::codec_detail::judge_header(words.data(), digest_of(frame), frame.size(),
                                                         tersor::codec_detail::has_valid_book(words.data()));
  const auto code = static_cast<tersor::errc>(header.code);
  if (header.code != 0) {
    const auto info = tersor::inspect(frame);
    EXPECT_FALSE(info.has_value());
    if (!info) {
      EXPECT_EQ(info.error().code, code);
    }
    return {.code = code};
  }
  const bool same = words[2] == n_values &&
                    std::to_integer<unsigned>(frame[10]) == static_cast<unsigned>(c) &&
                    std::to_integer<unsigned>(frame[11]) == static_cast<unsigned>(type);
  if (!same) return {.code = tersor::errc::mismatch};
  verdict out{.judged_chunks = true, .data = bytes(n_values * tersor::value_bytes(type))};
  const auto n = tersor::decode_into(cpu(), frame.first(header.frame_bytes), out.data);
  if (!n) {
    out.code = n.error().code;
    if (n.error().chunk) out.chunk = static_cast<std::uint32_t>(*n.error().chunk);
  }
  return out;
}

}  // namespace twin
