#include "transfer/session/handshake.hpp"

#include <cerrno>
#include <cstring>

#include <sys/random.h>

#include "codec/digest.hpp"

namespace tersor::transfer {
namespace {

using codec_detail::digest_domain;

/// The hellos as they were sent: what keys, proof, salt and tenant digest are bound to.
struct transcript {
  std::vector<std::byte> bytes;
  void add(const_bytes more) { bytes.insert(bytes.end(), more.begin(), more.end()); }
};

std::uint64_t digest_of(const_bytes bytes, std::uint64_t number) noexcept {
  using namespace codec_detail;
  return chain_next(chain_start(digest_domain::handshake, number),
                    payload_digest(bytes, {.salt = number, .direction = 2}));
}

std::uint64_t tenant_digest(const std::string& tenant, const transcript& said) {
  transcript all = said;
  all.add(std::as_bytes(std::span(tenant)));
  return digest_of(all.bytes, 1);
}

status secure(message_link& link, const security& secret, const transcript& said, role own) {
  std::optional<message_keys> keys;
  if (!secret.psk.empty()) {
    TERSOR_TRY(keys, message_keys::derive(secret.psk, said.bytes, own));
  }
  link.secure(digest_of(said.bytes, 0), std::move(keys));
  return {};
}

/// The welcome without its proof, which is computed over it.
std::vector<std::byte> without_proof(welcome w) {
  w.proof = {};
  return write(w);
}

struct incoming {
  message_header header;
  std::vector<std::byte> payload;
};

/// A message of the handshake; a refusal becomes its error.
result<incoming> receive(message_link& link, message_type wanted) {
  incoming in;
  TERSOR_TRY(in.header, link.receive_header(link.message_deadline()));
  TERSOR_TRY(in.payload, link.receive_payload(in.header, kMaxHandshakeBytes));
  if (in.header.type == message_type::fail) {
    TERSOR_TRY(const failure why, read_failure(in.payload));
    return fail(why.code, "refused: " + why.message);
  }
  if (in.header.type != wanted) return fail(errc::malformed, "a message of the handshake came out of order");
  return in;
}

/// Tells the sender why, as far as it still listens.
tl::unexpected<error> refuse(message_link& link, error why) {
  const failure f{.code = why.code, .may_resume = false, .message = why.message};
  (void)link.send({.type = message_type::fail}, write(f));
  return tl::unexpected<error>(std::move(why));
}

status check_hello(const hello& h, const receiver_options& options) {
  if (h.oldest_version > kProtocolVersion || h.newest_version < kProtocolVersion) {
    return fail(errc::unsupported_version, "protocol version: the receiver speaks " +
                                               std::to_string(kProtocolVersion) + ", the sender " +
                                               std::to_string(h.oldest_version) + " to " +
                                               std::to_string(h.newest_version));
  }
  if (h.has_key == options.security.psk.empty()) {
    return fail(errc::mismatch, h.has_key ? "authentication: the sender has a key, the receiver has none"
                                          : "authentication: the receiver wants a key");
  }
  if (h.transport != options.transport) {
    return fail(errc::mismatch,
                "transport: the receiver has '" + options.transport + "', the sender '" + h.transport + "'");
  }
  return {};
}

}  // namespace

result<nonce> fresh_nonce() {
  nonce value;
  std::size_t done = 0;
  while (done < value.size()) {
    const ssize_t n = ::getrandom(&value[done], value.size() - done, 0);
    if (n > 0) done += static_cast<std::size_t>(n);
    if (n < 0 && errno != EINTR)
      return fail(errc::io_error, std::string("random numbers: ") + std::strerror(errno));
  }
  return value;
}

result<accept> shake_as_sender(message_link& link, const sender_options& options) {
  link.cap(clock::now() + options.timeouts.handshake);
  hello h{.has_key = !options.security.psk.empty(), .transport = options.transport};
  TERSOR_TRY(h.fresh, fresh_nonce());
  transcript said;
  said.add(write(h));
  TERSOR_CHECK(link.send({.type = message_type::hello}, said.bytes));

  TERSOR_TRY(const incoming answer, receive(link, message_type::welcome));
  TERSOR_TRY(const welcome w, read_welcome(answer.payload));
  if (w.version != kProtocolVersion)
    return fail(errc::unsupported_version, "the receiver chose another version");
  if (w.has_key != h.has_key) return fail(errc::mismatch, "authentication: only one side has a key");
  said.add(without_proof(w));
  if (h.has_key) {
    TERSOR_TRY(const auto proof, handshake_proof(options.security.psk, said.bytes));
    if (!equal_secret(proof, w.proof))
      return fail(errc::mismatch, "authentication: the receiver has another key");
  }
  TERSOR_CHECK(secure(link, options.security, said, role::sender));

  const offer o = make_offer(options.geometry, tenant_digest(options.security.tenant, said));
  TERSOR_CHECK(link.send({.type = message_type::offer}, write(o)));
  TERSOR_TRY(const incoming terms, receive(link, message_type::accept));
  link.lift_cap();
  return read_accept(terms.payload);
}

status shake_as_receiver(message_link& link, const receiver_options& options, const accept& terms) {
  link.cap(clock::now() + options.timeouts.handshake);
  TERSOR_TRY(const incoming greeting, receive(link, message_type::hello));
  TERSOR_TRY(const hello h, read_hello(greeting.payload));
  if (const status fits = check_hello(h, options); !fits) return refuse(link, fits.error());

  welcome w{.has_key = h.has_key};
  TERSOR_TRY(w.fresh, fresh_nonce());
  transcript said;
  said.add(greeting.payload);
  said.add(without_proof(w));
  if (h.has_key) {
    TERSOR_TRY(w.proof, handshake_proof(options.security.psk, said.bytes));
  }
  TERSOR_CHECK(link.send({.type = message_type::welcome}, write(w)));
  TERSOR_CHECK(secure(link, options.security, said, role::receiver));

  auto in = receive(link, message_type::offer);
  if (!in) return tl::unexpected<error>(std::move(in).error());
  const auto offered = read_offer(in->payload);
  if (!offered) return refuse(link, offered.error());
  const offer expected = make_offer(options.expected, tenant_digest(options.security.tenant, said));
  if (const status fits = compare(expected, *offered); !fits) return refuse(link, fits.error());
  TERSOR_CHECK(link.send({.type = message_type::accept}, write(terms)));
  link.lift_cap();
  return {};
}

}  // namespace tersor::transfer
