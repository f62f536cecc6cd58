// Messages of the transfer protocol: the only owner of their offsets, limits and numbers (spec/transfer.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <tersor/error.hpp>

namespace tersor::transfer {

inline constexpr std::uint32_t kMessageMagic = 0x31564B54;  // "TKV1"
inline constexpr std::size_t kHeaderBytes = 88;

enum class message_type : std::uint8_t {
  hello = 1,       ///< sender: versions, nonce
  welcome = 2,     ///< receiver: version, nonce, proof
  offer = 3,       ///< sender: geometry
  accept = 4,      ///< receiver: slots and limits
  begin = 5,       ///< sender: manifest
  ready = 6,       ///< receiver: parts it already has
  part = 7,        ///< sender: one frame
  credit = 8,      ///< receiver: a slot is free again, its part is verified
  end = 9,         ///< sender: that was all
  published = 10,  ///< receiver: the request is visible
  fail = 11,       ///< either: why this connection or request ends
  ping = 12,       ///< either: still there
};

/// Largest payloads, before and beside what the peers agree on.
inline constexpr std::uint64_t kMaxHandshakeBytes = std::uint64_t{128} << 10;
inline constexpr std::uint64_t kMaxSmallBytes = 4096;
inline constexpr std::uint64_t kMaxParts = std::uint64_t{1} << 20;  ///< of one request
inline constexpr std::size_t kMaxNameBytes = 1024;
inline constexpr std::size_t kMaxNoteBytes = std::size_t{64} << 10;
inline constexpr std::size_t kMaxDims = 8;
inline constexpr std::size_t kMaxCodebooks = 8192;
inline constexpr std::size_t kNonceBytes = 16;

struct message_header {
  message_type type = message_type::ping;
  std::uint8_t kind = 0;   ///< part_kind
  std::uint8_t codec = 0;  ///< tersor::codec
  std::uint64_t sequence = 0;
  std::uint64_t request = 0;
  std::uint32_t epoch = 0;
  std::uint32_t region = 0;
  std::uint32_t layer = 0;
  std::uint32_t slot = 0;
  std::uint64_t first_page = 0;
  std::uint64_t n_pages = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t payload_digest = 0;  ///< of a part its frame digest
  std::uint64_t aux = 0;             ///< credit: nanoseconds that decoding took
};

/// `salt` and `direction` (0 from the sender, 1 from the receiver) go into the header's digest.
struct digest_key {
  std::uint64_t salt = 0;
  std::uint64_t direction = 0;
};

using header_bytes = std::array<std::byte, kHeaderBytes>;
[[nodiscard]] header_bytes write_header(const message_header& header, const digest_key& key) noexcept;
/// Errors: `bad_magic`, `digest_mismatch`, `malformed` (unknown type).
[[nodiscard]] result<message_header> read_header(std::span<const std::byte, kHeaderBytes> bytes,
                                                 const digest_key& key);

/// Digest of a payload that is no frame.
[[nodiscard]] std::uint64_t payload_digest(std::span<const std::byte> payload,
                                           const digest_key& key) noexcept;

}  // namespace tersor::transfer
