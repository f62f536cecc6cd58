// What kv-send and kv-recv share: keys, limits, transports.
#pragma once

#include <optional>
#include <string>

#include "command.hpp"
#include <tersor/transfer.hpp>

namespace tersor::cli {

struct transfer_flags {
  common_flags common;
  std::string psk_file;
  std::string tenant_file;
  std::string transport = "tcp";
  std::string tls_cert, tls_key, tls_ca;
  double timeout = 0;  ///< seconds; 0: not given
};

void add_transfer_flags(CLI::App& verb, transfer_flags& flags, const char* timeout_help);

/// The key and the tenant's salt from their files, with a warning about a key that others may read.
[[nodiscard]] result<transfer::security> security_from(const transfer_flags& flags);
/// True if each side proves to the other who it is.
[[nodiscard]] bool is_authenticated(const transfer_flags& flags);
[[nodiscard]] transfer::timeouts timeouts_from(const transfer_flags& flags);

/// A validator: empty, or why it is no HOST:PORT.
[[nodiscard]] std::string check_endpoint(const std::string& text);

}  // namespace tersor::cli
