// The C interface of Mooncake's transfer engine over the engine of a PyPI wheel, which exports only the C++
// one: to try the transport "mooncake" without building Mooncake. Fits 0.3.13.post1 (x86-64); the layout of a
// request changes between versions. The engine is a Python extension, so libpython is needed beside it:
//
//   pip install mooncake-transfer-engine-non-cuda==0.3.13.post1
//   dir=$(python3 -c 'import os, mooncake; print(os.path.dirname(mooncake.__file__))')
//   g++ -std=c++20 -O2 -fPIC -shared mooncake_adapter.cpp -o libtransfer_engine.so $dir/engine.so
//   -Wl,-rpath,$dir
//       -Wl,--no-as-needed $(python3-config --ldflags --embed)
//   TERSOR_MOONCAKE=$PWD/libtransfer_engine.so MC_LOG_LEVEL=ERROR tersor_transport_bench mooncake rank 64
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

// What the wheel exports, as far as it is called here.
namespace mooncake {

class Status {
 public:
  Status(const Status&) = delete;
  Status& operator=(const Status&) = delete;
  ~Status() { delete[] message_; }
  [[nodiscard]] int code() const { return code_; }

 private:
  std::uint16_t code_ = 0;
  const char* message_ = nullptr;
};

class Transport {
 public:
  struct TransferRequest {
    enum OpCode { READ, WRITE };
    OpCode opcode = READ;
    void* source = nullptr;
    std::uint64_t target_id = 0;
    std::uint64_t target_offset = 0;
    std::size_t length = 0;
    int advise_retry_cnt = 0;
    std::uint64_t task_group_id = ~std::uint64_t{0};
  };
  static_assert(sizeof(TransferRequest) == 56);
  struct TransferStatus {
    int s = 0;
    std::size_t transferred_bytes = 0;
  };
};

class TransferEngine {
 public:
  explicit TransferEngine(bool auto_discover);
  TransferEngine(const TransferEngine&) = delete;
  TransferEngine& operator=(const TransferEngine&) = delete;
  ~TransferEngine();
  int init(const std::string& metadata, const std::string& name, const std::string& host, std::uint64_t port);
  Transport* installTransport(const std::string& protocol, void** arguments);
  std::string getLocalIpAndPort();
  std::uint64_t openSegment(const std::string& name);
  int closeSegment(std::uint64_t segment);
  int registerLocalMemory(void* memory, std::size_t size, const std::string& location, bool remote,
                          bool update_metadata);
  int unregisterLocalMemory(void* memory, bool update_metadata);
  std::uint64_t allocateBatchID(std::size_t size);
  Status freeBatchID(std::uint64_t batch);
  Status submitTransfer(std::uint64_t batch, const std::vector<Transport::TransferRequest>& requests);
  Status getTransferStatus(std::uint64_t batch, std::size_t task, Transport::TransferStatus& status);

 private:
  char room_[512];  // the engine's members; it needs less
};

}  // namespace mooncake

namespace {

mooncake::TransferEngine& engine_of(void* engine) {
  return *static_cast<mooncake::TransferEngine*>(engine);
}

}  // namespace

extern "C" {

struct c_request {
  int opcode;
  void* source;
  std::int32_t target;
  std::uint32_t file;
  std::uint64_t target_offset, length;
};
struct c_status {
  int state;
  std::uint64_t transferred_bytes;
};

void* createTransferEngine(const char* metadata, const char* name, const char* host, std::uint64_t port,
                           int discover) {
  auto* const made = new mooncake::TransferEngine(discover != 0);
  if (made->init(metadata, name, host, port) == 0) return made;
  delete made;
  return nullptr;
}

void destroyTransferEngine(void* engine) {
  delete &engine_of(engine);
}

int getLocalIpAndPort(void* engine, char* out, std::size_t size) {
  (void)std::snprintf(out, size, "%s", engine_of(engine).getLocalIpAndPort().c_str());
  return 0;
}

void* installTransport(void* engine, const char* protocol, void** arguments) {
  return engine_of(engine).installTransport(protocol, arguments);
}

int registerLocalMemory(void* engine, void* memory, std::size_t size, const char* location, int remote) {
  return engine_of(engine).registerLocalMemory(memory, size, location, remote != 0, true);
}

int unregisterLocalMemory(void* engine, void* memory) {
  return engine_of(engine).unregisterLocalMemory(memory, true);
}

std::int32_t openSegment(void* engine, const char* name) {
  const std::uint64_t segment = engine_of(engine).openSegment(name);
  return segment > INT32_MAX ? -1 : static_cast<std::int32_t>(segment);
}

int closeSegment(void* engine, std::int32_t segment) {
  return engine_of(engine).closeSegment(static_cast<std::uint64_t>(segment));
}

std::uint64_t allocateBatchID(void* engine, std::size_t size) {
  return engine_of(engine).allocateBatchID(size);
}

int freeBatchID(void* engine, std::uint64_t batch) {
  return engine_of(engine).freeBatchID(batch).code();
}

int submitTransfer(void* engine, std::uint64_t batch, const c_request* requests, std::size_t n) {
  std::vector<mooncake::Transport::TransferRequest> native(n);
  for (std::size_t i = 0; i < n; ++i) {
    using request = mooncake::Transport::TransferRequest;
    native[i].opcode = requests[i].opcode == 0 ? request::READ : request::WRITE;
    native[i].source = requests[i].source;
    native[i].target_id = static_cast<std::uint64_t>(requests[i].target);
    native[i].target_offset = requests[i].target_offset;
    native[i].length = requests[i].length;
  }
  return engine_of(engine).submitTransfer(batch, native).code();
}

int getTransferStatus(void* engine, std::uint64_t batch, std::size_t task, c_status* out) {
  mooncake::Transport::TransferStatus now;
  const int code = engine_of(engine).getTransferStatus(batch, task, now).code();
  *out = {.state = now.s, .transferred_bytes = now.transferred_bytes};
  return code;
}

}  // extern "C"
