#include <cstdio>
#include <ctime>
#include <fstream>

#include <nlohmann/json.hpp>

#include "gpu_link_bench.hpp"

namespace tersor::bench {

using namespace transfer::device;

namespace {

std::string now() {
  const std::time_t t = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&t, &utc);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// The same size over the same link, raw: what a row is compared with.
const link_row* find_raw(const std::vector<link_row>& rows, const link_row& row, const std::string& method) {
  for (const link_row& other : rows) {
    if (other.link == row.link && other.n_bytes == row.n_bytes && other.method == method) return &other;
  }
  return nullptr;
}

}  // namespace

status link_report::add(link_row row) {
  const link_row* raw = find_raw(rows_, row, row.link == "peer" ? "nccl" : "memcpy");
  if (raw == nullptr) raw = find_raw(rows_, row, "memcpy");
  std::printf(
      "%-6s %5llu MB %-10s %-6s parts %3llu..%3llu MB: %9.1f us %7.1f GB/s, single %9.1f us, ratio %.3f",
      row.link.c_str(), static_cast<unsigned long long>(row.n_bytes >> 20), row.method.c_str(),
      row.codec.c_str(), static_cast<unsigned long long>(row.first_bytes >> 20),
      static_cast<unsigned long long>(row.most_bytes >> 20), row.us, row.gb_s(), row.single_us, row.ratio);
  if (raw != nullptr)
    std::printf(", x%.3f (single x%.3f) of %s", raw->us / row.us, raw->single_us / row.single_us,
                raw->method.c_str());
  std::printf("\n");
  std::fflush(stdout);
  rows_.push_back(std::move(row));
  return write();
}

status link_report::write() const {
  if (options_.json.empty()) return {};
  nlohmann::ordered_json j;
  cudaDeviceProp properties{};
  int count = 0, driver = 0;
  TERSOR_CHECK(ok(cudaGetDeviceCount(&count), "devices"));
  TERSOR_CHECK(ok(cudaGetDeviceProperties(&properties, 0), "device properties"));
  TERSOR_CHECK(ok(cudaDriverGetVersion(&driver), "driver"));
  j["device"] = properties.name;
  j["n_devices"] = count;
  j["driver"] = std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
  j["commit"] = options_.commit;
  j["date"] = now();
  j["command"] = options_.command;
  for (const auto& [key, value] : notes_) j[key] = value;
  j["rows"] = nlohmann::ordered_json::array();
  for (const link_row& row : rows_) {
    nlohmann::ordered_json r = {{"link", row.link},
                                {"method", row.method},
                                {"codec", row.codec},
                                {"n_bytes", row.n_bytes},
                                {"first_bytes", row.first_bytes},
                                {"most_bytes", row.most_bytes},
                                {"us", row.us},
                                {"single_us", row.single_us},
                                {"gb_s", row.gb_s()},
                                {"ratio", row.ratio},
                                {"exact", row.exact}};
    for (const char* method : {"memcpy", "nccl"}) {
      const link_row* raw = find_raw(rows_, row, method);
      if (raw == nullptr || raw->method == row.method) continue;
      r[std::string("speedup_over_") + method] = raw->us / row.us;
      r[std::string("single_speedup_over_") + method] = raw->single_us / row.single_us;
    }
    j["rows"].push_back(std::move(r));
  }
  std::ofstream out(options_.json);
  out << j.dump(1) << '\n';
  return out ? status{} : fail(errc::io_error, "cannot write " + options_.json);
}

}  // namespace tersor::bench
