// Optional libraries that are opened at run time, so that programs without them still start.
#pragma once

#include <cstdlib>
#include <span>
#include <string>

#include <dlfcn.h>

namespace tersor::transfer {

/// A shared library that stays open: its threads and handlers outlive every call.
class open_library {
 public:
  /// The library that the environment `variable` names, and no other, if it is set; else the first of `names`
  /// that can be opened.
  open_library(const char* variable, std::span<const char* const> names) {
    if (const char* const path = std::getenv(variable); path != nullptr) {
      attempt(path);
      return;
    }
    for (const char* const name : names) {
      if (attempt(name)) return;
    }
  }

  [[nodiscard]] bool valid() const noexcept { return handle_ != nullptr; }
  /// Why it is not there.
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

  /// Notes the first name that is missing.
  template <class Function>
  void load(const char* name, Function& into) {
    into = reinterpret_cast<Function>(::dlsym(handle_, name));
    if (into == nullptr && reason_.empty()) reason_ = "it lacks " + std::string(name);
  }
  [[nodiscard]] bool complete() const noexcept { return valid() && reason_.empty(); }

 private:
  bool attempt(const char* name) {
    handle_ = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      reason_.clear();
    } else if (reason_.empty()) {
      const char* const why = ::dlerror();
      reason_ = why != nullptr ? why : name;
    }
    return handle_ != nullptr;
  }

  void* handle_ = nullptr;
  std::string reason_;
};

}  // namespace tersor::transfer
