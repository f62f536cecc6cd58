// Options of the calls on files, as keyword arguments.
#pragma once

#include <atomic>
#include <exception>
#include <string>

#include "common.hpp"

namespace tersor::python {

/// What Python chose, and how a call is stopped by an exception of the callback or by Ctrl-C.
class call_options {
 public:
  explicit call_options(const nb::kwargs& given) {
    for (const auto& [key, value] : given) {
      const std::string name = nb::cast<std::string>(key);
      try {
        take(name, value);
      } catch (const nb::cast_error&) {
        throw nb::type_error(("option '" + name + "' has a value of the wrong type").c_str());
      }
    }
    options_.cancel = &cancelled_;
    options_.on_progress = [this](const progress& p) { report(p); };
  }
  call_options(const call_options&) = delete;
  call_options& operator=(const call_options&) = delete;

  [[nodiscard]] const model_options& get() const noexcept { return options_; }

  /// Runs `work` without the GIL; an exception that stopped it is raised again.
  template <class Work>
  auto run(Work&& work) {
    auto outcome = [&] {
      const nb::gil_scoped_release release;
      return std::forward<Work>(work)(options_);
    }();
    if (raised_) std::rethrow_exception(raised_);
    if (!outcome) raise(outcome.error());
    return std::move(*outcome);
  }

 private:
  void take(const std::string& key, const nb::handle& value) {
    if (key == "codec") {
      options_.codec = codec_of(nb::cast<std::string_view>(value));
    } else if (key == "packing") {
      if (!value.is_none()) packing().layout = layout_of(nb::cast<std::string_view>(value));
    } else if (key == "inline_escapes") {
      if (options_.packing || nb::cast<std::uint32_t>(value) != 0)
        packing().inline_escapes = nb::cast<std::uint32_t>(value);
    } else if (key == "codebooks") {
      if (!value.is_none())
        options_.books = unwrap(codebook_set::from_json(nb::cast<std::string_view>(value)));
    } else if (key == "include") {
      options_.include = nb::cast<std::vector<std::string>>(value);
    } else if (key == "exclude") {
      options_.exclude = nb::cast<std::vector<std::string>>(value);
    } else if (key == "overwrite") {
      options_.overwrite = nb::cast<bool>(value);
    } else if (key == "verify") {
      options_.verify = nb::cast<bool>(value);
    } else if (key == "remove_source") {
      options_.remove_source = nb::cast<bool>(value);
    } else if (key == "dry_run") {
      options_.dry_run = nb::cast<bool>(value);
    } else if (key == "use_mmap") {
      options_.read = nb::cast<bool>(value) ? read_mode::mmap : read_mode::pread;
    } else if (key == "progress") {
      if (!value.is_none()) callback_ = nb::borrow(value);
    } else {
      raise({.code = errc::invalid_argument, .message = "unknown option '" + key + "'"});
    }
  }

  pack_options& packing() {
    if (!options_.packing) options_.packing.emplace();
    return *options_.packing;
  }

  void report(const progress& p) {
    const nb::gil_scoped_acquire acquire;
    if (raised_) return;
    try {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      if (callback_.is_valid()) callback_(p.done, p.total, text_of(p.file));
    } catch (...) {
      raised_ = std::current_exception();
      cancelled_ = true;
    }
  }

  model_options options_;
  nb::object callback_;
  std::exception_ptr raised_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace tersor::python
