#pragma once

#include <string>

#include <tersor/transfer.hpp>

namespace tersor::transfer::testing {

/// A CA of its own with one node; nothing in a build without OpenSSL.
class test_authority {
 public:
  test_authority();
  test_authority(const test_authority&) = delete;
  test_authority& operator=(const test_authority&) = delete;
  ~test_authority();
  [[nodiscard]] const tls_files& files() const noexcept { return files_; }
  /// A certificate of the same key that is no longer valid.
  [[nodiscard]] const std::string& expired_certificate() const noexcept { return expired_; }

 private:
  std::string folder_, expired_;
  tls_files files_;
};

/// Those of an authority that lives as long as the process.
const tls_files& test_certificates();

}  // namespace tersor::transfer::testing
