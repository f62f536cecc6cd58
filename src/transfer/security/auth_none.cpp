// A build without OpenSSL: a key is refused, never ignored.
#include "transfer/security/auth.hpp"

namespace tersor::transfer {
namespace {

[[nodiscard]] tl::unexpected<error> unavailable() {
  return fail(errc::unsupported, "this build has no OpenSSL, so it cannot use a pre-shared key");
}

}  // namespace

result<std::array<std::byte, kProofBytes>> handshake_proof(std::span<const std::byte>,
                                                           std::span<const std::byte>) {
  return unavailable();
}

bool equal_secret(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  if (a.size() != b.size()) return false;
  volatile unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = difference | static_cast<unsigned>(a[i] ^ b[i]);
  }
  return difference == 0;
}

struct message_keys::impl {};

message_keys::message_keys(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
message_keys::message_keys(message_keys&&) noexcept = default;
message_keys& message_keys::operator=(message_keys&&) noexcept = default;
message_keys::~message_keys() = default;

result<message_keys> message_keys::derive(std::span<const std::byte>, std::span<const std::byte>, role) {
  return unavailable();
}

result<tag> message_keys::seal(std::uint64_t, section, std::span<const std::span<const std::byte>>) {
  return unavailable();
}

bool message_keys::check(std::uint64_t, section, std::span<const std::span<const std::byte>>, const tag&) {
  return false;
}

}  // namespace tersor::transfer
