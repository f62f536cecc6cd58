// The pre-shared key: keys of a session, and the tags of its messages.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include <tersor/error.hpp>

namespace tersor::transfer {

inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kProofBytes = 32;
inline constexpr std::size_t kMinPskBytes = 16;
using tag = std::array<std::byte, kTagBytes>;

enum class role : std::uint8_t { sender = 0, receiver = 1 };

/// The receiver's proof that it knows the key: HMAC-SHA-256 over the handshake so far. Errors: `unsupported`
/// (no OpenSSL), `invalid_argument` (key too short).
[[nodiscard]] result<std::array<std::byte, kProofBytes>> handshake_proof(
    std::span<const std::byte> psk, std::span<const std::byte> transcript);
/// In constant time.
[[nodiscard]] bool equal_secret(std::span<const std::byte> a, std::span<const std::byte> b) noexcept;

/// Tags of one session: AES-256-GMAC under a key of each direction, derived (HKDF-SHA-256) from the
/// pre-shared key and the handshake. A nonce is used once: it is made of the message's sequence number and
/// its section.
class message_keys {
 public:
  [[nodiscard]] static result<message_keys> derive(std::span<const std::byte> psk,
                                                   std::span<const std::byte> transcript, role own);
  message_keys(message_keys&&) noexcept;
  message_keys& operator=(message_keys&&) noexcept;
  ~message_keys();

  enum class section : std::uint32_t { header = 0, payload = 1 };
  /// Tag of `parts` one after another, as the own side sends them.
  [[nodiscard]] result<tag> seal(std::uint64_t sequence, section which,
                                 std::span<const std::span<const std::byte>> parts);
  /// True if `given` is the tag of the peer's bytes. May run beside `seal`.
  [[nodiscard]] bool check(std::uint64_t sequence, section which,
                           std::span<const std::span<const std::byte>> parts, const tag& given);

  struct impl;

 private:
  explicit message_keys(std::unique_ptr<impl> p) noexcept;
  std::unique_ptr<impl> impl_;
};

}  // namespace tersor::transfer
