// A function on a stack of its own that can be left in the middle and gone on with later.
#pragma once

#include <csetjmp>
#include <cstddef>

#include <ucontext.h>

#include "asan.hpp"

namespace simt {

/// A stack with an inaccessible page below it, kept by the thread for the next fiber.
class fiber_stack {
 public:
  fiber_stack();
  ~fiber_stack();
  fiber_stack(const fiber_stack&) = delete;
  fiber_stack& operator=(const fiber_stack&) = delete;

  std::byte* begin() const { return begin_; }
  static std::size_t size();
  /// Forgets what an abandoned function left on the stack.
  void wipe();

 private:
  std::byte* begin_;
};

/// Lives on one OS thread. A fiber that is suspended may be started anew or destroyed: what stands on its
/// stack is abandoned, no destructor runs.
class fiber {
 public:
  using entry = void (*)(void*);

  /// The next resume() enters `function(argument)`.
  void start(entry function, void* argument);
  /// Runs the fiber until it suspends or its function returns.
  void resume();
  /// Inside the fiber: back to resume().
  void suspend();

 private:
  static void enter();
  void leave(bool for_good);

  fiber_stack stack_;
  entry function_ = nullptr;
  void* argument_ = nullptr;
  bool entered_ = false;
  ucontext_t context_{};
#ifdef TERSOR_SIMT_ASAN
  ucontext_t home_{};
  const void* home_stack_ = nullptr;
  std::size_t home_size_ = 0;
  void* fake_stack_ = nullptr;
#else
  std::jmp_buf home_{};
  std::jmp_buf inside_{};
#endif
};

}  // namespace simt
