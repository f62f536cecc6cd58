// The fortified longjmp takes a jump to another stack for a mistake.
#undef _FORTIFY_SOURCE

#include "fiber.hpp"

#include <new>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#ifdef TERSOR_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

/// The stacks that this thread's fibers no longer need.
struct spare_stacks {
  std::vector<std::byte*> begins;
  ~spare_stacks() {
    for (std::byte* begin : begins) {
      munmap(begin - page_size(), fiber_stack::size() + page_size());
    }
  }
};
thread_local spare_stacks spares;

std::byte* map_stack() {
  const std::size_t total = fiber_stack::size() + page_size();
  void* at = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED || mprotect(at, page_size(), PROT_NONE) != 0) {
    throw std::bad_alloc();
  }
  return static_cast<std::byte*>(at) + page_size();
}

thread_local fiber* entering = nullptr;

}  // namespace

std::size_t fiber_stack::size() {
#ifdef TERSOR_SIMT_ASAN
  return std::size_t{256} << 10;
#else
  return std::size_t{64} << 10;
#endif
}

fiber_stack::fiber_stack() {
  if (spares.begins.empty()) {
    begin_ = map_stack();
    return;
  }
  begin_ = spares.begins.back();
  spares.begins.pop_back();
}

fiber_stack::~fiber_stack() {
  wipe();
  spares.begins.push_back(begin_);
}

void fiber_stack::wipe() {
#ifdef TERSOR_SIMT_ASAN
  __asan_unpoison_memory_region(begin_, size());
#endif
}

void fiber::start(entry function, void* argument) {
  function_ = function;
  argument_ = argument;
  entered_ = false;
  stack_.wipe();
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_.begin();
  context_.uc_stack.ss_size = fiber_stack::size();
  context_.uc_link = nullptr;
  makecontext(&context_, &fiber::enter, 0);
}

void fiber::suspend() {
  leave(false);
}

#ifdef TERSOR_SIMT_ASAN

void fiber::enter() {
  fiber* self = entering;
  // swapcontext clears ASan's knowledge of the whole stack that it goes to, unless the stack is empty.
  self->context_.uc_stack.ss_size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &self->home_stack_, &self->home_size_);
  self->function_(self->argument_);
  self->leave(true);
}

void fiber::resume() {
  entering = this;
  entered_ = true;
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, stack_.begin(), fiber_stack::size());
  swapcontext(&home_, &context_);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void fiber::leave(bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, home_stack_, home_size_);
  swapcontext(&context_, &home_);
  __sanitizer_finish_switch_fiber(fake_stack_, &home_stack_, &home_size_);
}

#else

void fiber::enter() {
  fiber* self = entering;
  self->function_(self->argument_);
  self->leave(true);
}

// _setjmp and _longjmp leave the signal mask alone: swapcontext would ask the kernel at every switch.
void fiber::resume() {
  if (_setjmp(home_) != 0) {
    return;
  }
  if (entered_) {
    _longjmp(inside_, 1);
  }
  entered_ = true;
  entering = this;
  setcontext(&context_);
}

void fiber::leave(bool /*for_good*/) {
  if (_setjmp(inside_) == 0) {
    _longjmp(home_, 1);
  }
}

#endif

}  // namespace simt
