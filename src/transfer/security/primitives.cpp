#include "transfer/security/primitives.hpp"

#include <algorithm>
#include <string>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

namespace tersor::transfer {
namespace {

// The library takes lengths of authenticated data as int.
constexpr std::size_t kMaxUpdate = std::size_t{1} << 30;

struct kdf_deleter {
  void operator()(EVP_KDF* kdf) const noexcept { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* ctx) const noexcept { EVP_KDF_CTX_free(ctx); }
};

[[nodiscard]] tl::unexpected<error> fail_library(std::string doing) {
  std::array<char, 256> reason{};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  ERR_clear_error();
  return fail(errc::internal, "OpenSSL could not " + std::move(doing) + ": " + reason.data());
}

[[nodiscard]] const unsigned char* octets(std::span<const std::byte> data) noexcept {
  return reinterpret_cast<const unsigned char*>(data.data());
}
[[nodiscard]] unsigned char* octets(std::span<std::byte> data) noexcept {
  return reinterpret_cast<unsigned char*>(data.data());
}

// Parameters are declared without const, but only read.
[[nodiscard]] OSSL_PARAM octet_param(const char* name, std::span<const std::byte> data) noexcept {
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::byte*>(data.data()), data.size());
}

}  // namespace

result<std::array<std::byte, kSha256Bytes>> hmac_sha256(std::span<const std::byte> key,
                                                        std::span<const std::byte> data) {
  std::array<std::byte, kSha256Bytes> out{};
  std::size_t n_bytes = 0;
  if (EVP_Q_mac(nullptr, "HMAC", nullptr, "SHA256", nullptr, key.data(), key.size(), octets(data),
                data.size(), octets(std::span<std::byte>(out)), out.size(), &n_bytes) == nullptr ||
      n_bytes != out.size()) {
    return fail_library("compute HMAC-SHA-256");
  }
  return out;
}

result<std::array<std::byte, kSha256Bytes>> sha256(std::span<const std::byte> data) {
  std::array<std::byte, kSha256Bytes> out{};
  std::size_t n_bytes = 0;
  if (EVP_Q_digest(nullptr, "SHA256", nullptr, data.data(), data.size(), octets(std::span<std::byte>(out)),
                   &n_bytes) != 1 ||
      n_bytes != out.size()) {
    return fail_library("compute SHA-256");
  }
  return out;
}

status hkdf_sha256(std::span<const std::byte> key, std::span<const std::byte> salt,
                   std::span<const std::byte> info, std::span<std::byte> out) {
  const std::unique_ptr<EVP_KDF, kdf_deleter> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  if (!kdf) return fail_library("find HKDF");
  const std::unique_ptr<EVP_KDF_CTX, kdf_deleter> ctx(EVP_KDF_CTX_new(kdf.get()));
  if (!ctx) return fail_library("prepare HKDF");
  std::string digest = "SHA256";
  std::array<OSSL_PARAM, 5> params = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      octet_param(OSSL_KDF_PARAM_KEY, key), octet_param(OSSL_KDF_PARAM_INFO, info),
      salt.empty() ? OSSL_PARAM_construct_end() : octet_param(OSSL_KDF_PARAM_SALT, salt),
      OSSL_PARAM_construct_end()};
  if (EVP_KDF_derive(ctx.get(), octets(out), out.size(), params.data()) != 1) {
    return fail_library("compute HKDF-SHA-256");
  }
  return {};
}

void gmac::deleter::operator()(::evp_cipher_ctx_st* ctx) const noexcept {
  EVP_CIPHER_CTX_free(ctx);
}

result<gmac> gmac::create(std::span<const std::byte, kMacKeyBytes> key) {
  context_ptr ctx(EVP_CIPHER_CTX_new());
  if (!ctx) return fail(errc::out_of_memory, "no memory for a key");
  if (EVP_EncryptInit_ex(ctx.get(), EVP_aes_256_gcm(), nullptr, octets(key), nullptr) != 1) {
    return fail_library("prepare AES-256-GCM");
  }
  return gmac(std::move(ctx));
}

result<tag> gmac::compute(std::span<const std::byte, kMacNonceBytes> nonce,
                          std::span<const std::span<const std::byte>> parts) {
  if (EVP_EncryptInit_ex(ctx_.get(), nullptr, nullptr, nullptr, octets(nonce)) != 1) {
    return fail_library("begin a tag");
  }
  int ignored = 0;
  for (std::span<const std::byte> rest : parts) {
    while (!rest.empty()) {
      const auto step = rest.first(std::min(rest.size(), kMaxUpdate));
      if (EVP_EncryptUpdate(ctx_.get(), nullptr, &ignored, octets(step), static_cast<int>(step.size())) !=
          1) {
        return fail_library("compute a tag");
      }
      rest = rest.subspan(step.size());
    }
  }
  std::array<unsigned char, 16> nothing{};
  tag out{};
  if (EVP_EncryptFinal_ex(ctx_.get(), nothing.data(), &ignored) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx_.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(out.size()), out.data()) != 1) {
    return fail_library("end a tag");
  }
  return out;
}

}  // namespace tersor::transfer
