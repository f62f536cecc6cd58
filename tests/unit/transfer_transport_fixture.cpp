#include "transfer_transport_fixture.hpp"

#include <filesystem>
#include <future>

namespace tersor::transfer::testing {

void transport_test::SetUp() {
  auto found = find_transport(GetParam());
  ASSERT_TRUE(found) << found.error().describe();
  subject_ = *found;
}

std::unique_ptr<listener> transport_test::open_door(const std::string& host) const {
  auto door = subject().listen({.host = host, .port = 0}, test_certificates());
  if (!door) {
    ADD_FAILURE() << door.error().describe();
    return nullptr;
  }
  EXPECT_NE((*door)->address().port, 0);
  return std::move(*door);
}

ends transport_test::make_ends(const std::string& host) const {
  ends e = {.door = open_door(host), .client = {}, .server = {}};
  if (e.door == nullptr) return e;
  const endpoint to = {.host = host, .port = e.door->address().port};
  auto connecting =
      std::async(std::launch::async, [&] { return subject().connect(to, soon(), test_certificates()); });
  auto accepted = e.door->accept(soon());
  auto connected = connecting.get();
  if (accepted && connected) {
    e.server = std::move(*accepted);
    e.client = std::move(*connected);
    // TLS shakes hands with the first byte, for which both ends must be at work.
    auto greeting = std::async(std::launch::async, [&] { return send_text(*e.client, "."); });
    std::byte dot = {};
    EXPECT_TRUE(e.server->receive({&dot, 1}, soon()));
    EXPECT_TRUE(greeting.get());
  } else {
    ADD_FAILURE() << (accepted ? "" : accepted.error().describe()) << " / "
                  << (connected ? "" : connected.error().describe());
  }
  return e;
}

std::vector<std::string> available_transports() {
  std::vector<std::string> names;
  for (const transport_info& info : transports()) {
    if (info.available) names.push_back(info.name);
  }
  return names;
}

process_usage count_usage() {
  const auto count = [](const char* folder) {
    std::error_code ignored;
    std::size_t n = 0;
    for (std::filesystem::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) ++n;
    return n;
  };
  return {.descriptors = count("/proc/self/fd"), .threads = count("/proc/self/task")};
}

}  // namespace tersor::transfer::testing
