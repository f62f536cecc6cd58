// gpu_link --kv FILE [--json FILE] [--nccl LIBRARY] [--mb 16,64] [--codecs rank,top16] [--methods
// pull,push,copy,automatic]
//   [--parts FIRST:MOST,... in MB] [--slots N] [--seconds S] [--commit TEXT] [--only peers|host|processes]
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "gpu_link_bench.hpp"

namespace {

using namespace tersor;
using namespace tersor::bench;
using transfer::link_method;

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> all;
  std::stringstream in(text);
  for (std::string one; std::getline(in, one, at);) all.push_back(one);
  return all;
}

bool set_list(link_bench_options& o, const std::string& name, const std::string& value) {
  const auto items = split(value, ',');
  if (name == "--mb") {
    o.megabytes.clear();
    for (const auto& item : items) o.megabytes.push_back(std::strtoull(item.c_str(), nullptr, 10));
  } else if (name == "--codecs") {
    o.codecs.clear();
    for (const auto& item : items) o.codecs.push_back(item == "rank" ? codec::rank : codec::top16);
  } else if (name == "--methods") {
    o.methods.clear();
    for (const auto& item : items)
      o.methods.push_back(item == "pull"   ? link_method::pull
                          : item == "push" ? link_method::push
                          : item == "copy" ? link_method::copy
                                           : link_method::automatic);
  } else if (name == "--parts") {
    o.part_sizes.clear();
    for (const auto& item : items) {
      const auto pair = split(item, ':');
      if (pair.size() != 2) return false;
      o.part_sizes.push_back({.first_bytes = std::strtoull(pair[0].c_str(), nullptr, 10) << 20,
                              .most_bytes = std::strtoull(pair[1].c_str(), nullptr, 10) << 20});
    }
  } else {
    return false;
  }
  return true;
}

bool set(link_bench_options& o, const std::string& name, const std::string& value) {
  if (name == "--kv") {
    o.kv = value;
  } else if (name == "--json") {
    o.json = value;
  } else if (name == "--nccl") {
    o.nccl = value;
  } else if (name == "--commit") {
    o.commit = value;
  } else if (name == "--seconds") {
    o.seconds = std::atof(value.c_str());
  } else if (name == "--slots") {
    for (auto& sizes : o.part_sizes) sizes.n_slots = static_cast<std::uint32_t>(std::atoi(value.c_str()));
  } else if (name == "--only") {
    o.peers = value == "peers";
    o.host = value == "host";
    o.processes = value == "processes";
  } else {
    return set_list(o, name, value);
  }
  return true;
}

int report_error(const char* step, const status& s) {
  if (s) return 0;
  std::fprintf(stderr, "gpu_link: %s: %s\n", step, s.error().describe().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  link_bench_options o;
  for (int i = 0; i < argc; ++i) {
    // Where the report goes is no part of what was measured.
    if (std::string_view(argv[i]) == "--json") {
      ++i;
    } else {
      o.command += (i == 0 ? "" : " ") + std::string(argv[i]);
    }
  }
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!set(o, argv[i], argv[i + 1])) {
      std::fprintf(stderr, "gpu_link: cannot use %s %s\n", argv[i], argv[i + 1]);
      return 2;
    }
  }
  if (o.kv.empty()) {
    std::fprintf(stderr, "gpu_link: --kv FILE is needed\n");
    return 2;
  }
  int failed = 0;
  // First, because a process that forks must not have touched CUDA.
  if (o.processes) failed += run_process_test(o);
  link_report report(o);
  if (o.peers) failed += report_error("peers", bench_peers(o, report));
  if (o.host) failed += report_error("host", bench_host(o, report));
  return failed == 0 ? 0 : 1;
}
