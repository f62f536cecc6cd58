// The requests that a receiver has begun, across connections.
#pragma once

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "transfer/session/message_link.hpp"
#include "transfer/session/part_plan.hpp"
#include "transfer/session/payloads.hpp"

namespace tersor::transfer {

/// What was said once and stays.
struct request_facts {
  transfer::manifest manifest;
  part_plan plan;
};

/// One request. Its connection changes when the sender comes back after losing the old one.
struct pending_request {
  std::uint64_t number = 0;
  std::shared_ptr<const request_facts> facts;  ///< under `work`; null once published
  nonce token = {};
  std::uint64_t begin_digest = 0;  ///< of the message that began it

  /// Held while a part is decoded or the request is published, so that no two connections write to one place.
  std::mutex work;
  std::atomic<std::uint32_t> epoch{0};  ///< of the connection that may write
  std::vector<bool> verified;
  std::uint64_t n_verified = 0;
  totals sum;  ///< of the verified parts
  bool is_published = false;

  // Under the table's mutex.
  message_link* owner = nullptr;
  deadline expires = deadline::max();
};

class pending_requests {
 public:
  pending_requests(const receiver_options& options, sink& to) : options_(options), sink_(to) {}

  /// Starts a request or takes it up again under a newer epoch, which shuts the older connection out. A
  /// request that was published under the same token is returned as such. Errors: `already_exists` (the
  /// number is another request's), `mismatch` (stale epoch, another manifest, a codebook that was not agreed
  /// on), `out_of_memory` (too many requests), those of part_plan and sink::prepare.
  [[nodiscard]] result<std::shared_ptr<pending_request>> begin(std::uint64_t request, std::uint32_t epoch,
                                                               const_bytes payload, message_link* owner);
  /// The connection of this epoch ended: the request waits for the sender to come back.
  void detach(const std::shared_ptr<pending_request>& r, std::uint32_t epoch);
  /// The request ends without being published.
  void discard(const std::shared_ptr<pending_request>& r);
  /// Calls sink::publish, and forgets all but what a late resumption needs. The caller holds `work` and has
  /// checked that every part is verified.
  [[nodiscard]] status publish(pending_request& r);
  /// Discards what nobody came back for; returns how many.
  std::uint64_t sweep(deadline now);
  std::uint64_t discard_all();
  [[nodiscard]] bool is_known(std::uint64_t request) const;

 private:
  [[nodiscard]] status check_codebooks(const manifest& m) const;
  [[nodiscard]] result<std::shared_ptr<pending_request>> start(std::uint64_t request, std::uint32_t epoch,
                                                               beginning said, std::uint64_t digest,
                                                               message_link* owner);
  [[nodiscard]] status resume(pending_request& r, std::uint32_t epoch, const beginning& said,
                              std::uint64_t digest, message_link* owner);
  void drop(std::uint64_t request);

  const receiver_options& options_;
  sink& sink_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<pending_request>> requests_;
  std::list<std::uint64_t> published_;  ///< oldest first
};

}  // namespace tersor::transfer
