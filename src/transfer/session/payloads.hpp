// What stands in the payloads of the protocol's messages.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "transfer/security/auth.hpp"
#include "transfer/session/wire.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {

using nonce = std::array<std::byte, kNonceBytes>;

struct hello {
  std::uint16_t oldest_version = kProtocolVersion, newest_version = kProtocolVersion;
  nonce fresh = {};
  bool has_key = false;
  std::string transport;
};
[[nodiscard]] std::vector<std::byte> write(const hello& h);
[[nodiscard]] result<hello> read_hello(std::span<const std::byte> payload);

struct welcome {
  std::uint16_t version = kProtocolVersion;
  nonce fresh = {};
  bool has_key = false;
  std::array<std::byte, kProofBytes> proof = {};  ///< zero without a key
};
[[nodiscard]] std::vector<std::byte> write(const welcome& w);
[[nodiscard]] result<welcome> read_welcome(std::span<const std::byte> payload);

struct offer {
  std::string model, revision, layout;
  dtype type = dtype::bytes;
  std::uint32_t n_layers = 0, block_size = 0, kv_heads = 0, head_dim = 0;
  std::vector<std::uint64_t> codebooks;  ///< digests
  std::uint64_t tenant = 0;              ///< digest of the salt and this handshake
};
[[nodiscard]] offer make_offer(const geometry& g, std::uint64_t tenant);
[[nodiscard]] std::vector<std::byte> write(const offer& o);
[[nodiscard]] result<offer> read_offer(std::span<const std::byte> payload);
/// Compares what the receiver expects with what the sender says. Errors: `mismatch`, the message begins with
/// the field's name.
[[nodiscard]] status compare(const offer& expected, const offer& offered);

struct accept {
  std::uint32_t n_slots = 0;
  std::uint64_t slot_bytes = 0;
  std::uint64_t max_part_bytes = 0, max_request_bytes = 0;
  std::uint32_t max_regions = 0;
  std::vector<std::byte> slots;  ///< payload_path's description
};
[[nodiscard]] std::vector<std::byte> write(const accept& a);
[[nodiscard]] result<accept> read_accept(std::span<const std::byte> payload);

/// Names the sender's attempts at one request.
struct beginning {
  nonce token = {};
  std::uint64_t part_bytes = 0;
  transfer::manifest manifest;  ///< the request's number stands in the header
};
[[nodiscard]] std::vector<std::byte> write(const beginning& b);
[[nodiscard]] result<beginning> read_beginning(std::span<const std::byte> payload, std::uint32_t max_regions);
/// Largest payload of a begin message.
[[nodiscard]] std::uint64_t begin_bound(std::uint32_t max_regions) noexcept;

/// ready: one bit a part, set if the receiver has verified it.
[[nodiscard]] std::vector<std::byte> write_ready(const std::vector<bool>& held);
[[nodiscard]] result<std::vector<bool>> read_ready(std::span<const std::byte> payload, std::uint64_t n_parts);

/// end and published: what the request consisted of.
struct totals {
  std::uint64_t n_parts = 0;
  std::uint64_t digest = 0;  ///< of all parts, in their order
  friend bool operator==(const totals&, const totals&) = default;
};
[[nodiscard]] std::vector<std::byte> write(const totals& t);
[[nodiscard]] result<totals> read_totals(std::span<const std::byte> payload);

struct failure {
  errc code = errc::internal;
  bool may_resume = false;
  std::string message;
};
[[nodiscard]] std::vector<std::byte> write(const failure& f);
[[nodiscard]] result<failure> read_failure(std::span<const std::byte> payload);

}  // namespace tersor::transfer
