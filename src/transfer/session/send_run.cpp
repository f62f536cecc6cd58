#include "transfer/session/send_run.hpp"

#include <thread>

#include "cpu/context_impl.hpp"

namespace tersor::transfer {
namespace {

constexpr std::chrono::milliseconds kCancelTick{50};
/// Pings in the time after which a receiver gives an idle sender up.
constexpr int kPingsPerIdle = 4;
constexpr std::chrono::seconds kFarewell{1};

bool is_connection_error(errc code) noexcept {
  return code == errc::io_error || code == errc::not_found;
}

}  // namespace

void send_run::stop(error why) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_ || published_) return;
    failed_ = std::move(why);
  }
  wake_.notify_all();
  with_.link.shutdown();
  if (with_.path != nullptr) with_.path->shutdown();
}

template <class Condition>
status send_run::wait(std::unique_lock<std::mutex>& lock, deadline limit, const char* what, Condition until) {
  const auto ping_every = with_.options.timeouts.idle / kPingsPerIdle;
  deadline ping_at = clock::now() + ping_every;
  while (!failed_ && !until()) {
    if (is_cancelled()) return fail(errc::cancelled, "cancelled");
    const deadline now = clock::now();
    if (now >= limit) return fail(errc::io_error, std::string("timed out waiting for ") + what);
    if (now >= ping_at) {
      lock.unlock();
      const status sent = with_.link.send({.type = message_type::ping}, {});
      lock.lock();
      TERSOR_CHECK(sent);
      ping_at = now + ping_every;
      continue;
    }
    wake_.wait_until(lock, std::min({limit, ping_at, now + kCancelTick}));
  }
  if (failed_) return tl::unexpected<error>(*failed_);
  return {};
}

status send_run::begin() {
  const auto payload =
      write(beginning{.token = token_, .part_bytes = with_.part_bytes, .manifest = with_.what});
  TERSOR_CHECK(with_.link.send({.type = message_type::begin, .request = with_.what.request, .epoch = epoch_},
                               payload));
  TERSOR_TRY(const message_header header, with_.link.receive_header(with_.link.message_deadline()));
  const std::uint64_t limit = 8 + with_.plan.n_parts() / 8 + kMaxSmallBytes;
  TERSOR_TRY(const auto answer, with_.link.receive_payload(header, limit));
  if (header.type == message_type::fail) {
    TERSOR_TRY(const failure why, read_failure(answer));
    may_resume_ = why.may_resume;
    return fail(why.code, "refused: " + why.message);
  }
  if (header.type != message_type::ready || header.request != with_.what.request || header.epoch != epoch_) {
    return fail(errc::malformed, "a message came out of order: ready");
  }
  TERSOR_TRY(held_, read_ready(answer, with_.plan.n_parts()));
  return {};
}

send_run::outcome send_run::run() {
  status done = cpu::guarded([&]() -> status {
    TERSOR_CHECK(begin());
    return run_threads();
  });
  if (done) return {.done = {}};
  outcome o{.done = std::move(done)};
  // Only the receiver's own word, intact, says that it did not publish what it has.
  o.may_be_published = all_sent_ && !was_refused_;
  o.may_resume = may_resume_ && o.done.error().code != errc::cancelled;
  return o;
}

status send_run::run_threads() {
  free_frames_.resize(with_.n_frames);
  for (std::uint32_t i = 0; i < with_.n_frames; ++i) free_frames_[i] = i;
  for (std::uint32_t i = 0; i < with_.terms.n_slots; ++i) free_slots_.push_back(i);
  flying_.resize(with_.terms.n_slots);
  std::thread encoder([this] { encode_loop(); });
  std::thread reader;
  status sent = cpu::guarded([&]() -> status {
    reader = std::thread([this] { read_loop(); });
    TERSOR_CHECK(send_all());
    return wait_published();
  });
  if (!sent) {
    const status told = cpu::guarded([&]() -> status {
      tell_and_leave(sent.error());
      return {};
    });
    if (!told) leave_untold();
  }
  if (reader.joinable()) reader.join();
  encoder.join();
  // The receiver's reason, where it gave one, says more than the broken connection that followed.
  if (!sent && failed_) return tl::unexpected<error>(*failed_);
  return sent;
}

/// Ends the connection, after the receiver was told of a fault that is not its own.
void send_run::tell_and_leave(const error& why) {
  {
    std::unique_lock lock(mutex_);
    const bool own_fault = source_failed_ || (!failed_ && !is_connection_error(why.code));
    if (!failed_) failed_ = why;
    if (own_fault) {
      may_resume_ = false;
      lock.unlock();
      const failure f{.code = why.code, .may_resume = false, .message = why.message};
      const status told = with_.link.send(
          {.type = message_type::fail, .request = with_.what.request, .epoch = epoch_}, write(f));
      lock.lock();
      // The receiver closes when it has read that; closing first might throw it away.
      if (told) (void)wake_.wait_for(lock, kFarewell, [this] { return reader_done_; });
    }
  }
  wake_.notify_all();
  with_.link.shutdown();
  if (with_.path != nullptr) with_.path->shutdown();
}

/// For want of memory: needs none.
void send_run::leave_untold() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!failed_) failed_ = error{.code = errc::out_of_memory, .message = "out of memory"};
  }
  wake_.notify_all();
  with_.link.shutdown();
  if (with_.path != nullptr) with_.path->shutdown();
}

void send_run::encode_loop() {
  if (status done = cpu::guarded([&] { return encode_all(); }); !done) {
    {
      const std::lock_guard lock(mutex_);
      if (failed_) return;
      failed_ = std::move(done).error();
      source_failed_ = true;
    }
    // The sending thread tells the receiver and ends the connection.
    wake_.notify_all();
  }
}

status send_run::encode_all() {
  std::uint32_t ready_regions = 0;
  for (std::uint64_t index = 0; index < with_.plan.n_parts(); ++index) {
    if (held_[index]) continue;
    const part p = with_.plan.at(index);
    for (; ready_regions <= p.region; ++ready_regions) TERSOR_CHECK(with_.from.wait_ready(ready_regions));
    const region& r = with_.what.regions[p.region];
    ready_part made{.index = index, .encoded = {}};
    codec c = codec::raw;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return failed_ || !free_frames_.empty(); });
      if (failed_) return {};
      made.frame = free_frames_.back();
      free_frames_.pop_back();
      c = with_.choice.next(r.type);
    }
    const stopwatch watch;
    TERSOR_TRY(made.encoded, with_.from.encode(r, p, c, frame(made.frame)));
    made.encode_seconds = watch.seconds();
    {
      const std::lock_guard lock(mutex_);
      ready_.push_back(made);
    }
    wake_.notify_all();
  }
  return {};
}

result<send_run::ready_part> send_run::next_ready() {
  std::unique_lock lock(mutex_);
  // As long as prefill takes.
  TERSOR_CHECK(wait(lock, deadline::max(), "the encoder", [this] { return !ready_.empty(); }));
  const ready_part p = ready_.front();
  ready_.pop_front();
  return p;
}

result<std::uint32_t> send_run::next_slot() {
  std::unique_lock lock(mutex_);
  const stopwatch watch;
  TERSOR_CHECK(wait(lock, with_.link.message_deadline(), "the receiver's credit",
                    [this] { return !free_slots_.empty(); }));
  with_.report.credit_seconds += watch.seconds();
  const std::uint32_t slot = free_slots_.front();
  free_slots_.pop_front();
  return slot;
}

void send_run::count(const ready_part& p) {
  transfer_report& r = with_.report;
  ++r.parts;
  switch (p.encoded.codec) {
    case codec::raw:
      ++r.raw_parts;
      break;
    case codec::top16:
      ++r.top16_parts;
      break;
    case codec::rank:
      ++r.rank_parts;
      break;
  }
  if (is_codable(with_.what.regions[with_.plan.at(p.index).region].type) &&
      with_.choice.is_bypass(p.encoded.codec)) {
    ++r.bypassed_parts;
  }
  r.encode_seconds += p.encode_seconds;
}

status send_run::send_part(const ready_part& p) {
  TERSOR_TRY(const std::uint32_t slot, next_slot());
  const part what = with_.plan.at(p.index);
  const region& r = with_.what.regions[what.region];
  const auto payload = const_bytes(frame(p.frame)).first(p.encoded.n_bytes);
  {
    const std::lock_guard lock(mutex_);
    flying_[slot] = {.flies = true,
                     .index = p.index,
                     .raw_bytes = what.n_bytes,
                     .sent_bytes = payload.size(),
                     .code = p.encoded.codec,
                     .encode_seconds = p.encode_seconds};
    ++n_flying_;
  }
  const stopwatch watch;
  if (with_.path != nullptr) TERSOR_CHECK(with_.path->put(slot, payload, with_.link.message_deadline()));
  TERSOR_CHECK(with_.link.send({.type = message_type::part,
                                .kind = static_cast<std::uint8_t>(r.kind),
                                .codec = static_cast<std::uint8_t>(p.encoded.codec),
                                .request = with_.what.request,
                                .epoch = epoch_,
                                .region = what.region,
                                .layer = r.layer,
                                .slot = slot,
                                .first_page = what.first_page,
                                .n_pages = what.n_pages,
                                .payload_digest = p.encoded.digest},
                               payload, with_.path != nullptr));
  with_.report.send_seconds += watch.seconds();
  return {};
}

/// Counts the parts that the receiver has from an earlier connection.
status send_run::skip_held() {
  for (std::uint64_t i = 0; i < held_.size(); ++i) {
    if (!held_[i]) continue;
    if (!with_.sent[i]) return fail(errc::malformed, "the receiver claims a part that was never sent");
    sum_.digest += part_digest(i, *with_.sent[i]);
    ++sum_.n_parts;
    done_bytes_ += with_.plan.at(i).n_bytes;
  }
  return {};
}

status send_run::send_all() {
  TERSOR_CHECK(skip_held());
  while (sum_.n_parts < with_.plan.n_parts()) {
    TERSOR_TRY(const ready_part p, next_ready());
    with_.sent[p.index] = p.encoded.digest;
    sum_.digest += part_digest(p.index, p.encoded.digest);
    ++sum_.n_parts;
    TERSOR_CHECK(send_part(p));
    count(p);
    {
      const std::lock_guard lock(mutex_);
      free_frames_.push_back(p.frame);
    }
    wake_.notify_all();
  }
  {
    const std::lock_guard lock(mutex_);
    all_sent_ = true;
  }
  return with_.link.send({.type = message_type::end, .request = with_.what.request, .epoch = epoch_},
                         write(sum_));
}

status send_run::wait_published() {
  std::unique_lock lock(mutex_);
  // Publishing may mean writing to disk.
  return wait(lock, with_.link.idle_deadline(), "the publication", [this] { return published_; });
}

void send_run::read_loop() {
  status done = cpu::guarded([&] { return read_all(); });
  if (!done) stop(std::move(done).error());
  {
    const std::lock_guard lock(mutex_);
    reader_done_ = true;
  }
  wake_.notify_all();
}

status send_run::read_all() {
  while (true) {
    TERSOR_TRY(const message_header header, with_.link.receive_header(with_.link.idle_deadline()));
    TERSOR_TRY(const auto payload, with_.link.receive_payload(header, kMaxSmallBytes));
    if (header.type == message_type::fail) {
      TERSOR_TRY(const failure why, read_failure(payload));
      {
        const std::lock_guard lock(mutex_);
        may_resume_ = why.may_resume;
        was_refused_ = true;
      }
      return fail(why.code, "the receiver says: " + why.message);
    }
    if (header.type == message_type::ping) continue;
    if (header.request != with_.what.request || header.epoch != epoch_) {
      return fail(errc::malformed, "an answer to another request");
    }
    if (header.type == message_type::credit) {
      TERSOR_CHECK(on_credit(header));
    } else if (header.type == message_type::published) {
      return on_published(payload);
    } else {
      return fail(errc::malformed, "a message came out of order");
    }
  }
}

status send_run::on_credit(const message_header& header) {
  transfer_progress progress{.total_bytes = with_.plan.total_bytes()};
  {
    const std::lock_guard lock(mutex_);
    if (header.slot >= flying_.size() || !flying_[header.slot].flies) {
      return fail(errc::malformed, "credit for a slot that was not used");
    }
    flying_part& f = flying_[header.slot];
    f.flies = false;
    --n_flying_;
    const auto now = clock::now();
    part_sample sample{.code = f.code,
                       .raw_bytes = f.raw_bytes,
                       .sent_bytes = f.sent_bytes,
                       .encode_seconds = f.encode_seconds,
                       .decode_seconds = static_cast<double>(header.aux) * 1e-9};
    if (pace_start_) sample.interval_seconds = std::chrono::duration<double>(now - *pace_start_).count();
    pace_start_ = n_flying_ > 0 ? std::optional(now) : std::nullopt;
    with_.choice.note(sample);
    with_.report.decode_seconds += sample.decode_seconds;
    done_bytes_ += f.raw_bytes;
    progress.done_bytes = done_bytes_;
    free_slots_.push_back(header.slot);
  }
  wake_.notify_all();
  if (with_.options.on_progress) with_.options.on_progress(progress);
  return {};
}

status send_run::on_published(std::span<const std::byte> payload) {
  TERSOR_TRY(const totals said, read_totals(payload));
  {
    const std::lock_guard lock(mutex_);
    if (!all_sent_ || said != sum_)
      return fail(errc::digest_mismatch, "the receiver published something else");
    published_ = true;
  }
  wake_.notify_all();
  return {};
}

}  // namespace tersor::transfer
