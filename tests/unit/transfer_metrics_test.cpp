// The page of counters: its text, and a server that answers one thing and is not held up.
#include <chrono>
#include <cstring>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transfer/http_request.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {
namespace {

using namespace std::chrono_literals;

std::string page() {
  return "tersor_transfer_parts_total{role=\"receiver\"} 7\n";
}

/// A connection of its own making, so that it can be rude.
class visit {
 public:
  explicit visit(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<const ::sockaddr*>(&address), sizeof address) == 0;
    const ::timeval limit{.tv_sec = 20, .tv_usec = 0};
    (void)::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  visit(const visit&) = delete;
  visit& operator=(const visit&) = delete;
  ~visit() { ::close(fd_); }

  [[nodiscard]] bool connected() const { return connected_; }
  bool say(std::string_view text) {
    return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<::ssize_t>(text.size());
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }
  /// Everything until the server closes.
  std::string hear() {
    std::string all;
    char bytes[4096];
    for (;;) {
      const ::ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
      if (n <= 0) return all;
      all.append(bytes, static_cast<std::size_t>(n));
    }
  }

 private:
  int fd_;
  bool connected_ = false;
};

std::string ask(std::uint16_t port, std::string_view request) {
  visit v(port);
  if (!v.connected() || !v.say(request)) return "no connection";
  return v.hear();
}

metrics_server start(std::function<std::string()> text = page) {
  auto server = metrics_server::listen({.host = "127.0.0.1", .port = 0}, std::move(text));
  if (!server) throw std::runtime_error(server.error().message);
  return std::move(*server);
}

TEST(TransferMetrics, TextHasHelpTypeAndValueOfEveryCounter) {
  transfer_counters counters;
  counters.connections = 3;
  counters.wire_bytes = 18'446'744'073'709'551'615U;
  counters.encode_seconds = 0.25;
  const std::string text = prometheus_text(counters, "receiver");
  std::set<std::string> helped;
  std::set<std::string> typed;
  std::set<std::string> valued;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string first, second, name, rest;
    words >> first >> second >> name >> rest;
    if (first == "#") {
      EXPECT_TRUE((second == "HELP" ? helped : typed).insert(name).second) << line;
      EXPECT_TRUE(second == "HELP" || rest == "counter") << line;
      continue;
    }
    EXPECT_TRUE(first.ends_with("_total{role=\"receiver\"}")) << line;
    EXPECT_TRUE(first.starts_with("tersor_transfer_")) << line;
    EXPECT_TRUE(valued.insert(first.substr(0, first.find('{'))).second) << line;
    EXPECT_FALSE(second.empty()) << line;
  }
  EXPECT_EQ(helped, typed);
  EXPECT_EQ(helped, valued);
  EXPECT_EQ(helped.size(), sizeof(transfer_counters) / 8);
  EXPECT_NE(text.find("tersor_transfer_connections_total{role=\"receiver\"} 3\n"), std::string::npos);
  EXPECT_NE(text.find("wire_bytes_total{role=\"receiver\"} 18446744073709551615\n"), std::string::npos);
  EXPECT_NE(text.find("encode_seconds_total{role=\"receiver\"} 0.25\n"), std::string::npos);
}

TEST(TransferMetrics, LabelsAreEscaped) {
  const std::string text = prometheus_text({}, "a\"b\\c\nd");
  EXPECT_NE(text.find("{role=\"a\\\"b\\\\c\\nd\"} 0\n"), std::string::npos);
}

TEST(TransferMetrics, AnswersOneThing) {
  const auto status_of = [](std::string_view request) { return answer_to(request, page).substr(9, 3); };
  EXPECT_EQ(status_of("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
  EXPECT_EQ(status_of("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "200");
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), "404");
  EXPECT_EQ(status_of("GET /metrics/ HTTP/1.1\r\n\r\n"), "404");
  EXPECT_EQ(status_of("GET http://x/metrics HTTP/1.1\r\n\r\n"), "404");
  EXPECT_EQ(status_of("POST /metrics HTTP/1.1\r\n\r\n"), "405");
  EXPECT_EQ(status_of("HEAD /metrics HTTP/1.1\r\n\r\n"), "405");
  EXPECT_EQ(status_of("get /metrics HTTP/1.1\r\n\r\n"), "405");
  EXPECT_EQ(status_of("GET /metrics HTTP/2\r\n\r\n"), "400");
  EXPECT_EQ(status_of("GET  /metrics HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status_of("GET /met\x01rics HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status_of("GET /metrics\r\n\r\n"), "400");
  EXPECT_EQ(status_of("\r\n\r\n"), "400");
  EXPECT_EQ(status_of(std::string(3, '\0') + "\r\n\r\n"), "400");
  EXPECT_EQ(status_of("GET /metrics HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n"), "431");
  EXPECT_EQ(answer_to("GET /metrics HTTP/1.1\r\n\r\n", []() -> std::string { throw std::runtime_error("x"); })
                .substr(9, 3),
            "500");
}

TEST(TransferMetrics, ServesOverHttp) {
  const metrics_server server = start();
  EXPECT_NE(server.address().port, 0);
  const std::string answer = ask(server.address().port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("Content-Type: text/plain; version=0.0.4"), std::string::npos);
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n" + page())) << answer;
}

TEST(TransferMetrics, RequestInPiecesAndHalfClosed) {
  const metrics_server server = start();
  visit v(server.address().port);
  for (const char c : std::string("GET /metrics HTTP/1.1\r\n\r\n")) {
    ASSERT_TRUE(v.say(std::string_view(&c, 1)));
    std::this_thread::sleep_for(1ms);
  }
  v.half_close();
  EXPECT_TRUE(v.hear().ends_with(page()));
}

TEST(TransferMetrics, LargeAnswersArriveWhole) {
  const std::string large(std::size_t{8} << 20, 'm');
  const metrics_server server = start([&] { return large; });
  EXPECT_TRUE(ask(server.address().port, "GET /metrics HTTP/1.1\r\n\r\n").ends_with(large));
}

TEST(TransferMetrics, EndlessRequestsAreCutOff) {
  const metrics_server server = start();
  visit v(server.address().port);
  const std::string junk(4096, 'x');
  bool sent = true;
  for (int i = 0; i < 3 && sent; ++i) sent = v.say(junk);
  EXPECT_TRUE(v.hear().starts_with("HTTP/1.1 431 "));
}

TEST(TransferMetrics, SlowPeersHoldUpNobodyAndAreDropped) {
  const metrics_server server = start();
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<visit>> slow;
  for (int i = 0; i < 8; ++i) {
    slow.push_back(std::make_unique<visit>(server.address().port));
    ASSERT_TRUE(slow.back()->say("GET /met"));
  }
  EXPECT_TRUE(ask(server.address().port, "GET /metrics HTTP/1.1\r\n\r\n").ends_with(page()));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 3s);
  // One byte a while does not extend the deadline.
  for (int i = 0; i < 20 && slow[0]->say("r"); ++i) std::this_thread::sleep_for(400ms);
  EXPECT_EQ(slow[1]->hear(), "");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 15s);
}

TEST(TransferMetrics, DestructionDoesNotWaitForPeers) {
  const auto begin = std::chrono::steady_clock::now();
  {
    const metrics_server server = start();
    const visit silent(server.address().port);
    const metrics_server other = start();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST(TransferMetrics, RefusesWhatIsNotLoopback) {
  for (const char* host : {"0.0.0.0", "::", "192.0.2.1", "example.invalid"}) {
    const auto server = metrics_server::listen({.host = host, .port = 0}, page);
    ASSERT_FALSE(server.has_value()) << host;
    EXPECT_EQ(server.error().code, errc::invalid_argument) << host;
  }
}

TEST(TransferMetrics, PortInUse) {
  const metrics_server first = start();
  const auto second = metrics_server::listen(first.address(), page);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, errc::io_error);
}

}  // namespace
}  // namespace tersor::transfer
