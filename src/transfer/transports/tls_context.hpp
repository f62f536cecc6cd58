// What OpenSSL needs for the transport "tls": certificates, and sockets without signals.
#pragma once

#include <memory>
#include <string>

#include <openssl/ssl.h>

#include <tersor/transfer.hpp>

namespace tersor::transfer {

struct free_tls {
  void operator()(::SSL* p) const noexcept { ::SSL_free(p); }
  void operator()(::BIO_METHOD* p) const noexcept { ::BIO_meth_free(p); }
};
using tls_session = std::unique_ptr<::SSL, free_tls>;
using tls_context = std::shared_ptr<::SSL_CTX>;

/// TLS 1.3 only, certificates of both ends required. Errors: `invalid_argument` (a file is not named),
/// `io_error` (OpenSSL's reason).
[[nodiscard]] result<tls_context> make_tls_context(const tls_files& files);

/// A session over a connected socket, which stays the caller's. `server` is whom a client expects to meet:
/// the name or address in the certificate; empty on the server's side.
[[nodiscard]] result<tls_session> make_tls_session(const tls_context& context, int fd,
                                                   const std::string& server);

/// `io_error`: "cannot <doing>: TLS: <reason>", of the newest error of this thread.
[[nodiscard]] tl::unexpected<error> fail_tls(std::string_view doing);

}  // namespace tersor::transfer
