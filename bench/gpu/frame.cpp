#include "frame.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace trial {
namespace {

u64 align128(u64 x) {
  return (x + 127) & ~u64{127};
}

template <class T>
T load(const u8* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
void store(u8* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

class bit_writer {
 public:
  void put(u32 value, unsigned width) {
    for (unsigned i = 0; i < width; ++i, ++bits_) {
      if (bits_ % 8 == 0) bytes_.push_back(0);
      bytes_.back() = static_cast<u8>(bytes_.back() | ((value >> i & 1U) << (bits_ % 8)));
    }
  }
  void align(unsigned to) {
    while (bits_ % to != 0) put(0, 1);
  }
  [[nodiscard]] std::size_t bits() const { return bits_; }
  [[nodiscard]] const std::vector<u8>& bytes() const { return bytes_; }

 private:
  std::vector<u8> bytes_;
  std::size_t bits_ = 0;
};

void put_field(u8* plane, unsigned j, unsigned width, u32 value) {
  for (unsigned b = 0; b < width; ++b) {
    unsigned at = width * j + b;
    plane[at / 8] = static_cast<u8>(plane[at / 8] | ((value >> b & 1U) << (at % 8)));
  }
}

struct coded_tile {
  std::vector<u8> tail;
  bool raw = false, escapes = false;
};

u16 in_lane_order(const u16* tile, unsigned j) {
  return tile[256 * (j / 8 % 4) + 8 * (j / 32) + j % 8];
}

coded_tile encode_tile(const geometry& g, const int rank_of[256], const u16* tile, u8* rest, u8* code) {
  const bool rank = g.codec == codec_id::rank;
  const std::vector<unsigned> widths = rank ? std::vector<unsigned>{2, 2, 2, 3} : std::vector<unsigned>{4};
  for (unsigned v = 0; v < kTileValues; ++v) {
    rest[v] = static_cast<u8>((tile[v] >> 8 & 0x80) | (tile[v] & 0x7f));
  }
  std::vector<u8> alive(kTileValues);
  for (unsigned j = 0; j < kTileValues; ++j) alive[j] = static_cast<u8>(in_lane_order(tile, j) >> 7);
  coded_tile out;
  bit_writer tail;
  int before = 0;
  for (std::size_t level = 0; level < widths.size(); ++level) {
    const int last = (1 << widths[level]) - 1;
    std::vector<u8> next;
    for (std::size_t i = 0; i < alive.size(); ++i) {
      int c = std::min(rank_of[alive[i]] - before, last);
      if (level == 0) {
        put_field(code, static_cast<unsigned>(i), widths[0], static_cast<u32>(c));
      } else {
        tail.put(static_cast<u32>(c), widths[level]);
      }
      if (c == last) next.push_back(alive[i]);
    }
    before += last;
    alive = std::move(next);
  }
  tail.align(8);
  for (u8 symbol : alive) tail.put(symbol, 8);
  tail.align(32);
  out.escapes = !alive.empty();
  out.tail = tail.bytes();
  if (out.tail.size() / 4 < g.raw_words) return out;

  out = {std::vector<u8>(g.raw_words * 4, 0), true, false};
  std::memset(code, 0, g.code_bytes);
  for (unsigned j = 0; j < kTileValues; ++j) {
    u32 e = in_lane_order(tile, j) >> 7 & 0xffU;
    put_field(code, j, widths[0], e);
    put_field(out.tail.data(), j, 4, e >> widths[0]);
    if (rank) put_field(out.tail.data() + 512, j, 2, e >> 6);
  }
  return out;
}

u64 tile_hash(const u8 bytes[2048], u64 number) {
  u64 sums[2];
  for (u32 n = 0; n < 2; ++n) {
    u32 low = 0, high = 0;
    for (u32 c = 0; c < 64; ++c) {
      u64 p = 0;
      for (u32 s = 0; s < 4; ++s) {
        u32 a = load<u32>(bytes + 512 * s + 8 * c) + key(n, 2 * c) + key(n, 256 + s);
        u32 b = load<u32>(bytes + 512 * s + 8 * c + 4) + key(n, 2 * c + 1) + key(n, 256 + s);
        p += static_cast<u64>(a) * b;
      }
      low += static_cast<u32>(p);
      high += static_cast<u32>(p >> 32);
    }
    sums[n] = static_cast<u64>(high) << 32 | low;
  }
  const u64 words[2] = {sums[1], sums[0]};
  return chain(0, number, words, 2);
}

}  // namespace

geometry make_geometry(codec_id codec, u64 values) {
  geometry g;
  g.codec = codec;
  g.tiles = values / kTileValues;
  g.chunks = (g.tiles + kChunkTiles - 1) / kChunkTiles;
  g.code_bytes = codec == codec_id::rank ? 256 : 512;
  g.raw_words = codec == codec_id::rank ? 192 : 128;
  g.index = kHeaderBytes;
  g.rest = align128(g.index + kRecordBytes * g.chunks);
  g.code = align128(g.rest + kTileValues * g.tiles);
  g.tails = align128(g.code + g.code_bytes * g.tiles);
  g.tail_capacity = g.raw_words * g.tiles;
  return g;
}

void start_header(const geometry& g, const u8 codebook[16], u8* frame) {
  std::memset(frame, 0, kHeaderBytes);
  store<u64>(frame, 0x0A524F5352455489ULL);
  frame[10] = static_cast<u8>(g.codec);
  frame[11] = 1;
  frame[12] = 1;
  store<u16>(frame + 14, g.codec == codec_id::rank ? 0x3222 : 0x0004);
  store<u64>(frame + 16, g.tiles * kTileValues);
  std::memcpy(frame + 48, codebook, 16);
  store<u64>(frame + 64, g.tiles * kTileValues);
}

void finish_header(const geometry& g, u64 tail_words, u8* frame) {
  u64 index = 0, words[16];
  for (u64 c = 0; c < g.chunks; ++c) {
    std::memcpy(words, frame + g.index + kRecordBytes * c, kRecordBytes);
    index += chain(1, c, words, 3);
  }
  store<u64>(frame + 24, tail_words);
  store<u64>(frame + 32, index);
  store<u64>(frame + 40, 0);
  std::memcpy(words, frame, kHeaderBytes);
  store<u64>(frame + 40, chain(2, 0, words, 16));
}

void make_codebook(codec_id codec, const u64 counts[256], u8 codebook[16]) {
  std::vector<int> order(256);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return counts[a] > counts[b]; });
  for (int i = 0; i < 16; ++i) codebook[i] = static_cast<u8>(order[static_cast<std::size_t>(i)]);
  if (codec == codec_id::top16) codebook[15] = 0;
}

std::vector<u8> reference_encode(codec_id codec, const u8 codebook[16], const u16* values,
                                 std::size_t count) {
  const geometry g = make_geometry(codec, count);
  int rank_of[256];
  std::fill(rank_of, rank_of + 256, 256);
  for (int i = codec == codec_id::rank ? 15 : 14; i >= 0; --i) rank_of[codebook[i]] = i;
  std::vector<u8> frame(g.tails, 0);
  u64 tail_words = 0;
  for (u64 c = 0; c < g.chunks; ++c) {
    u64 place = tail_words, lens = 0, digest = 0;
    for (u64 t = 8 * c; t < std::min(8 * c + 8, g.tiles); ++t) {
      u8* rest = frame.data() + g.rest + kTileValues * t;
      u8* code = frame.data() + g.code + g.code_bytes * t;
      coded_tile tile = encode_tile(g, rank_of, values + kTileValues * t, rest, code);
      const u64 words = tile.tail.size() / 4, i = t % 8;
      digest += tile_hash(reinterpret_cast<const u8*>(values + kTileValues * t), t);
      lens |= words << (8 * i);
      place |= static_cast<u64>(tile.escapes) << (48 + i) | static_cast<u64>(tile.raw) << (56 + i);
      tail_words += words;
      frame.insert(frame.end(), tile.tail.begin(), tile.tail.end());
    }
    u8* record = frame.data() + g.index + kRecordBytes * c;
    store<u64>(record, digest);
    store<u64>(record + 8, place);
    store<u64>(record + 16, lens);
  }
  frame.resize(g.frame_bytes(tail_words), 0);
  start_header(g, codebook, frame.data());
  finish_header(g, tail_words, frame.data());
  return frame;
}

std::vector<u8> canonical_order(const geometry& g, const u8 codebook[16], const std::vector<u8>& frame) {
  std::vector<u8> out(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(g.tails));
  u64 words = 0;
  for (u64 c = 0; c < g.chunks; ++c) {
    u8* record = out.data() + g.index + kRecordBytes * c;
    const u64 place = load<u64>(record + 8), first = place & 0xffffffffffffULL;
    u64 length = 0;
    for (int i = 0; i < 8; ++i) length += record[16 + i];
    store<u64>(record + 8, (place & ~u64{0xffffffffffffULL}) | words);
    words += length;
    const auto from = frame.begin() + static_cast<std::ptrdiff_t>(g.tails + 4 * first);
    out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(4 * length));
  }
  out.resize(g.frame_bytes(words), 0);
  start_header(g, codebook, out.data());
  finish_header(g, words, out.data());
  return out;
}

}  // namespace trial
