// One attempt at sending a request over one connection: a thread that encodes, the caller's thread that
// sends, and a thread that reads the receiver's answers, all at the same time.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "transfer/session/aligned_bytes.hpp"
#include "transfer/session/coding_choice.hpp"
#include "transfer/session/counters.hpp"
#include "transfer/session/message_link.hpp"
#include "transfer/session/part_plan.hpp"
#include "transfer/session/payloads.hpp"

namespace tersor::transfer {

class send_run {
 public:
  struct shared {
    const sender_options& options;
    const manifest& what;
    const part_plan& plan;
    std::uint64_t part_bytes;
    /// Frame digests of the parts as they were last sent, across attempts.
    std::vector<std::optional<std::uint64_t>>& sent;
    source& from;
    message_link& link;
    payload_path* path;  ///< null: the link carries payloads
    const accept& terms;
    std::span<std::byte> frames;  ///< as many slots as `n_frames`, equally long
    std::uint32_t n_frames;
    coding_choice& choice;
    transfer_report& report;
  };
  /// How an attempt failed.
  struct outcome {
    status done;
    bool may_resume = false;
    bool may_be_published = false;
  };

  send_run(const shared& with, const nonce& token, std::uint32_t epoch)
      : with_(with), token_(token), epoch_(epoch) {}
  [[nodiscard]] outcome run();

 private:
  struct ready_part {
    std::uint64_t index = 0;
    std::uint32_t frame = 0;  ///< own slot
    encoded_part encoded;
    double encode_seconds = 0;
  };
  struct flying_part {
    bool flies = false;
    std::uint64_t index = 0;
    std::uint64_t raw_bytes = 0, sent_bytes = 0;
    codec code = codec::raw;
    double encode_seconds = 0;
  };

  [[nodiscard]] status begin();
  [[nodiscard]] status run_threads();
  void encode_loop();
  [[nodiscard]] status encode_all();
  void read_loop();
  [[nodiscard]] status read_all();
  [[nodiscard]] status on_credit(const message_header& header);
  [[nodiscard]] status on_published(std::span<const std::byte> payload);
  [[nodiscard]] status send_all();
  [[nodiscard]] status send_part(const ready_part& p);
  [[nodiscard]] result<ready_part> next_ready();
  [[nodiscard]] result<std::uint32_t> next_slot();
  [[nodiscard]] status wait_published();
  void count(const ready_part& p);
  [[nodiscard]] status skip_held();
  void stop(error why);
  void tell_and_leave(const error& why);
  void leave_untold() noexcept;
  [[nodiscard]] bool is_cancelled() const noexcept {
    return with_.options.cancel != nullptr && with_.options.cancel->load(std::memory_order_relaxed);
  }
  /// Waits for `until`, an error or the cancellation flag, and pings a receiver that would lose patience.
  template <class Condition>
  [[nodiscard]] status wait(std::unique_lock<std::mutex>& lock, deadline limit, const char* what,
                            Condition until);
  [[nodiscard]] std::span<std::byte> frame(std::uint32_t index) const noexcept {
    const std::uint64_t size = with_.frames.size() / with_.n_frames;
    return with_.frames.subspan(index * size, size);
  }

  shared with_;
  nonce token_;
  std::uint32_t epoch_;
  std::vector<bool> held_;  ///< parts that the receiver has already
  totals sum_;              ///< of all parts; sending thread

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<ready_part> ready_;
  std::vector<std::uint32_t> free_frames_;
  std::deque<std::uint32_t> free_slots_;
  std::vector<flying_part> flying_;
  std::uint32_t n_flying_ = 0;
  std::optional<clock::time_point> pace_start_;  ///< the newest credit, if others were on their way then
  std::uint64_t done_bytes_ = 0;
  bool published_ = false, all_sent_ = false, reader_done_ = false;
  bool source_failed_ = false;
  std::optional<error> failed_;
  bool may_resume_ = true, was_refused_ = false;
};

}  // namespace tersor::transfer
