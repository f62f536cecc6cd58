#include "transfer_flags.hpp"

#include <cerrno>
#include <cstring>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.hpp"

namespace tersor::cli {
namespace {

constexpr std::size_t kMaxSecretBytes = 4096;
constexpr std::size_t kMinKeyBytes = 16;

class open_file {
 public:
  explicit open_file(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

tl::unexpected<error> fail_file(errc code, std::string message, const std::string& path) {
  return tl::unexpected<error>(error{.code = code, .message = std::move(message), .file = path});
}

/// The content without the line end that editors add. A pipe is as good as a file: <(pass show key).
result<std::string> read_secret(const std::string& path, bool& others_may_read) {
  const open_file file(path);
  struct ::stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) {
    return fail_file(errno == ENOENT ? errc::not_found : errc::io_error,
                     fmt::format("cannot open: {}", std::strerror(errno)), path);
  }
  others_may_read = S_ISREG(info.st_mode) && (info.st_mode & (S_IRGRP | S_IROTH)) != 0;
  std::string text(kMaxSecretBytes + 1, '\0');
  std::size_t n_bytes = 0;
  while (n_bytes < text.size()) {
    const ::ssize_t n = ::read(file.get(), text.data() + n_bytes, text.size() - n_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_file(errc::io_error, fmt::format("cannot read: {}", std::strerror(errno)), path);
    if (n == 0) break;
    n_bytes += static_cast<std::size_t>(n);
  }
  if (n_bytes > kMaxSecretBytes) {
    return fail_file(errc::invalid_argument, fmt::format("holds more than {} bytes", kMaxSecretBytes), path);
  }
  text.resize(n_bytes);
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace

std::string check_endpoint(const std::string& text) {
  const auto parsed = transfer::parse_endpoint(text);
  return parsed ? "" : parsed.error().message;
}

void add_transfer_flags(CLI::App& verb, transfer_flags& flags, const char* timeout_help) {
  verb.add_option(
          "--psk-file", flags.psk_file,
          "pre-shared key of 16 bytes or more, the same on both sides; messages are then authenticated, "
          "not encrypted")
      ->type_name("FILE");
  verb.add_option("--tenant-file", flags.tenant_file, "salt that both sides must share; it is never sent")
      ->type_name("FILE");
  verb.add_option("--timeout", flags.timeout, timeout_help)
      ->type_name("S")
      ->check(CLI::Range(0.01, 1e6).description(""));
  verb.add_option("--transport", flags.transport, "one that 'tersor doctor' lists; default: tcp")
      ->type_name("NAME");
  verb.add_option("--tls-cert", flags.tls_cert, "own certificate, for --transport tls")->type_name("PEM");
  verb.add_option("--tls-key", flags.tls_key, "its private key")->type_name("PEM");
  verb.add_option("--tls-ca", flags.tls_ca, "who must have signed the other side's certificate")
      ->type_name("PEM");
  add_threads_flag(verb, flags.common);
  add_output_flags(verb, flags.common);
}

result<transfer::security> security_from(const transfer_flags& flags) {
  transfer::security out;
  out.tls = {.certificate_file = flags.tls_cert, .key_file = flags.tls_key, .ca_file = flags.tls_ca};
  if (flags.transport != "tls" && !(flags.tls_cert + flags.tls_key + flags.tls_ca).empty()) {
    return fail(errc::invalid_argument, "--tls-cert, --tls-key and --tls-ca need --transport tls");
  }
  bool others_may_read = false;
  if (!flags.psk_file.empty()) {
    TERSOR_TRY(const std::string key, read_secret(flags.psk_file, others_may_read));
    if (key.size() < kMinKeyBytes) {
      return fail_file(errc::invalid_argument,
                       fmt::format("the key has {} bytes; it needs at least {}, best from a random generator "
                                   "(openssl rand -hex 32)",
                                   key.size(), kMinKeyBytes),
                       flags.psk_file);
    }
    if (others_may_read && !flags.common.quiet) {
      print_warning(fmt::format("{}: other users may read this key (chmod 600 helps)", flags.psk_file));
    }
    const auto bytes = std::as_bytes(std::span(key));
    out.psk.assign(bytes.begin(), bytes.end());
  }
  if (!flags.tenant_file.empty()) {
    TERSOR_TRY(out.tenant, read_secret(flags.tenant_file, others_may_read));
    if (out.tenant.empty())
      return fail_file(errc::invalid_argument, "the tenant's salt is empty", flags.tenant_file);
  }
  return out;
}

bool is_authenticated(const transfer_flags& flags) {
  return !flags.psk_file.empty() || flags.transport == "tls";
}

transfer::timeouts timeouts_from(const transfer_flags& flags) {
  transfer::timeouts out;
  if (flags.timeout <= 0) return out;
  const std::chrono::milliseconds limit(static_cast<std::int64_t>(flags.timeout * 1000));
  out.connect = out.handshake = out.message = out.idle = limit;
  return out;
}

}  // namespace tersor::cli
