// A library with the calls that the transport "nccl" makes of the CUDA driver and of NCCL, over the memory
// and the threads of one process: its order of calls, its waits and its clean-up can be tested where there is
// no GPU. Streams run their work one after another on threads of their own; a send waits for its receive.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

constexpr int kOk = 0, kNotReady = 600, kInProgress = 7, kFault = 2;

/// Work in order, as on a stream.
class stream {
 public:
  stream() : worker_([this] { run(); }) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
  ~stream() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }
  void add(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_all();
  }
  void synchronize() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const auto work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false, busy_ = false;
  std::thread worker_;
};

/// The newest record of an event: not ready until the stream comes to it.
struct event {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t recorded = 0, reached = 0;
};

/// What two ranks share. A message is handed over when both are there.
struct meeting {
  std::mutex mutex;
  std::condition_variable changed;
  int n_ranks = 0;
  bool aborted = false;
  std::deque<std::string> messages;
  std::uint64_t n_sent = 0, n_taken = 0;
};

struct communicator {
  std::shared_ptr<meeting> with;
};

std::mutex g_mutex;
std::map<std::string, std::shared_ptr<meeting>> g_meetings;
std::atomic<int> g_next_id = 1;

}  // namespace

extern "C" {

int cuInit(unsigned) {
  return kOk;
}
int cuGetErrorString(int, const char** text) {
  *text = "fake error";
  return kOk;
}
int cuDriverGetVersion(int* version) {
  *version = 1;
  return kOk;
}
int cuDeviceGetCount(int* n) {
  *n = 1;
  return kOk;
}
int cuDeviceGet(int* device, int) {
  *device = 0;
  return kOk;
}
int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "fake device", static_cast<std::size_t>(size));
  return kOk;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
  static int context_of_all = 0;
  *context = &context_of_all;
  return kOk;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  return kOk;
}
int cuCtxPushCurrent_v2(void*) {
  return kOk;
}
int cuCtxPopCurrent_v2(void** context) {
  *context = nullptr;
  return kOk;
}
int cuMemAlloc_v2(unsigned long long* memory, std::size_t size) {
  *memory = reinterpret_cast<std::uintptr_t>(std::malloc(size));
  return kOk;
}
int cuMemFree_v2(unsigned long long memory) {
  std::free(reinterpret_cast<void*>(memory));
  return kOk;
}
int cuMemHostRegister_v2(void*, std::size_t, unsigned) {
  return kOk;
}
int cuMemHostUnregister(void*) {
  return kOk;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t size, stream* on) {
  on->add([=] { std::memcpy(reinterpret_cast<void*>(to), from, size); });
  return kOk;
}
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t size, stream* on) {
  on->add([=] { std::memcpy(to, reinterpret_cast<const void*>(from), size); });
  return kOk;
}
int cuStreamCreate(stream** made, unsigned) {
  *made = new stream;
  return kOk;
}
int cuStreamSynchronize(stream* s) {
  s->synchronize();
  return kOk;
}
int cuStreamDestroy_v2(stream* s) {
  delete s;
  return kOk;
}
int cuEventCreate(event** made, unsigned) {
  *made = new event;
  return kOk;
}
int cuEventDestroy_v2(event* e) {
  delete e;
  return kOk;
}
int cuEventRecord(event* e, stream* on) {
  const std::lock_guard lock(e->mutex);
  const std::uint64_t mine = ++e->recorded;
  on->add([=] {
    const std::lock_guard inner(e->mutex);
    e->reached = mine;
    e->changed.notify_all();
  });
  return kOk;
}
int cuEventQuery(event* e) {
  const std::lock_guard lock(e->mutex);
  return e->reached == e->recorded ? kOk : kNotReady;
}
int cuStreamWaitEvent(stream* s, event* e, unsigned) {
  const std::lock_guard lock(e->mutex);
  const std::uint64_t wanted = e->recorded;
  s->add([=] {
    std::unique_lock inner(e->mutex);
    e->changed.wait(inner, [&] { return e->reached >= wanted; });
  });
  return kOk;
}

struct fake_id {
  char bytes[128];
};
struct fake_config;

int ncclGetVersion(int* version) {
  *version = 21'400;
  return kOk;
}
const char* ncclGetErrorString(int) {
  return "fake fault";
}
int ncclGetUniqueId(fake_id* id) {
  std::memset(id->bytes, 0, sizeof id->bytes);
  const std::string name = "meeting " + std::to_string(g_next_id++);
  std::memcpy(id->bytes, name.c_str(), name.size());
  return kOk;
}
int ncclCommInitRankConfig(communicator** made, int, fake_id id, int, fake_config*) {
  const std::lock_guard lock(g_mutex);
  auto& with = g_meetings[std::string(id.bytes, sizeof id.bytes)];
  if (with == nullptr) with = std::make_shared<meeting>();
  const std::lock_guard inner(with->mutex);
  ++with->n_ranks;
  *made = new communicator{with};
  return kInProgress;
}
int ncclCommGetAsyncError(communicator* c, int* state) {
  const std::lock_guard lock(c->with->mutex);
  *state = c->with->aborted ? kFault : c->with->n_ranks < 2 ? kInProgress : kOk;
  return kOk;
}
int ncclCommAbort(communicator* c) {
  {
    const std::lock_guard lock(c->with->mutex);
    c->with->aborted = true;
    c->with->changed.notify_all();
  }
  // Work that was begun holds the meeting, not the communicator.
  delete c;
  return kOk;
}
int ncclSend(const void* data, std::size_t size, int, int, communicator* c, stream* on) {
  on->add([=, with = c->with] {
    std::unique_lock lock(with->mutex);
    const std::uint64_t mine = ++with->n_sent;
    with->messages.emplace_back(static_cast<const char*>(data), size);
    with->changed.notify_all();
    with->changed.wait(lock, [&] { return with->aborted || with->n_taken >= mine; });
  });
  return kOk;
}
int ncclRecv(void* data, std::size_t size, int, int, communicator* c, stream* on) {
  on->add([=, with = c->with] {
    std::unique_lock lock(with->mutex);
    with->changed.wait(lock, [&] { return with->aborted || !with->messages.empty(); });
    if (with->messages.empty()) return;
    const std::string& m = with->messages.front();
    std::memcpy(data, m.data(), std::min(size, m.size()));
    with->messages.pop_front();
    ++with->n_taken;
    with->changed.notify_all();
  });
  return kOk;
}

}  // extern "C"
