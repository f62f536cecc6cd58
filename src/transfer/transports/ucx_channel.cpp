#include "transfer/transports/ucx_channel.hpp"

#include <cstring>
#include <system_error>

#include <poll.h>

namespace tersor::transfer {
namespace {

constexpr std::uint64_t kMostMessages = 1'000'000;     // out of order, or not read
constexpr std::chrono::milliseconds kFarewell{2'000};  // how long a leaving end waits for the other
constexpr std::chrono::milliseconds kClosing{10'000};

}  // namespace

// ---- Life ----

ucx_channel::ucx_channel(ucx_context context, ucx_worker worker, int event_fd, std::string peer)
    : context_(std::move(context)), worker_(std::move(worker)), event_fd_(event_fd), peer_(std::move(peer)) {}

result<std::unique_ptr<ucx_channel>> ucx_channel::open(ucx_context context, ::ucp_ep_params_t to,
                                                       std::string peer) {
  TERSOR_TRY(ucx_worker worker, make_ucx_worker(context));
  TERSOR_TRY(const int event_fd, ucx_event_descriptor(worker));
  auto opened = std::unique_ptr<ucx_channel>(
      new ucx_channel(std::move(context), std::move(worker), event_fd, std::move(peer)));
  TERSOR_CHECK(opened->start(to));
  return opened;
}

status ucx_channel::start(::ucp_ep_params_t to) {
  const auto handle = [&]<unsigned Id>(std::integral_constant<unsigned, Id>) {
    ::ucp_am_handler_param_t params = {};
    params.field_mask =
        UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    params.id = Id;
    params.cb = &ucx_channel::on_message<Id>;
    params.arg = this;
    return find_ucx().worker_set_am_recv_handler(worker_.get(), &params);
  };
  for (const ::ucs_status_t code : {handle(std::integral_constant<unsigned, kData>()),
                                    handle(std::integral_constant<unsigned, kConsumed>()),
                                    handle(std::integral_constant<unsigned, kEnd>()),
                                    handle(std::integral_constant<unsigned, kEndSeen>()),
                                    handle(std::integral_constant<unsigned, kHello>())}) {
    if (code != UCS_OK) return fail_ucx(code, "set a handler");
  }
  to.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  to.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  to.err_handler = {.cb = &ucx_channel::on_error, .arg = this};
  const ::ucs_status_t code = find_ucx().ep_create(worker_.get(), &to, &endpoint_);
  if (code != UCS_OK) {
    endpoint_ = nullptr;
    return fail_ucx(code, "connect");
  }
  try {
    progress_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    return fail(errc::io_error, std::string("cannot start a thread: ") + e.what());
  }
  return {};
}

ucx_channel::~ucx_channel() {
  guard lock(mutex_);
  if (progress_.joinable()) {
    // What was sent must outlive this end, but a peer that does not answer must not hold it up.
    if (endpoint_ != nullptr && broken_ == UCS_OK) {
      if (!down_) post_notice(kEnd, next_out_);
      changed_.wait_until(lock, clock::now() + kFarewell, [&] { return end_seen_ || broken_ != UCS_OK; });
    }
    down_ = true;
    close_endpoint();
    const auto all_done = [&] {
      return closing_ == nullptr || find_ucx().request_check_status(closing_) != UCS_INPROGRESS;
    };
    changed_.wait_until(lock, clock::now() + kClosing, all_done);
    stop_ = true;
    wake();
    lock.unlock();
    progress_.join();
    lock.lock();
  } else {
    close_endpoint();
  }
  if (closing_ != nullptr) find_ucx().request_free(closing_);
  for (auto& [number, m] : inbox_) {
    if (m.rendezvous != nullptr) find_ucx().am_data_release(worker_.get(), m.rendezvous);
  }
  lock.unlock();
  worker_.reset();
}

/// The only thread that drives the worker, so that a wake-up is never lost between two that wait.
void ucx_channel::run() {
  constexpr int kAtOnce = 64;
  guard lock(mutex_);
  while (!stop_) {
    int n = 0;
    while (n < kAtOnce && find_ucx().worker_progress(worker_.get()) != 0) ++n;
    if (n != 0) changed_.notify_all();
    // Armed only when nothing is left to do; else the others get the lock for a moment.
    asleep_ = n == 0 && find_ucx().worker_arm(worker_.get()) == UCS_OK;
    const bool sleeping = asleep_;
    lock.unlock();
    ::pollfd entry = {.fd = event_fd_, .events = POLLIN, .revents = 0};
    constexpr int kLongestMs = 1'000;
    if (sleeping) (void)::poll(&entry, 1, kLongestMs);
    lock.lock();
    asleep_ = false;
  }
}

void ucx_channel::wake() noexcept {
  if (asleep_) (void)find_ucx().worker_signal(worker_.get());
}

/// By force: operations under way end with an error, and their memory is free again.
void ucx_channel::close_endpoint() noexcept {
  if (endpoint_ == nullptr) return;
  ::ucp_request_param_t params = {};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ::ucs_status_ptr_t request = find_ucx().ep_close_nbx(endpoint_, &params);
  closing_ = UCS_PTR_IS_PTR(request) ? request : nullptr;
  endpoint_ = nullptr;
  wake();
}

void ucx_channel::shutdown() noexcept {
  const guard lock(mutex_);
  if (down_) return;
  if (endpoint_ != nullptr && broken_ == UCS_OK) post_notice(kEnd, next_out_);
  down_ = true;
  changed_.notify_all();
}

void ucx_channel::greet() {
  const guard lock(mutex_);
  post_notice(kHello, 0);
}

// ---- Callbacks, by the progress thread under the lock ----

template <unsigned Id>
::ucs_status_t ucx_channel::on_message(void* self, const void* header, std::size_t header_size, void* data,
                                       std::size_t size, const ::ucp_am_recv_param_t* how) {
  auto& me = *static_cast<ucx_channel*>(self);
  std::uint64_t value = 0;
  if (header_size != sizeof value) {
    me.broken_ = UCS_ERR_INVALID_PARAM;
    return UCS_OK;
  }
  std::memcpy(&value, header, sizeof value);
  if constexpr (Id == kData) {
    return me.take_data(value, data, size, (how->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
  } else {
    me.take_notice(Id, value);
    return UCS_OK;
  }
}

::ucs_status_t ucx_channel::take_data(std::uint64_t number, void* data, std::size_t size, bool rendezvous) {
  // A correct peer stays within the window and the number of pieces; memory is never its to decide.
  const bool too_much = rendezvous ? size > kPiece : size > kWindow || inbox_bytes_ > 2 * kWindow;
  if (too_much || number < next_in_ || number - next_in_ > kMostMessages || inbox_.contains(number)) {
    broken_ = UCS_ERR_INVALID_PARAM;
    return UCS_OK;
  }
  message& m = inbox_[number];
  m.size = size;
  if (rendezvous) {
    m.rendezvous = data;
    return UCS_INPROGRESS;
  }
  const auto* const bytes = static_cast<const std::byte*>(data);
  m.bytes.assign(bytes, bytes + size);
  m.copied = true;
  inbox_bytes_ += size;
  return UCS_OK;
}

void ucx_channel::take_notice(unsigned id, std::uint64_t value) {
  switch (id) {
    case kConsumed:
      if (value < consumed_out_ || value > copied_out_) {
        broken_ = UCS_ERR_INVALID_PARAM;
      } else {
        consumed_out_ = value;
      }
      break;
    case kEnd:
      end_ = value;
      if (endpoint_ != nullptr) post_notice(kEndSeen, 0);
      break;
    case kEndSeen:
      end_seen_ = true;
      break;
    default:
      greeted_ = true;
  }
}

void ucx_channel::on_error(void* self, ::ucp_ep_h, ::ucs_status_t code) {
  auto& me = *static_cast<ucx_channel*>(self);
  if (me.broken_ == UCS_OK) me.broken_ = code;
  me.changed_.notify_all();
}

void ucx_channel::on_sent(void* request, ::ucs_status_t code, void* op) {
  auto& mine = *static_cast<operation*>(op);
  mine.outcome = code;
  mine.done = true;
  find_ucx().request_free(request);
}

void ucx_channel::on_received(void* request, ::ucs_status_t code, std::size_t, void* op) {
  on_sent(request, code, op);
}

void ucx_channel::settle(operation& op, ::ucs_status_ptr_t request) {
  if (!UCS_PTR_IS_PTR(request)) {
    op.outcome = UCS_PTR_STATUS(request);
    op.done = true;
  }
  wake();
}

}  // namespace tersor::transfer
