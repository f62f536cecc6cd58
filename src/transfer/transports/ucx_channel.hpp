// A byte stream over UCX active messages. Large parts travel by rendezvous, straight into the receiver's
// memory where the sizes of send and receive agree; small ones are copied. Messages are numbered, because UCX
// may deliver over several lanes.
#pragma once

#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "transfer/transports/channel.hpp"
#include "transfer/transports/ucx_api.hpp"

namespace tersor::transfer {

class ucx_channel final : public channel {
 public:
  /// `to` says how to make the end point; its error handling is filled in here.
  [[nodiscard]] static result<std::unique_ptr<ucx_channel>> open(ucx_context context, ::ucp_ep_params_t to,
                                                                 std::string peer);
  ~ucx_channel() override;

  /// Server: tells the client that it was accepted. Client: waits for that.
  void greet();
  [[nodiscard]] status wait_for_greeting(deadline until);

  [[nodiscard]] status send(std::span<const const_bytes> parts, deadline until) override;
  [[nodiscard]] status receive(std::span<std::byte> dst, deadline until) override;
  void shutdown() noexcept override;
  [[nodiscard]] std::string peer() const override { return peer_; }

 private:
  using guard = std::unique_lock<std::mutex>;

  static constexpr std::size_t kPiece = std::size_t{4} << 20;   // of a large part; what a receive may stage
  static constexpr std::size_t kWindow = std::size_t{1} << 20;  // copied bytes that the peer has not read

  enum message_id : unsigned { kData = 1, kConsumed = 2, kEnd = 3, kEndSeen = 4, kHello = 5 };

  /// A posted operation. UCX uses its memory until it is done.
  struct operation {
    std::uint64_t header = 0;
    std::vector<std::byte> copied = {};
    bool done = false;
    ::ucs_status_t outcome = UCS_OK;
  };
  /// A message that arrived: its bytes, or the description of a rendezvous.
  struct message {
    std::vector<std::byte> bytes = {};
    bool copied = false;  ///< counts against the window
    void* rendezvous = nullptr;
    std::size_t size = 0;
  };

  ucx_channel(ucx_context context, ucx_worker worker, int event_fd, std::string peer);
  [[nodiscard]] status start(::ucp_ep_params_t to);
  void run();

  template <unsigned Id>
  static ::ucs_status_t on_message(void* self, const void* header, std::size_t header_size, void* data,
                                   std::size_t size, const ::ucp_am_recv_param_t* how);
  [[nodiscard]] ::ucs_status_t take_data(std::uint64_t number, void* data, std::size_t size, bool rendezvous);
  void take_notice(unsigned id, std::uint64_t value);
  static void on_sent(void* request, ::ucs_status_t code, void* op);
  static void on_received(void* request, ::ucs_status_t code, std::size_t size, void* op);
  static void on_error(void* self, ::ucp_ep_h ep, ::ucs_status_t code);
  void settle(operation& op, ::ucs_status_ptr_t request);

  // All below with the lock held.
  void post(unsigned id, operation& op, const_bytes data, unsigned flags);
  void post_notice(unsigned id, std::uint64_t value);
  [[nodiscard]] status send_copied(guard& lock, std::list<operation>& posted, std::vector<std::byte> bytes,
                                   deadline until);
  [[nodiscard]] status send_large(guard& lock, std::list<operation>& posted, const_bytes part,
                                  deadline until);
  [[nodiscard]] status collect(guard& lock, std::list<operation>& posted, std::size_t n_left, deadline until);
  [[nodiscard]] status fetch(guard& lock, message& from, std::span<std::byte> dst, deadline until);
  [[nodiscard]] status next_message(guard& lock, bool at_start, deadline until);
  void consume(std::size_t n_bytes);
  template <class Predicate>
  [[nodiscard]] status wait(guard& lock, deadline until, Predicate done);
  [[nodiscard]] status why_not() const;
  void wake() noexcept;
  void close_endpoint() noexcept;
  void abandon(guard& lock, const operation& op);

  ucx_context context_;
  ucx_worker worker_;
  int event_fd_;
  std::string peer_;

  std::mutex mutex_;
  std::condition_variable changed_;
  ::ucp_ep_h endpoint_ = nullptr;
  ::ucs_status_ptr_t closing_ = nullptr;
  std::list<operation> notices_;
  std::map<std::uint64_t, message> inbox_;
  message current_;
  std::size_t current_offset_ = 0;
  std::size_t inbox_bytes_ = 0;
  std::uint64_t next_out_ = 0, next_in_ = 0;
  std::uint64_t copied_out_ = 0, consumed_out_ = 0;  // copied bytes sent; of these, what the peer has read
  std::uint64_t copied_in_ = 0, reported_in_ = 0;    // copied bytes read; of these, what the peer was told
  std::uint64_t end_ = kNoEnd;                       // number of messages that the peer sent in all
  bool greeted_ = false, end_seen_ = false, down_ = false, stop_ = false, asleep_ = false;
  ::ucs_status_t broken_ = UCS_OK;
  std::thread progress_;

  static constexpr std::uint64_t kNoEnd = ~std::uint64_t{0};
};

}  // namespace tersor::transfer
