// What is called of Mooncake's transfer engine: its C interface, opened at run time (TERSOR_MOONCAKE names
// the library). Declared here, as its packages bring no header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <tersor/error.hpp>

namespace tersor::transfer {

struct mooncake_request {
  int opcode = 1;  ///< 0 reads, 1 writes
  void* source = nullptr;
  std::int32_t target = 0;
  std::uint32_t file = 0;
  std::uint64_t target_offset = 0;
  std::uint64_t length = 0;
};

struct mooncake_status {
  int state = 0;
  std::uint64_t transferred_bytes = 0;
};
inline constexpr int kMooncakePending = 1,
                     kMooncakeCompleted = 4;  // below and up to `pending`: still under way

using mooncake_engine = void*;
using mooncake_batch = std::uint64_t;
inline constexpr mooncake_batch kNoBatch = ~mooncake_batch{0};

struct mooncake_api {
  mooncake_engine (*create)(const char* metadata, const char* name, const char* host, std::uint64_t port,
                            int discover) = nullptr;
  void (*destroy)(mooncake_engine) = nullptr;
  int (*local_address)(mooncake_engine, char*, std::size_t) = nullptr;
  void* (*install)(mooncake_engine, const char* protocol, void** arguments) = nullptr;
  int (*register_memory)(mooncake_engine, void*, std::size_t, const char* location, int remote) = nullptr;
  int (*unregister_memory)(mooncake_engine, void*) = nullptr;
  std::int32_t (*open_segment)(mooncake_engine, const char* name) = nullptr;
  int (*close_segment)(mooncake_engine, std::int32_t) = nullptr;
  mooncake_batch (*allocate_batch)(mooncake_engine, std::size_t) = nullptr;
  int (*free_batch)(mooncake_engine, mooncake_batch) = nullptr;
  int (*submit)(mooncake_engine, mooncake_batch, mooncake_request*, std::size_t) = nullptr;
  int (*query)(mooncake_engine, mooncake_batch, std::size_t task, mooncake_status*) = nullptr;

  std::string library;
  std::string reason;  ///< why it cannot be used; empty if it can
};

/// Opened by the first call, for good.
[[nodiscard]] const mooncake_api& find_mooncake();

}  // namespace tersor::transfer
