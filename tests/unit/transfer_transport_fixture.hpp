// Pairs of connected channels over every transport of this machine.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "transfer/transports/channel.hpp"
#include "transfer_certificates.hpp"

namespace tersor::transfer::testing {

using std::chrono::milliseconds;

inline deadline in(milliseconds time) {
  return clock::now() + time;
}
inline deadline soon() {
  return in(milliseconds(20'000));
}

inline const_bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline status send_text(channel& to, std::string_view text) {
  const const_bytes part = bytes_of(text);
  return to.send({&part, 1}, soon());
}

struct ends {
  std::unique_ptr<listener> door;
  std::unique_ptr<channel> client, server;
};

class transport_test : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override;
  [[nodiscard]] const transport& subject() const { return *subject_; }
  [[nodiscard]] std::unique_ptr<listener> open_door(const std::string& host = "127.0.0.1") const;
  [[nodiscard]] ends make_ends(const std::string& host = "127.0.0.1") const;

 private:
  const transport* subject_ = nullptr;
};

std::vector<std::string> available_transports();

/// Open descriptors and threads of this process.
struct process_usage {
  std::size_t descriptors = 0, threads = 0;
};
process_usage count_usage();

}  // namespace tersor::transfer::testing
