// The sending end.
#include <condition_variable>
#include <mutex>

#include "transfer.hpp"

namespace tersor::python {
namespace {

using namespace transfer;

/// Tensors that are handed over one after another, in any order.
class put_source : public source {
 public:
  put_source(const context& ctx, std::size_t n_regions) : ctx_(ctx), regions_(n_regions) {}

  void put(std::uint32_t index, bytes_in data) {
    if (index >= regions_.size()) raise({.code = errc::invalid_argument, .message = "no such region"});
    {
      const std::lock_guard lock(mutex_);
      if (regions_[index].parts)
        raise({.code = errc::invalid_argument, .message = "the region was handed over before"});
      regions_[index] = {.parts = make_host_source(ctx_, {span_of(data)}), .memory = std::move(data)};
    }
    changed_.notify_all();
  }
  void cancel(std::string why) {
    {
      const std::lock_guard lock(mutex_);
      if (!cancelled_) cancelled_ = error{.code = errc::cancelled, .message = std::move(why)};
    }
    changed_.notify_all();
  }

  status wait_ready(std::uint32_t index) override {
    if (index >= regions_.size()) return fail(errc::invalid_argument, "the manifest has more regions");
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return cancelled_ || regions_[index].parts; });
    if (cancelled_) return tl::unexpected<error>(*cancelled_);
    return {};
  }
  result<encoded_part> encode(const region& r, const part& p, codec c, std::span<std::byte> slot) override {
    source* from = nullptr;
    {
      const std::lock_guard lock(mutex_);
      from = regions_[p.region].parts.get();
    }
    part own = p;
    own.region = 0;
    return from->encode(r, own, c, slot);
  }

 private:
  struct handed_over {
    std::unique_ptr<source> parts;
    bytes_in memory;
  };

  const context& ctx_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<handed_over> regions_;
  std::optional<error> cancelled_;
};

nb::dict dict_of(const transfer_report& r) {
  nb::dict d;
  d["raw_bytes"] = r.raw_bytes;
  d["sent_bytes"] = r.sent_bytes;
  d["parts"] = r.parts;
  d["raw_parts"] = r.raw_parts;
  d["top16_parts"] = r.top16_parts;
  d["rank_parts"] = r.rank_parts;
  d["bypassed_parts"] = r.bypassed_parts;
  d["resumptions"] = r.resumptions;
  d["seconds"] = r.seconds;
  d["encode_seconds"] = r.encode_seconds;
  d["send_seconds"] = r.send_seconds;
  d["credit_seconds"] = r.credit_seconds;
  d["decode_seconds"] = r.decode_seconds;
  return d;
}

/// A sender as Python holds it: one request at a time, and none in a child process.
class held_sender {
 public:
  held_sender(const endpoint& to, sender_options options) {
    options.cancel = &state_->cancelled;
    options.on_progress = [s = state_.get()](const transfer_progress& p) {
      s->done = p.done_bytes;
      s->total = p.total_bytes;
    };
    state_->connected = std::make_unique<sender>(
        interruptible([&] { return sender::connect(to, options); }, [] {}, [this] { stop(); }));
  }
  held_sender(const held_sender&) = delete;
  held_sender& operator=(const held_sender&) = delete;
  ~held_sender() {
    // Ending the connection here would end the parent's.
    if (!home_.is_here()) static_cast<void>(state_.release());
  }

  nb::dict send(std::uint64_t request, const std::vector<nb::tuple>& regions, const nb::bytes& note,
                put_source& from, const nb::object& progress) {
    home_.check("sender");
    manifest m{.request = request, .regions = {}, .note = bytes_from(note)};
    for (const nb::tuple& given : regions) m.regions.push_back(region_of(given));
    std::unique_lock busy(state_->busy, std::try_to_lock);
    if (!busy) raise({.code = errc::invalid_argument, .message = "the sender is sending another request"});
    if (state_->connected == nullptr)
      raise({.code = errc::invalid_argument, .message = "the sender is closed"});
    state_->cancelled = false;
    state_->done = state_->total = 0;
    const auto report = [&] {
      if (!progress.is_none() && state_->total > 0) progress(state_->done.load(), state_->total.load());
    };
    return dict_of(interruptible([&] { return state_->connected->send(m, from); }, report,
                                 [&] {
                                   stop();
                                   from.cancel("cancelled");
                                 }));
  }

  /// Ends a request that another thread is sending.
  void stop() noexcept { state_->cancelled = true; }

  void close() {
    home_.check("sender");
    stop();
    const nb::gil_scoped_release release;
    const std::lock_guard busy(state_->busy);
    state_->connected.reset();
  }

 private:
  struct state {
    std::mutex busy;
    std::atomic<bool> cancelled{false};
    std::atomic<std::uint64_t> done{0}, total{0};
    std::unique_ptr<sender> connected;
  };

  std::unique_ptr<state> state_ = std::make_unique<state>();
  home_process home_;
};

}  // namespace

void bind_transfer_send(nb::module_& m) {
  nb::class_<put_source>(m, "Parts", "Tensors of a request, handed over one after another.")
      .def(
          "__init__",
          [](put_source* self, const held_context& held, std::size_t n_regions) {
            new (self) put_source(held.get(), n_regions);
          },
          nb::arg("ctx"), nb::arg("n_regions"), nb::keep_alive<1, 2>())
      .def("put", &put_source::put, nb::arg("index"), nb::arg("data").noconvert())
      .def("cancel", &put_source::cancel, nb::arg("why") = "cancelled");
  nb::class_<held_sender>(m, "Sender", "A connection to a receiver.")
      .def(
          "__init__",
          [](held_sender* self, std::string host, std::uint16_t port, const nb::dict& options) {
            new (self) held_sender({.host = std::move(host), .port = port}, sender_options_of(options));
          },
          nb::arg("host"), nb::arg("port"), nb::arg("options"))
      .def("send", &held_sender::send, nb::arg("request"), nb::arg("regions"), nb::arg("note"),
           nb::arg("parts"), nb::arg("progress").none() = nb::none())
      .def("stop", &held_sender::stop)
      .def("close", &held_sender::close);
}

}  // namespace tersor::python
