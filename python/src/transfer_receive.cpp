// The receiving end: parts are decoded into memory that Python allocated.
#include <condition_variable>
#include <map>
#include <mutex>

#include <nanobind/stl/pair.h>

#include "transfer.hpp"

namespace tersor::python {
namespace {

using namespace transfer;

/// An exception of Python's as the reason for a refusal. Needs the GIL.
error error_of(nb::python_error& raised) {
  error e{.code = errc::invalid_argument, .message = raised.what()};
  const nb::object value = nb::borrow(raised.value());
  try {
    e.message = nb::cast<std::string>(nb::str(value));
    if (nb::isinstance(value, nb::handle(PyExc_MemoryError))) e.code = errc::out_of_memory;
    if (nb::hasattr(value, "code") && nb::hasattr(value, "byte_offset"))
      e.code = static_cast<errc>(nb::cast<int>(value.attr("code")));
  } catch (const std::exception&) {  // an exception that cannot be printed: what it was must do
  }
  return e;
}

/// Requests in memory that a Python callable gives, kept until they are taken. The callable is asked with the
/// GIL; parts are decoded without it.
class python_sink : public sink {
 public:
  python_sink(const context& ctx, nb::object allocate, nb::object on_published, std::uint64_t max_bytes)
      : ctx_(ctx),
        allocate_(std::move(allocate)),
        on_published_(std::move(on_published)),
        max_bytes_(max_bytes) {}

  status prepare(const manifest& m) override;
  status decode(const manifest& m, const part& p, std::span<const std::byte> frame) override;
  status publish(const manifest& m) override;
  void discard(const manifest& m) noexcept override;

  /// (request, regions, note, what `allocate` gave), or None if it did not come in time. Raises `cancelled`
  /// if the receiver was closed. Needs the GIL.
  nb::object take(std::optional<std::uint64_t> request, std::optional<double> seconds);
  /// Wakes whoever waits.
  void close();
  /// Lets the callables go, which may hold the receiver. Needs the GIL, and that nobody sends any more.
  void forget_callables() {
    allocate_.reset();
    on_published_.reset();
  }

 private:
  struct held {
    transfer::manifest manifest;
    std::uint64_t n_bytes = 0;
    bool is_published = false;
    std::vector<bytes_out> memory;
    std::vector<std::span<std::byte>> places;
    nb::object arrays;
  };
  using request_map = std::map<std::uint64_t, held>;

  status reserve(const manifest& m);
  status ask_python(held& h);
  void drop(request_map::node_type& gone);
  [[nodiscard]] request_map::iterator find_published(std::optional<std::uint64_t> request);

  const context& ctx_;
  nb::object allocate_, on_published_;
  std::uint64_t max_bytes_;
  std::mutex mutex_;
  std::condition_variable published_;
  request_map requests_;
  std::uint64_t held_bytes_ = 0;
  bool closed_ = false;
};

status python_sink::reserve(const manifest& m) {
  std::uint64_t total = 0;
  for (const region& r : m.regions) {
    TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
    total += n_bytes;
  }
  const std::lock_guard lock(mutex_);
  if (closed_) return fail(errc::cancelled, "the receiver is being closed");
  if (total > max_bytes_ - std::min(max_bytes_, held_bytes_))
    return fail(errc::out_of_memory, "the receiver has no room for " + std::to_string(total) + " bytes");
  const auto [at, is_new] = requests_.try_emplace(m.request);
  if (!is_new) return fail(errc::already_exists, "the request was not taken yet");
  at->second.manifest = m;
  at->second.n_bytes = total;
  held_bytes_ += total;
  return {};
}

status python_sink::ask_python(held& h) {
  const nb::gil_scoped_acquire acquire;
  try {
    nb::list regions;
    for (const region& r : h.manifest.regions) regions.append(tuple_of(r));
    const nb::bytes note(h.manifest.note.data(), h.manifest.note.size());
    const nb::object made = allocate_(h.manifest.request, regions, note);
    auto [views, arrays] = nb::cast<std::pair<nb::list, nb::object>>(made);
    if (views.size() != h.manifest.regions.size())
      return fail(errc::invalid_argument, "allocate gave memory for another number of regions");
    for (std::size_t i = 0; i < views.size(); ++i) {
      h.memory.push_back(nb::cast<bytes_out>(views[i], false));
      TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(h.manifest.regions[i]));
      if (h.memory.back().size() != n_bytes)
        return fail(errc::invalid_argument,
                    "allocate gave memory of another size for '" + h.manifest.regions[i].name + "'");
      h.places.push_back(span_of(h.memory.back()));
    }
    h.arrays = std::move(arrays);
  } catch (nb::python_error& raised) {
    return tl::unexpected<error>(error_of(raised));
  } catch (const nb::cast_error&) {
    return fail(errc::invalid_argument, "allocate gave something else than writable, contiguous bytes");
  }
  return {};
}

void python_sink::drop(request_map::node_type& gone) {
  const nb::gil_scoped_acquire acquire;
  gone = {};
}

status python_sink::prepare(const manifest& m) {
  TERSOR_CHECK(reserve(m));
  held* h = nullptr;
  {
    const std::lock_guard lock(mutex_);
    h = &requests_.at(m.request);
  }
  // Nobody else touches the request before it is published.
  status made = ask_python(*h);
  if (!made) discard(m);
  return made;
}

status python_sink::decode(const manifest& m, const part& p, std::span<const std::byte> frame) {
  held* h = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto at = requests_.find(m.request);
    if (at == requests_.end() || p.region >= at->second.places.size())
      return fail(errc::internal, "no such request");
    h = &at->second;
  }
  return decode_and_recheck(ctx_, frame, h->places[p.region].subspan(p.offset, p.n_bytes));
}

status python_sink::publish(const manifest& m) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = requests_.find(m.request);
    if (at == requests_.end()) return fail(errc::internal, "no such request");
    at->second.is_published = true;
  }
  published_.notify_all();
  const nb::gil_scoped_acquire acquire;
  if (!on_published_.is_none()) {
    try {
      on_published_(m.request);
    } catch (nb::python_error& raised) {  // the request is there all the same
      raised.discard_as_unraisable("tersor.transfer: on_published");
    }
  }
  return {};
}

void python_sink::discard(const manifest& m) noexcept {
  request_map::node_type gone;
  {
    const std::lock_guard lock(mutex_);
    gone = requests_.extract(m.request);
    if (gone) held_bytes_ -= gone.mapped().n_bytes;
  }
  drop(gone);
}

python_sink::request_map::iterator python_sink::find_published(std::optional<std::uint64_t> request) {
  auto at = request ? requests_.find(*request) : requests_.begin();
  if (request) return at != requests_.end() && at->second.is_published ? at : requests_.end();
  while (at != requests_.end() && !at->second.is_published) ++at;
  return at;
}

nb::object python_sink::take(std::optional<std::uint64_t> request, std::optional<double> seconds) {
  using clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kTick{100};
  constexpr double kMostSeconds = 1e8;
  const auto until = clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(
                                        std::clamp(seconds.value_or(kMostSeconds), 0.0, kMostSeconds)));
  while (true) {
    request_map::node_type taken;
    bool closed = false;
    {
      const nb::gil_scoped_release release;
      std::unique_lock lock(mutex_);
      auto at = requests_.end();
      published_.wait_until(lock, std::min(until, clock::now() + kTick), [&] {
        at = find_published(request);
        return closed_ || at != requests_.end();
      });
      closed = closed_;
      if (at != requests_.end()) {
        taken = requests_.extract(at);
        held_bytes_ -= taken.mapped().n_bytes;
      }
    }
    if (taken) {
      const held& h = taken.mapped();
      nb::list regions;
      for (const region& r : h.manifest.regions) regions.append(tuple_of(r));
      return nb::make_tuple(taken.key(), regions, nb::bytes(h.manifest.note.data(), h.manifest.note.size()),
                            h.arrays);
    }
    if (closed) raise({.code = errc::cancelled, .message = "the receiver was closed"});
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (clock::now() >= until) return nb::none();
  }
}

void python_sink::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  published_.notify_all();
}

nb::dict dict_of(const transfer_counters& c) {
  nb::dict d;
  d["connections"] = c.connections;
  d["refused"] = c.refused;
  d["failed_connections"] = c.failed_connections;
  d["requests_published"] = c.requests_published;
  d["requests_discarded"] = c.requests_discarded;
  d["resumptions"] = c.resumptions;
  d["parts"] = c.parts;
  d["raw_parts"] = c.raw_parts;
  d["rejected_parts"] = c.rejected_parts;
  d["bypassed_parts"] = c.bypassed_parts;
  d["raw_bytes"] = c.raw_bytes;
  d["wire_bytes"] = c.wire_bytes;
  d["encode_seconds"] = c.encode_seconds;
  d["send_seconds"] = c.send_seconds;
  d["receive_seconds"] = c.receive_seconds;
  d["decode_seconds"] = c.decode_seconds;
  return d;
}

/// A receiver as Python holds it. Its threads need the GIL now and then: it must not be held while they are
/// joined.
class held_receiver {
 public:
  held_receiver(const context& ctx, const endpoint& at, const receiver_options& options, nb::object allocate,
                nb::object on_published, std::uint64_t max_bytes)
      : parts_(std::make_unique<parts>(ctx, std::move(allocate), std::move(on_published), max_bytes)) {
    parts_->receiver.emplace(unlocked([&] { return receiver::listen(at, options, parts_->sink); }));
  }
  held_receiver(const held_receiver&) = delete;
  held_receiver& operator=(const held_receiver&) = delete;
  ~held_receiver() {
    if (!home_.is_here()) {
      static_cast<void>(parts_.release());
      return;
    }
    const nb::gil_scoped_release release;
    parts_->metrics.reset();
    parts_->receiver.reset();
  }

  [[nodiscard]] receiver& get() const {
    home_.check("receiver");
    return *parts_->receiver;
  }
  nb::object take(std::optional<std::uint64_t> request, std::optional<double> seconds) {
    home_.check("receiver");
    return parts_->sink.take(request, seconds);
  }
  [[nodiscard]] std::string metrics() const { return prometheus_text(get().counters(), "receiver"); }
  nb::tuple serve_metrics(const std::string& host, std::uint16_t port) {
    receiver& r = get();
    parts_->metrics.emplace(unlocked([&] {
      return metrics_server::listen({.host = host, .port = port},
                                    [&r] { return prometheus_text(r.counters(), "receiver"); });
    }));
    return tuple_of(parts_->metrics->address());
  }
  void close() {
    receiver& r = get();
    parts_->sink.close();
    {
      const nb::gil_scoped_release release;
      parts_->metrics.reset();
      r.stop();
    }
    parts_->sink.forget_callables();
  }

 private:
  struct parts {
    parts(const context& ctx, nb::object allocate, nb::object on_published, std::uint64_t max_bytes)
        : sink(ctx, std::move(allocate), std::move(on_published), max_bytes) {}
    python_sink sink;
    std::optional<transfer::receiver> receiver;
    std::optional<metrics_server> metrics;
  };

  std::unique_ptr<parts> parts_;
  home_process home_;
};

}  // namespace

void bind_transfer_receive(nb::module_& m) {
  nb::class_<held_receiver>(m, "Receiver",
                            "Listens, and decodes what comes into memory that a callable gives.")
      .def(
          "__init__",
          [](held_receiver* self, const held_context& held, std::string host, std::uint16_t port,
             const nb::dict& options, nb::object allocate, nb::object on_published, std::uint64_t max_bytes) {
            new (self) held_receiver(held.get(), {.host = std::move(host), .port = port},
                                     receiver_options_of(options), std::move(allocate),
                                     std::move(on_published), max_bytes);
          },
          nb::arg("ctx"), nb::arg("host"), nb::arg("port"), nb::arg("options"), nb::arg("allocate"),
          nb::arg("on_published").none(), nb::arg("max_bytes"), nb::keep_alive<1, 2>())
      .def_prop_ro("address", [](const held_receiver& r) { return tuple_of(r.get().address()); })
      .def("take", &held_receiver::take, nb::arg("request").none(), nb::arg("seconds").none())
      .def("counters", [](const held_receiver& r) { return dict_of(r.get().counters()); })
      .def("metrics", &held_receiver::metrics)
      .def("serve_metrics", &held_receiver::serve_metrics, nb::arg("host"), nb::arg("port"))
      .def("last_error",
           [](const held_receiver& r) -> nb::object {
             const auto found = r.get().last_error();
             return found ? text_of(found->message) : nb::none();
           })
      .def("close", &held_receiver::close);
}

}  // namespace tersor::python
