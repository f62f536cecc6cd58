// What the bindings of tersor.transfer share.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <future>

#include "common.hpp"
#include <tersor/transfer.hpp>

namespace tersor::python {

/// (name, layer, kind, dtype, shape, page_bytes, codebook or None)
[[nodiscard]] transfer::region region_of(const nb::tuple& given);
[[nodiscard]] nb::tuple tuple_of(const transfer::region& r);
[[nodiscard]] nb::tuple tuple_of(const transfer::endpoint& e);
[[nodiscard]] std::vector<std::byte> bytes_from(const nb::bytes& given);

/// Errors (exceptions): an option that the end does not know, or a value of the wrong type.
[[nodiscard]] transfer::sender_options sender_options_of(const nb::dict& given);
[[nodiscard]] transfer::receiver_options receiver_options_of(const nb::dict& given);

/// The process that made an object with threads or connections: they are no child's.
class home_process {
 public:
  home_process();
  [[nodiscard]] bool is_here() const noexcept;
  /// Raises `invalid_argument` in a child of the process that made `what`.
  void check(const char* what) const;

 private:
  long process_;
};

/// Runs `work` on a thread of its own and waits without the GIL. Ctrl-C, or an exception of `poll`, calls
/// `stop` and is raised when the work has ended.
template <class Work, class Poll, class Stop>
auto interruptible(Work&& work, Poll&& poll, Stop&& stop) {
  constexpr std::chrono::milliseconds kTick{50};
  std::exception_ptr raised;
  auto outcome = [&] {
    const nb::gil_scoped_release release;
    auto running = std::async(std::launch::async, std::forward<Work>(work));
    while (running.wait_for(kTick) != std::future_status::ready) {
      if (raised) continue;
      const nb::gil_scoped_acquire acquire;
      try {
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        poll();
      } catch (...) {
        raised = std::current_exception();
        stop();
      }
    }
    return running.get();
  }();
  if (raised) std::rethrow_exception(raised);
  return unwrap(std::move(outcome));
}

void bind_transfer_send(nb::module_& m);
void bind_transfer_receive(nb::module_& m);

}  // namespace tersor::python
