// The three primitives behind the pre-shared key, on their own so that they can be held against published
// vectors. Only in a build with OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "transfer/security/auth.hpp"
#include <tersor/error.hpp>

struct evp_cipher_ctx_st;

namespace tersor::transfer {

inline constexpr std::size_t kMacKeyBytes = 32;
inline constexpr std::size_t kSha256Bytes = 32;
inline constexpr std::size_t kMacNonceBytes = 12;

/// HMAC-SHA-256.
[[nodiscard]] result<std::array<std::byte, kSha256Bytes>> hmac_sha256(std::span<const std::byte> key,
                                                                      std::span<const std::byte> data);

/// HKDF-SHA-256, extract and expand, into all of `out`. An empty salt stands for 32 zero bytes.
[[nodiscard]] status hkdf_sha256(std::span<const std::byte> key, std::span<const std::byte> salt,
                                 std::span<const std::byte> info, std::span<std::byte> out);

[[nodiscard]] result<std::array<std::byte, kSha256Bytes>> sha256(std::span<const std::byte> data);

/// AES-256-GMAC (GCM with nothing encrypted), the key schedule made once. For one thread at a time.
class gmac {
 public:
  [[nodiscard]] static result<gmac> create(std::span<const std::byte, kMacKeyBytes> key);
  gmac(gmac&&) noexcept = default;
  gmac& operator=(gmac&&) noexcept = default;
  ~gmac() = default;

  /// Tag of `parts` one after another.
  [[nodiscard]] result<tag> compute(std::span<const std::byte, kMacNonceBytes> nonce,
                                    std::span<const std::span<const std::byte>> parts);

 private:
  struct deleter {
    void operator()(::evp_cipher_ctx_st* ctx) const noexcept;
  };
  using context_ptr = std::unique_ptr<::evp_cipher_ctx_st, deleter>;
  explicit gmac(context_ptr ctx) noexcept : ctx_(std::move(ctx)) {}
  context_ptr ctx_;
};

}  // namespace tersor::transfer
