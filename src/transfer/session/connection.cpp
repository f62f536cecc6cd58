#include "transfer/session/connection.hpp"

#include <algorithm>
#include <thread>

#include "codec/coding.hpp"
#include "codec/frame_codec.hpp"
#include "cpu/context_impl.hpp"
#include "transfer/session/handshake.hpp"

namespace tersor::transfer {
namespace {

/// How long a sender that was told of a failure may go on sending.
constexpr std::chrono::seconds kDrain{2};

tl::unexpected<error> out_of_order(const char* what) {
  return fail(errc::malformed, std::string("a message came out of order: ") + what);
}

/// What the wire or the sender got wrong may go right the next time; what this side cannot do will not.
bool may_go_right(errc code) noexcept {
  return code == errc::bad_magic || code == errc::digest_mismatch || code == errc::malformed ||
         code == errc::truncated || code == errc::io_error;
}

/// A frame keeps only the entries that its codec uses.
bool uses_book(const frame_info& info, const codebook& agreed) noexcept {
  const auto* planes = codec_detail::find_planes(info.type);
  if (planes == nullptr) return false;
  const unsigned n_entries = codec_detail::make_plan(info.codec, planes->symbol_bits).n_entries;
  return std::equal(agreed.symbols.begin(), agreed.symbols.begin() + n_entries, info.book.symbols.begin());
}

/// What the frame says of itself against what was agreed on.
status check_frame(const frame_info& info, const message_header& header, const region& r, const part& p) {
  if (info.frame_bytes != header.payload_bytes) return fail(errc::malformed, "a part is not one frame");
  if (info.digest != header.payload_digest)
    return fail(errc::digest_mismatch, "a frame came under another's name");
  if (static_cast<std::uint8_t>(info.codec) != header.codec)
    return fail(errc::mismatch, "codec: another than announced");
  if (info.type != r.type) return fail(errc::mismatch, "dtype: a frame has another than its region");
  if (info.decoded_bytes != p.n_bytes) {
    return fail(errc::mismatch, "page range: a frame has another size than its part");
  }
  if (info.codec != codec::raw && r.book && !uses_book(info, *r.book)) {
    return fail(errc::mismatch, "codebook: a frame uses another than its region");
  }
  return {};
}

}  // namespace

std::span<std::byte> connection::slot(std::uint32_t index) const noexcept {
  return memory_.all().subspan(index * slot_bytes_, slot_bytes_);
}

void connection::shutdown() noexcept {
  link_.shutdown();
  if (path_ != nullptr) path_->shutdown();
}

status connection::prepare() {
  slot_bytes_ = frame_bound(with_.options.max_part_bytes);
  const auto all = core::checked_mul(slot_bytes_, with_.options.n_slots);
  if (slot_bytes_ == 0 || !all) return fail(errc::size_overflow, "the slots' size leaves 64 bits");
  TERSOR_TRY(memory_, aligned_bytes::allocate(*all, with_.options.pinned_slots));
  slot_busy_.assign(with_.options.n_slots, false);
  accept terms{.n_slots = with_.options.n_slots,
               .slot_bytes = slot_bytes_,
               .max_part_bytes = with_.options.max_part_bytes,
               .max_request_bytes = with_.options.max_request_bytes,
               .max_regions = with_.options.max_regions,
               .slots = {}};
  if (path_ != nullptr) {
    TERSOR_TRY(terms.slots, path_->open_slots(memory_.all(), with_.options.n_slots));
  }
  return shake_as_receiver(link_, with_.options, terms);
}

status connection::run() {
  return cpu::guarded([&]() -> status {
    if (status ready = prepare(); !ready) {
      ++with_.counters.refused;
      shutdown();
      return ready;
    }
    std::thread decoder([this] { decode_loop(); });
    status served = cpu::guarded([&] { return serve(); });
    shutdown();
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    decoder.join();
    leave_request();
    if (failed_) served = tl::unexpected<error>(std::move(*failed_));
    with_.counters.wire_bytes += link_.received_bytes();
    return served;
  });
}

void connection::leave_request() {
  if (request_ == nullptr) return;
  with_.requests.detach(request_, epoch_);
  request_.reset();
  facts_.reset();
  ending_ = false;
}

status connection::serve() {
  while (true) {
    const auto header = link_.receive_header(link_.idle_deadline());
    bool failed = false, ended = false;
    {
      const std::lock_guard lock(mutex_);
      failed = failed_.has_value();
      ended = std::exchange(ended_, false);
    }
    if (ended) leave_request();
    if (!header) {
      const bool left = header.error().code == errc::not_found && request_ == nullptr;
      return left ? status{} : tl::unexpected<error>(header.error());
    }
    if (failed) break;
    if (const status done = dispatch(*header); !done) {
      report(done.error());
      break;
    }
  }
  // Closing at once would throw away what the sender has not read yet, the reason among it.
  link_.discard(clock::now() + kDrain);
  return {};
}

status connection::dispatch(const message_header& header) {
  switch (header.type) {
    case message_type::ping: {
      TERSOR_TRY(const auto nothing, link_.receive_payload(header, 0));
      return link_.send({.type = message_type::ping}, {});
    }
    case message_type::begin:
      return on_begin(header);
    case message_type::part:
      return on_part(header);
    case message_type::end:
      return on_end(header);
    case message_type::fail:
      return on_fail(header);
    default:
      return out_of_order("type");
  }
}

status connection::on_begin(const message_header& header) {
  if (request_ != nullptr) return out_of_order("a request begins inside another");
  TERSOR_TRY(const auto payload, link_.receive_payload(header, begin_bound(with_.options.max_regions)));
  if (header.epoch == 0) return fail(errc::mismatch, "epoch: stale");
  const bool again = with_.requests.is_known(header.request);
  TERSOR_TRY(request_, with_.requests.begin(header.request, header.epoch, payload, &link_));
  epoch_ = header.epoch;
  if (again) ++with_.counters.resumptions;
  {
    const std::lock_guard working(request_->work);
    facts_ = request_->facts;
    received_ = request_->is_published ? std::vector<bool>(request_->sum.n_parts, true) : request_->verified;
  }
  return link_.send({.type = message_type::ready, .request = header.request, .epoch = epoch_},
                    write_ready(received_));
}

result<connection::job> connection::check_part(const message_header& header) {
  if (facts_ == nullptr || ending_) return out_of_order("a part outside a request");
  if (header.request != request_->number) return fail(errc::mismatch, "request: another than begun");
  if (header.epoch != epoch_) return fail(errc::mismatch, "epoch: stale");
  job j{.header = header, .what = {}, .payload = {}};
  const auto index = facts_->plan.find(header.region, header.first_page, header.n_pages);
  if (!index) return fail(errc::mismatch, "page range: no such part");
  j.index = *index;
  j.what = facts_->plan.at(j.index);
  const region& r = facts_->manifest.regions[header.region];
  if (header.layer != r.layer || header.kind != static_cast<std::uint8_t>(r.kind)) {
    return fail(errc::mismatch, "layer: a part names another than its region");
  }
  if (received_[j.index]) return fail(errc::malformed, "a part came twice");
  if (header.slot >= slot_busy_.size() || header.payload_bytes > slot_bytes_ || header.payload_bytes == 0) {
    return fail(errc::malformed, "a part does not fit its slot");
  }
  const std::lock_guard lock(mutex_);
  if (slot_busy_[header.slot]) return fail(errc::malformed, "a part came without credit");
  slot_busy_[header.slot] = true;
  return j;
}

status connection::on_part(const message_header& header) {
  TERSOR_TRY(job j, check_part(header));
  const stopwatch watch;
  const auto dst = slot(header.slot).first(header.payload_bytes);
  if (path_ != nullptr)
    TERSOR_CHECK(path_->take(header.slot, header.payload_bytes, link_.message_deadline()));
  TERSOR_CHECK(link_.receive_part(header, dst, path_ != nullptr));
  with_.counters.receive_ns += watch.ns();
  received_[j.index] = true;
  enqueue(std::move(j));
  return {};
}

status connection::on_end(const message_header& header) {
  TERSOR_TRY(auto payload, link_.receive_payload(header, kMaxSmallBytes));
  if (request_ == nullptr || ending_ || header.request != request_->number || header.epoch != epoch_) {
    return out_of_order("the end of no request");
  }
  ending_ = true;
  enqueue({.header = header, .what = {}, .payload = std::move(payload)});
  return {};
}

status connection::on_fail(const message_header& header) {
  TERSOR_TRY(const auto payload, link_.receive_payload(header, kMaxSmallBytes));
  TERSOR_TRY(const failure why, read_failure(payload));
  if (request_ != nullptr && !why.may_resume && request_->epoch == epoch_) with_.requests.discard(request_);
  return fail(why.code, "the sender gave up: " + why.message);
}

void connection::enqueue(job j) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(j));
  }
  wake_.notify_all();
}

/// Tells the sender once why the connection ends.
void connection::report(error why) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_) return;
    failed_ = std::move(why);
  }
  const status told = cpu::guarded([&]() -> status {
    const failure f{
        .code = failed_->code, .may_resume = may_go_right(failed_->code), .message = failed_->message};
    return link_.send({.type = message_type::fail}, write(f));
  });
  if (!told) shutdown();
}

void connection::decode_loop() {
  while (true) {
    job j;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (stop_) return;
      j = std::move(jobs_.front());
      jobs_.pop_front();
      if (failed_) continue;
    }
    if (status done = cpu::guarded([&] { return work_on(j); }); !done) {
      if (j.header.type == message_type::part) ++with_.counters.rejected_parts;
      report(std::move(done).error());
    }
  }
}

status connection::work_on(const job& j) {
  return j.header.type == message_type::end ? publish(j) : decode(j);
}

status connection::decode(const job& j) {
  const auto frame = const_bytes(slot(j.header.slot)).first(j.header.payload_bytes);
  const stopwatch watch;
  {
    const std::lock_guard working(request_->work);
    if (request_->epoch != j.header.epoch) return fail(errc::mismatch, "epoch: stale");
    const region& r = facts_->manifest.regions[j.what.region];
    TERSOR_TRY(const frame_info info, inspect(frame));
    TERSOR_CHECK(check_frame(info, j.header, r, j.what));
    TERSOR_CHECK(with_.to.decode(facts_->manifest, j.what, frame));
    request_->verified[j.index] = true;
    ++request_->sum.n_parts;
    request_->sum.digest += part_digest(j.index, info.digest);
  }
  const std::uint64_t ns = watch.ns();
  with_.counters.decode_ns += ns;
  ++with_.counters.parts;
  with_.counters.raw_parts += j.header.codec == 0 ? 1 : 0;
  with_.counters.raw_bytes += j.what.n_bytes;
  {
    const std::lock_guard lock(mutex_);
    slot_busy_[j.header.slot] = false;
  }
  return link_.send({.type = message_type::credit,
                     .request = j.header.request,
                     .epoch = j.header.epoch,
                     .region = j.header.region,
                     .slot = j.header.slot,
                     .first_page = j.header.first_page,
                     .n_pages = j.header.n_pages,
                     .aux = ns},
                    {});
}

status connection::publish(const job& j) {
  TERSOR_TRY(const totals said, read_totals(j.payload));
  // Made before: after the publication nothing may fail but the sending of it.
  const auto answer = write(said);
  {
    const std::lock_guard working(request_->work);
    if (request_->epoch != j.header.epoch) return fail(errc::mismatch, "epoch: stale");
    if (!request_->is_published) {
      if (request_->sum.n_parts != facts_->plan.n_parts())
        return fail(errc::malformed, "the request ends incomplete");
      if (request_->sum != said) return fail(errc::digest_mismatch, "the request's digest differs");
      TERSOR_CHECK(with_.requests.publish(*request_));
      ++with_.counters.requests_published;
    } else if (request_->sum != said) {
      return fail(errc::digest_mismatch, "the request's digest differs");
    }
  }
  {
    // Before the answer goes out: the sender's next message may be here before this thread goes on.
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  return link_.send({.type = message_type::published, .request = j.header.request, .epoch = j.header.epoch},
                    answer);
}

}  // namespace tersor::transfer
