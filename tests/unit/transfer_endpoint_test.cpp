#include <gtest/gtest.h>

#include "transfer/transports/channel.hpp"

namespace tersor::transfer {
namespace {

TEST(endpoint, parses_and_prints) {
  for (const char* text :
       {"127.0.0.1:0", "localhost:65535", "[::1]:80", "[fe80::1%eth0]:1", "a.example:443"}) {
    const auto e = parse_endpoint(text);
    ASSERT_TRUE(e) << text;
    EXPECT_EQ(to_string(*e), text);
  }
  EXPECT_EQ(parse_endpoint("[::1]:80")->host, "::1");
}

TEST(endpoint, refuses_what_is_not_one) {
  for (const char* text :
       {"", ":", ":80", "host", "host:", "host:65536", "host:-1", "host:+1", "host: 1", "host:1x", "::1:80",
        "[::1]", "[::1]:", "[::1]80", "[::1:80", "]:80", "[]:80", "a b:80", "[a]b:80"}) {
    const auto e = parse_endpoint(text);
    ASSERT_FALSE(e) << text;
    EXPECT_EQ(e.error().code, errc::invalid_argument);
  }
  EXPECT_FALSE(parse_endpoint(std::string(300, 'a') + ":1"));
  EXPECT_FALSE(parse_endpoint(std::string_view("a\0b:1", 5)));
}

TEST(endpoint, knows_loopback) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "::1", "localhost"})
    EXPECT_TRUE(is_loopback({host, 1})) << host;
  for (const char* host :
       {"0.0.0.0", "128.0.0.1", "::", "::2", "127.0.0.1.example", "127.1", "", "localhost.example"})
    EXPECT_FALSE(is_loopback({host, 1})) << host;
}

TEST(transport, unknown_names_are_refused_with_the_known_ones) {
  const auto t = find_transport("pigeon");
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, errc::invalid_argument);
  EXPECT_NE(t.error().message.find("tcp"), std::string::npos);
}

TEST(transport, each_says_what_it_found) {
  bool has_tcp = false;
  for (const transport_info& info : transports()) {
    EXPECT_FALSE(info.detail.empty()) << info.name;
    const auto t = find_transport(info.name);
    EXPECT_EQ(t.has_value(), info.available) << info.name;
    if (!t) {
      EXPECT_EQ(t.error().code, errc::backend_unavailable) << info.name;
    }
    has_tcp |= info.name == "tcp" && info.available;
  }
  EXPECT_TRUE(has_tcp);
}

}  // namespace
}  // namespace tersor::transfer
