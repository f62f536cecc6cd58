#include "transfer/session/wire.hpp"

#include <cstring>

#include "codec/digest.hpp"
#include "core/bytes.hpp"

namespace tersor::transfer {
namespace {

using codec_detail::chain_next;
using codec_detail::chain_start;
using codec_detail::digest_domain;
using core::load_le;
using core::store_le;

constexpr std::size_t kDigestAt = kHeaderBytes - 8;

std::uint64_t header_digest(std::span<const std::byte, kHeaderBytes> bytes, const digest_key& key) noexcept {
  std::uint64_t hash = chain_next(chain_start(digest_domain::message_header, key.direction), key.salt);
  for (std::size_t at = 0; at < kDigestAt; at += 8)
    hash = chain_next(hash, load_le<std::uint64_t>(&bytes[at]));
  return hash;
}

}  // namespace

header_bytes write_header(const message_header& header, const digest_key& key) noexcept {
  header_bytes bytes = {};
  store_le(&bytes[0], kMessageMagic);
  bytes[4] = static_cast<std::byte>(header.type);
  bytes[5] = static_cast<std::byte>(header.kind);
  bytes[6] = static_cast<std::byte>(header.codec);
  store_le(&bytes[8], header.sequence);
  store_le(&bytes[16], header.request);
  store_le(&bytes[24], header.epoch);
  store_le(&bytes[28], header.region);
  store_le(&bytes[32], header.layer);
  store_le(&bytes[36], header.slot);
  store_le(&bytes[40], header.first_page);
  store_le(&bytes[48], header.n_pages);
  store_le(&bytes[56], header.payload_bytes);
  store_le(&bytes[64], header.payload_digest);
  store_le(&bytes[72], header.aux);
  store_le(&bytes[kDigestAt], header_digest(bytes, key));
  return bytes;
}

result<message_header> read_header(std::span<const std::byte, kHeaderBytes> bytes, const digest_key& key) {
  if (load_le<std::uint32_t>(&bytes[0]) != kMessageMagic)
    return fail(errc::bad_magic, "not a transfer message");
  if (load_le<std::uint64_t>(&bytes[kDigestAt]) != header_digest(bytes, key)) {
    return fail(errc::digest_mismatch, "the digest of a message's header differs");
  }
  message_header header;
  const auto type = static_cast<std::uint8_t>(bytes[4]);
  if (type < static_cast<std::uint8_t>(message_type::hello) ||
      type > static_cast<std::uint8_t>(message_type::ping) || bytes[7] != std::byte{0}) {
    return fail(errc::malformed, "unknown message type " + std::to_string(type));
  }
  header.type = static_cast<message_type>(type);
  header.kind = static_cast<std::uint8_t>(bytes[5]);
  header.codec = static_cast<std::uint8_t>(bytes[6]);
  header.sequence = load_le<std::uint64_t>(&bytes[8]);
  header.request = load_le<std::uint64_t>(&bytes[16]);
  header.epoch = load_le<std::uint32_t>(&bytes[24]);
  header.region = load_le<std::uint32_t>(&bytes[28]);
  header.layer = load_le<std::uint32_t>(&bytes[32]);
  header.slot = load_le<std::uint32_t>(&bytes[36]);
  header.first_page = load_le<std::uint64_t>(&bytes[40]);
  header.n_pages = load_le<std::uint64_t>(&bytes[48]);
  header.payload_bytes = load_le<std::uint64_t>(&bytes[56]);
  header.payload_digest = load_le<std::uint64_t>(&bytes[64]);
  header.aux = load_le<std::uint64_t>(&bytes[72]);
  return header;
}

std::uint64_t payload_digest(std::span<const std::byte> payload, const digest_key& key) noexcept {
  std::uint64_t hash = chain_next(chain_start(digest_domain::message_payload, key.direction), key.salt);
  hash = chain_next(hash, payload.size());
  std::size_t at = 0;
  for (; at + 8 <= payload.size(); at += 8) hash = chain_next(hash, load_le<std::uint64_t>(&payload[at]));
  if (at < payload.size()) {
    std::array<std::byte, 8> last = {};
    memcpy(last.data(), &payload[at], payload.size() - at);
    hash = chain_next(hash, load_le<std::uint64_t>(last.data()));
  }
  return hash;
}

}  // namespace tersor::transfer
