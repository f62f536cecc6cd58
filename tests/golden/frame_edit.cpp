#include "frame_edit.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace golden {
namespace {

constexpr std::uint64_t kHeader = 128;

std::uint64_t align(std::uint64_t n) {
  return (n + 127) / 128 * 128;
}

std::uint64_t mix(std::uint64_t z) {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9U;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBU;
  return z ^ z >> 31;
}

}  // namespace

frame_edit::frame_edit(bytes frame) : data_(std::move(frame)) {
  const auto info = tersor::inspect(data_).value();
  const std::uint64_t tiles = (info.n_values + 1023) / 1024;
  const auto add = [this](const std::string& name, std::uint64_t size, std::uint64_t tile_bytes) {
    const std::uint64_t at =
        sections_.empty() ? kHeader : align(sections_.back().offset + sections_.back().size);
    sections_.push_back({name, at, size, tile_bytes});
  };
  if (info.codec == tersor::codec::raw) {
    add("index", 8 * info.n_chunks, 0);
    add("payload", info.decoded_bytes, 0);
    return;
  }
  add("index", 24 * info.n_chunks, 0);
  const auto planes = [&](const std::string& name, std::initializer_list<std::uint64_t> tile_bytes) {
    for (const std::uint64_t b : tile_bytes) add(name, b * tiles, b);
  };
  if (info.type == tersor::dtype::bf16) planes("rest bytes", {1024});
  if (info.type == tersor::dtype::f16) {
    planes("rest bytes", {1024});
    planes("rest fields", {256, 128});
  }
  if (info.type == tersor::dtype::f32) planes("rest bytes", {1024, 1024, 1024});
  if (info.type == tersor::dtype::f8_e4m3) planes("rest fields", {512});
  if (info.type == tersor::dtype::f8_e5m2) planes("rest fields", {256, 128});
  planes("codes", {info.codec == tersor::codec::rank ? 256U : 512U});
  add("tails", 4 * info.tail_words, 0);
}

std::uint64_t frame_edit::get(std::uint64_t at, unsigned size) const {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= static_cast<std::uint64_t>(data_.at(at + i)) << (8 * i);
  return value;
}

void frame_edit::set(std::uint64_t at, unsigned size, std::uint64_t value) {
  for (unsigned i = 0; i < size; ++i) data_.at(at + i) = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

void frame_edit::flip(std::uint64_t at, std::uint8_t mask) {
  data_.at(at) ^= static_cast<std::byte>(mask);
}

const section& frame_edit::find(const std::string& name) const {
  const auto it = std::ranges::find(sections_, name, &section::name);
  if (it == sections_.end()) std::abort();
  return *it;
}

record frame_edit::chunk(std::uint64_t i) const {
  const std::uint64_t at = this->at("index") + 24 * i;
  record r{.digest = get(at, 8), .first_word = get(at + 8, 6)};
  r.escapes = static_cast<std::uint8_t>(get(at + 14, 1));
  r.raw = static_cast<std::uint8_t>(get(at + 15, 1));
  for (unsigned t = 0; t < 8; ++t) r.words[t] = static_cast<std::uint8_t>(get(at + 16 + t, 1));
  return r;
}

void frame_edit::put_chunk(std::uint64_t i, const record& r) {
  const std::uint64_t at = this->at("index") + 24 * i;
  set(at, 8, r.digest);
  set(at + 8, 6, r.first_word);
  set(at + 14, 1, r.escapes);
  set(at + 15, 1, r.raw);
  for (unsigned t = 0; t < 8; ++t) set(at + 16 + t, 1, r.words[t]);
  fix_index();
}

std::uint64_t frame_edit::chain(std::uint64_t domain, std::uint64_t number, std::uint64_t at,
                                std::uint64_t words) const {
  std::uint64_t h = mix(domain << 56 | number);
  for (std::uint64_t i = 0; i < words; ++i) h = mix(get(at + 8 * i, 8) ^ h);
  return h;
}

void frame_edit::fix_header() {
  set(40, 8, 0);
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < kHeader / 8; ++i) sum += chain(2, i, 8 * i, 1);
  set(40, 8, sum);
}

void frame_edit::fix_index() {
  const section& index = sections_.front();
  const std::uint64_t record_bytes = sections_.back().name == "payload" ? 8 : 24;
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < index.size / record_bytes; ++i) {
    sum += chain(1, i, index.offset + i * record_bytes, record_bytes / 8);
  }
  set(32, 8, sum);
  fix_header();
}

}  // namespace golden
