#include "transfer/transports/tls_context.hpp"

#include <array>
#include <cerrno>

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

namespace tersor::transfer {
namespace {

int fd_of(::BIO* bio) noexcept {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(::BIO_get_data(bio)));
}

bool would_block(int reason) noexcept {
  return reason == EAGAIN || reason == EWOULDBLOCK || reason == EINTR;
}

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a peer that leaves would end the process.
int write_socket(::BIO* bio, const char* data, std::size_t size, std::size_t* written) {
  ::BIO_clear_retry_flags(bio);
  const ::ssize_t n = ::send(fd_of(bio), data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && would_block(errno)) ::BIO_set_retry_write(bio);
  if (n <= 0) return 0;
  *written = static_cast<std::size_t>(n);
  return 1;
}

int read_socket(::BIO* bio, char* data, std::size_t size, std::size_t* n_read) {
  ::BIO_clear_retry_flags(bio);
  const ::ssize_t n = ::recv(fd_of(bio), data, size, MSG_DONTWAIT);
  if (n < 0 && would_block(errno)) ::BIO_set_retry_read(bio);
  if (n == 0) ::BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  if (n <= 0) return 0;
  *n_read = static_cast<std::size_t>(n);
  return 1;
}

long control_socket(::BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_EOF) return ::BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

::BIO_METHOD* socket_method() {
  static const std::unique_ptr<::BIO_METHOD, free_tls> kMethod = [] {
    std::unique_ptr<::BIO_METHOD, free_tls> m(
        ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without signals"));
    if (m == nullptr) return m;
    (void)::BIO_meth_set_write_ex(m.get(), write_socket);
    (void)::BIO_meth_set_read_ex(m.get(), read_socket);
    (void)::BIO_meth_set_ctrl(m.get(), control_socket);
    return m;
  }();
  return kMethod.get();
}

bool is_address(const std::string& host) noexcept {
  std::array<unsigned char, sizeof(::in6_addr)> bytes = {};
  return ::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

/// The chain alone would let any holder of a certificate stand in for the server.
bool expect_server(::SSL* session, const std::string& server) noexcept {
  if (is_address(server))
    return ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(session), server.c_str()) == 1;
  return ::SSL_set1_host(session, server.c_str()) == 1 &&
         ::SSL_set_tlsext_host_name(session, server.c_str()) == 1;
}

}  // namespace

tl::unexpected<error> fail_tls(std::string_view doing) {
  const unsigned long code = ::ERR_peek_last_error();
  const char* const reason = code != 0 ? ::ERR_reason_error_string(code) : nullptr;
  ::ERR_clear_error();
  return fail(errc::io_error,
              "cannot " + std::string(doing) + ": TLS: " + (reason != nullptr ? reason : "unknown error"));
}

result<tls_context> make_tls_context(const tls_files& files) {
  if (files.certificate_file.empty() || files.key_file.empty() || files.ca_file.empty())
    return fail(errc::invalid_argument, "the transport tls needs a certificate, its key and a CA");
  ::ERR_clear_error();
  const tls_context context(::SSL_CTX_new(::TLS_method()), ::SSL_CTX_free);
  if (context == nullptr) return fail_tls("start");
  ::SSL_CTX* const c = context.get();
  if (::SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1) return fail_tls("require TLS 1.3");
  if (::SSL_CTX_use_certificate_chain_file(c, files.certificate_file.c_str()) != 1)
    return fail_tls("read the certificate '" + files.certificate_file + "'");
  if (::SSL_CTX_use_PrivateKey_file(c, files.key_file.c_str(), SSL_FILETYPE_PEM) != 1)
    return fail_tls("read the key '" + files.key_file + "'");
  if (::SSL_CTX_check_private_key(c) != 1) return fail_tls("use the key '" + files.key_file + "'");
  if (::SSL_CTX_load_verify_file(c, files.ca_file.c_str()) != 1)
    return fail_tls("read the CA '" + files.ca_file + "'");
  ::SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // Sessions are not resumed, and tickets would be written while the peer writes.
  (void)::SSL_CTX_set_num_tickets(c, 0);
  (void)::SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  (void)::SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return context;
}

result<tls_session> make_tls_session(const tls_context& context, int fd, const std::string& server) {
  ::ERR_clear_error();
  tls_session session(::SSL_new(context.get()));
  ::BIO* const bio = socket_method() != nullptr ? ::BIO_new(socket_method()) : nullptr;
  if (session == nullptr || bio == nullptr) {
    ::BIO_free(bio);
    return fail_tls("start a session");
  }
  ::BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
  ::BIO_set_init(bio, 1);
  ::SSL_set_bio(session.get(), bio, bio);
  if (server.empty()) {
    ::SSL_set_accept_state(session.get());
  } else {
    ::SSL_set_connect_state(session.get());
    if (!expect_server(session.get(), server)) return fail_tls("expect the server '" + server + "'");
  }
  return session;
}

}  // namespace tersor::transfer
