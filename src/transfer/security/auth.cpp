#include "transfer/security/auth.hpp"

#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include <openssl/crypto.h>

#include "core/bytes.hpp"
#include "transfer/security/primitives.hpp"

namespace tersor::transfer {
namespace {

constexpr std::string_view kSalt = "tersor transfer 1";
constexpr std::string_view kProofLabel = "receiver proof";
constexpr std::string_view kSenderLabel = "messages of the sender";
constexpr std::string_view kReceiverLabel = "messages of the receiver";

// Bytes that are wiped when they are no longer needed.
struct secret_key {
  std::array<std::byte, kMacKeyBytes> bytes = {};
  secret_key() = default;
  secret_key(const secret_key&) = delete;
  secret_key& operator=(const secret_key&) = delete;
  ~secret_key() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
};

[[nodiscard]] std::span<const std::byte> text_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text));
}

[[nodiscard]] status check_psk(std::span<const std::byte> psk) {
  if (psk.size() >= kMinPskBytes) return {};
  return fail(errc::invalid_argument, "the pre-shared key has " + std::to_string(psk.size()) +
                                          " bytes; it needs at least " + std::to_string(kMinPskBytes));
}

// Every key of a session comes from here: what it is for and the handshake are both in `info`.
[[nodiscard]] status derive_key(std::span<const std::byte> psk, std::string_view label,
                                std::span<const std::byte> context, secret_key& out) {
  const auto named = text_bytes(label);
  std::vector<std::byte> info(named.begin(), named.end());
  info.push_back(std::byte{0});
  info.insert(info.end(), context.begin(), context.end());
  return hkdf_sha256(psk, text_bytes(kSalt), info, out.bytes);
}

[[nodiscard]] result<gmac> direction(std::span<const std::byte> psk, role from,
                                     std::span<const std::byte> transcript_hash) {
  secret_key key;
  TERSOR_CHECK(derive_key(psk, from == role::sender ? kSenderLabel : kReceiverLabel, transcript_hash, key));
  return gmac::create(key.bytes);
}

[[nodiscard]] std::array<std::byte, kMacNonceBytes> nonce_of(std::uint64_t sequence,
                                                             message_keys::section which) noexcept {
  std::array<std::byte, kMacNonceBytes> nonce{};
  core::store_le(nonce.data(), sequence);
  core::store_le(nonce.data() + sizeof sequence, static_cast<std::uint32_t>(which));
  return nonce;
}

}  // namespace

result<std::array<std::byte, kProofBytes>> handshake_proof(std::span<const std::byte> psk,
                                                           std::span<const std::byte> transcript) {
  TERSOR_CHECK(check_psk(psk));
  secret_key key;
  TERSOR_CHECK(derive_key(psk, kProofLabel, {}, key));
  return hmac_sha256(key.bytes, transcript);
}

bool equal_secret(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

struct message_keys::impl {
  gmac own;
  gmac peer;
  // The last sequence number sealed in each section. A second tag under one nonce would give the key away,
  // so it is refused here, whatever the caller does.
  std::array<std::optional<std::uint64_t>, 2> sealed = {};
};

message_keys::message_keys(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
message_keys::message_keys(message_keys&&) noexcept = default;
message_keys& message_keys::operator=(message_keys&&) noexcept = default;
message_keys::~message_keys() = default;

result<message_keys> message_keys::derive(std::span<const std::byte> psk,
                                          std::span<const std::byte> transcript, role own) {
  TERSOR_CHECK(check_psk(psk));
  TERSOR_TRY(const auto hash, sha256(transcript));
  const role peer = own == role::sender ? role::receiver : role::sender;
  TERSOR_TRY(gmac own_key, direction(psk, own, hash));
  TERSOR_TRY(gmac peer_key, direction(psk, peer, hash));
  return message_keys(std::make_unique<impl>(impl{.own = std::move(own_key), .peer = std::move(peer_key)}));
}

result<tag> message_keys::seal(std::uint64_t sequence, section which,
                               std::span<const std::span<const std::byte>> parts) {
  auto& last = impl_->sealed[static_cast<std::size_t>(which)];
  if (last && sequence <= *last) return fail(errc::internal, "a message number was to be used twice");
  last = sequence;
  return impl_->own.compute(nonce_of(sequence, which), parts);
}

bool message_keys::check(std::uint64_t sequence, section which,
                         std::span<const std::span<const std::byte>> parts, const tag& given) {
  const auto expected = impl_->peer.compute(nonce_of(sequence, which), parts);
  return expected && equal_secret(*expected, given);
}

}  // namespace tersor::transfer
