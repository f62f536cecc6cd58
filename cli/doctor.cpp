#include <cstdlib>
#include <fstream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "codec_bench.hpp"
#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include <tersor/cuda.hpp>
#include <tersor/version.hpp>

#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor doctor                            what this machine and build can do\n"
    "  tersor doctor --json | jq -r .backend    only the chosen backend\n"
    "  TERSOR_BACKEND=avx2 tersor doctor        force a backend and see whether it can run\n"
    "\n"
    "Exit codes: 0 a backend was chosen, 2 none can run.";

/// What follows the first "key :" of a file of /proc; empty without it.
std::string proc_value(const char* path, std::string_view key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    const auto first = line.find_first_not_of(" \t", colon + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return {};
}

std::uint64_t memory_value(std::string_view key) {
  return std::strtoull(proc_value("/proc/meminfo", key).c_str(), nullptr, 10) * 1024;
}

std::vector<std::pair<std::string, std::string>> library_versions() {
  auto list = bench::peer_versions();
  list.emplace_back("CLI11", CLI11_VERSION);
  list.emplace_back("fmt",
                    fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100));
  list.emplace_back("nlohmann_json", json_library_version());
  list.emplace_back("tl-expected", fmt::format("{}.{}.{}", TL_EXPECTED_VERSION_MAJOR,
                                               TL_EXPECTED_VERSION_MINOR, TL_EXPECTED_VERSION_PATCH));
#ifdef __GLIBC__
  list.emplace_back("glibc", ::gnu_get_libc_version());
#endif
  return list;
}

machine_report examine() {
  machine_report machine;
  if (auto gpus = cuda::devices()) {
    machine.gpus = *std::move(gpus);
  } else {
    machine.gpu_error = gpus.error().message;
  }
  machine.backends = backends();
  machine.transports = transfer::transports();
  const char* forced = std::getenv("TERSOR_BACKEND");
  machine.forced = forced == nullptr ? "" : forced;
  if (const auto ctx = context::create()) {
    machine.backend = std::string(ctx->backend());
    machine.threads = ctx->threads();
  } else {
    machine.backend_error = ctx.error().describe();
    if (const auto scalar = context::create(0, "scalar")) machine.threads = scalar->threads();
  }
  machine.cpu = proc_value("/proc/cpuinfo", "model name");
  machine.memory_bytes = memory_value("MemTotal");
  machine.available_bytes = memory_value("MemAvailable");
  machine.page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream huge("/sys/kernel/mm/transparent_hugepage/enabled");
  std::getline(huge, machine.huge_pages);
#ifdef __VERSION__
  machine.compiler = __VERSION__;
#endif
  machine.libraries = library_versions();
  return machine;
}

std::string text_of(const machine_report& machine) {
  std::string text = fmt::format("tersor {}, frame format {}, container format {}\n\nbackends\n", kVersion,
                                 kFrameFormatVersion, kContainerFormatVersion);
  std::vector<std::vector<std::string>> rows;
  for (const auto& b : machine.backends) {
    rows.push_back({b.chosen ? "  *" : "   ", std::string(b.name),
                    b.supported ? "runs here" : "does not run here", b.reason});
  }
  for (const auto& gpu : machine.gpus) {
    rows.push_back(
        {"   ", fmt::format("cuda:{}", gpu.index), "runs here",
         fmt::format("{}, compute capability {}.{}, {}, driver {}", printable(gpu.name), gpu.compute_major,
                     gpu.compute_minor, human_bytes(gpu.memory_bytes), printable(gpu.driver))});
  }
  if (machine.gpus.empty()) rows.push_back({"   ", "cuda", "does not run here", machine.gpu_error});
  text += table(rows, 4);
  text += machine.backend.empty() ? fmt::format("  none chosen: {}\n", machine.backend_error)
                                  : fmt::format("  chosen: {}{}\n", machine.backend,
                                                machine.forced.empty() ? "" : ", forced by TERSOR_BACKEND");
  text += "\ntransports\n";
  rows.clear();
  for (const auto& t : machine.transports) {
    rows.push_back({"   ", t.name, t.available ? "works here" : "does not work here", printable(t.detail)});
  }
  text += table(rows, 4);
  text += fmt::format(
      "\nmachine\n  cpu         {}\n  cores       {} usable by this process\n  memory      {}, {} available\n"
      "  page        {} bytes\n  huge pages  {}\n\nbuilt with\n",
      machine.cpu.empty() ? "unknown" : machine.cpu, machine.threads, human_bytes(machine.memory_bytes),
      human_bytes(machine.available_bytes), machine.page_bytes,
      machine.huge_pages.empty() ? "unknown" : machine.huge_pages);
  rows = {{"  compiler", machine.compiler}};
  for (const auto& [name, version] : machine.libraries) rows.push_back({"  " + name, version});
  return text + table(rows, 2);
}

int run(const common_flags& flags) {
  const machine_report machine = examine();
  const int code = print(flags.json ? json_of(machine) : text_of(machine));
  if (code != kExitOk) return code;
  return machine.backend.empty() ? kExitCouldNot : kExitOk;
}

}  // namespace

void add_doctor(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<common_flags>();
  CLI::App* verb =
      program.add_subcommand("doctor", "backends found, which is chosen and why, machine, versions");
  verb->add_flag("--json", flags->json, "JSON alone on standard output");
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
