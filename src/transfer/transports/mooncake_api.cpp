#include "transfer/transports/mooncake_api.hpp"

#include <array>

#include "transfer/transports/library.hpp"

namespace tersor::transfer {
namespace {

constexpr std::array<const char*, 1> kNames = {"libtransfer_engine.so"};

mooncake_api open_api() {
  mooncake_api api;
  open_library library("TERSOR_MOONCAKE", kNames);
  if (library.valid()) {
    library.load("createTransferEngine", api.create);
    library.load("destroyTransferEngine", api.destroy);
    library.load("getLocalIpAndPort", api.local_address);
    library.load("installTransport", api.install);
    library.load("registerLocalMemory", api.register_memory);
    library.load("unregisterLocalMemory", api.unregister_memory);
    library.load("openSegment", api.open_segment);
    library.load("closeSegment", api.close_segment);
    library.load("allocateBatchID", api.allocate_batch);
    library.load("freeBatchID", api.free_batch);
    library.load("submitTransfer", api.submit);
    library.load("getTransferStatus", api.query);
  }
  const char* const named = std::getenv("TERSOR_MOONCAKE");
  api.library = named != nullptr ? named : kNames[0];
  api.reason = library.reason();
  return api;
}

}  // namespace

const mooncake_api& find_mooncake() {
  static const mooncake_api kApi = open_api();
  return kApi;
}

}  // namespace tersor::transfer
