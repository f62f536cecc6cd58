// One connection of a receiver: a thread that reads, and one that decodes behind it.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "transfer/session/aligned_bytes.hpp"
#include "transfer/session/counters.hpp"
#include "transfer/session/pending_requests.hpp"

namespace tersor::transfer {

class connection {
 public:
  struct shared {
    const receiver_options& options;
    pending_requests& requests;
    sink& to;
    shared_counters& counters;
  };
  connection(std::unique_ptr<channel> over, std::unique_ptr<payload_path> path, const shared& with)
      : link_(std::move(over), role::receiver, with.options.timeouts), with_(with), path_(std::move(path)) {}

  /// Serves the sender until it leaves (no error), breaks the protocol or the connection is lost.
  [[nodiscard]] status run();
  /// By any thread.
  void shutdown() noexcept;

 private:
  struct job {
    message_header header;  ///< of a part, or of the end
    part what;
    std::uint64_t index = 0;
    std::vector<std::byte> payload;  ///< of the end
  };

  [[nodiscard]] status prepare();
  [[nodiscard]] status serve();
  [[nodiscard]] status dispatch(const message_header& header);
  [[nodiscard]] status on_begin(const message_header& header);
  [[nodiscard]] status on_part(const message_header& header);
  [[nodiscard]] status on_end(const message_header& header);
  [[nodiscard]] status on_fail(const message_header& header);
  [[nodiscard]] result<job> check_part(const message_header& header);
  [[nodiscard]] std::span<std::byte> slot(std::uint32_t index) const noexcept;
  void leave_request();

  void decode_loop();
  [[nodiscard]] status work_on(const job& j);
  [[nodiscard]] status decode(const job& j);
  [[nodiscard]] status publish(const job& j);
  void report(error why);
  void enqueue(job j);

  message_link link_;
  shared with_;
  aligned_bytes memory_;
  std::unique_ptr<payload_path> path_;  // goes before the memory that it has registered
  std::uint64_t slot_bytes_ = 0;

  // Of the reading thread.
  std::shared_ptr<pending_request> request_;
  std::shared_ptr<const request_facts> facts_;  ///< null if the request was published before
  bool ending_ = false;                         ///< the sender said that it has sent everything
  std::uint32_t epoch_ = 0;
  std::vector<bool> received_;  ///< parts of this request that came or are held

  // Between the threads.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<job> jobs_;
  std::vector<bool> slot_busy_;
  bool stop_ = false;
  bool ended_ = false;  ///< the decoding thread published the request
  std::optional<error> failed_;
};

}  // namespace tersor::transfer
