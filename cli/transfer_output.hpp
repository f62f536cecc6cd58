// What kv-send and kv-recv say at the end: as a table, or as JSON.
#pragma once

#include <optional>
#include <string>

#include <tersor/transfer_file.hpp>

namespace tersor::cli {

struct send_summary {
  std::string source;
  std::string destination;  ///< HOST:PORT
  std::string transport;
  std::string codec;  ///< as asked for
  std::string request;
  bool authenticated = false;
  unsigned threads = 0;
  std::string backend;
  transfer::transfer_report report = {};

  /// Decoded bytes a second of the whole transfer, in 10^9.
  [[nodiscard]] double effective_gb_s() const;
  /// Bytes of messages a second while the transport was busy with them, in 10^9.
  [[nodiscard]] std::optional<double> link_gb_s() const;
  /// Share of the time in which the transport was busy; from a half on, the link is taken for the bottleneck.
  [[nodiscard]] double link_share() const;
  /// The time with the saved bytes sent too, at the link's speed, over the time without. Nothing if no part
  /// was coded, or if the link was not the bottleneck: it then says nothing about a transfer of raw bytes.
  [[nodiscard]] std::optional<double> speedup() const;
};
[[nodiscard]] std::string json_of(const send_summary& summary);
[[nodiscard]] std::string table_of(const send_summary& summary, bool verbose);

struct receive_summary {
  std::string listen;
  std::string destination;  ///< -o
  std::string transport;
  bool authenticated = false;
  transfer::received_file file = {};

  [[nodiscard]] double effective_gb_s() const;
};
/// In one line, as there may be many.
[[nodiscard]] std::string json_line_of(const receive_summary& summary);
[[nodiscard]] std::string json_of(const receive_summary& summary);
[[nodiscard]] std::string table_of(const receive_summary& summary, bool verbose);

}  // namespace tersor::cli
