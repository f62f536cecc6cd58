// The GPU tests: one program without a test framework, so that it can be carried to a machine that has a GPU
// and nothing else.
//   gpu_test [--list] [--only NAME] [--quick] [--bare] [--watchdog SECONDS] [--vectors DIR] [--json FILE]
//   [--commit TEXT]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include "sections.hpp"

namespace {

using namespace gpu_test;

struct entry {
  const char* name;
  std::vector<int> rows;  ///< of docs/reliability.md
  void (*run)(const env&, section&);
  bool in_quick = true;
};

const std::vector<entry>& entries() {
  static const std::vector<entry> all = {
      {"conformance", {1, 2}, run_conformance},
      {"alignment", {24}, run_alignment},
      {"codebook", {2}, run_codebook},
      {"batch", {2}, run_batch},
      {"pages", {2}, run_pages},
      {"hostile", {3, 5}, run_hostile},
      {"graph", {23}, run_graph},
      {"determinism", {22}, run_determinism},
      {"streams", {24}, run_streams},
      {"huge", {16}, run_huge, false},
      {"capacity", {9}, run_capacity},
      {"errors", {}, run_errors},
      {"matrices", {2}, run_matrices},
      {"matrix_damage", {3, 5}, run_matrix_damage},
      {"gemm", {24, 25}, run_gemm},
      {"gemm_groups", {25}, run_gemm_groups},
      {"gemm_repeat", {22, 23, 24}, run_gemm_repeat},
      {"transfer", {26, 27}, run_transfer},
      {"link", {26}, run_link},
  };
  return all;
}

bool parse(int argc, char** argv, options& opt) {
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&](std::string& to) {
      if (i + 1 >= argc) return false;
      to = argv[++i];
      return true;
    };
    std::string number;
    if (arg == "--list") {
      opt.list = true;
    } else if (arg == "--quick") {
      opt.quick = true;
    } else if (arg == "--bare") {
      opt.bare = true;
    } else if (arg == "--watchdog" && value(number)) {
      opt.watchdog_s = std::atof(number.c_str());
    } else if (!(arg == "--only" && value(opt.only)) && !(arg == "--json" && value(opt.json)) &&
               !(arg == "--vectors" && value(opt.vectors)) && !(arg == "--commit" && value(opt.commit))) {
      return false;
    }
  }
  return opt.watchdog_s > 0;
}

machine_record read_machine(const options& opt) {
  machine_record m{.device = {}, .driver = {}, .commit = opt.commit, .date = {}, .quick = opt.quick};
  cudaDeviceProp properties{};
  must(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  m.device = properties.name;
  int version = 0;
  must(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  m.driver = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  const std::time_t now = std::time(nullptr);
  char text[32] = {};
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  m.date = text;
  return m;
}

/// A section that throws has failed; the others still run, as far as the device lets them.
void run_section(const entry& which, const env& e) {
  section& s = e.log.begin(which.name, which.rows);
  const auto begin = std::chrono::steady_clock::now();
  try {
    must(cudaSetDevice(0), "cudaSetDevice");
    which.run(e, s);
    must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    must(cudaGetLastError(), "cudaGetLastError");
  } catch (const std::exception& error) {
    s.check(false, error.what());
  }
  s.check(s.checks() != 0, "the section checked nothing");
  e.log.end(s, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

int run_all(const options& opt) {
  report log(opt.json);
  log.machine = read_machine(opt);
  std::printf("%s, driver %s, %s\n", log.machine.device.c_str(), log.machine.driver.c_str(),
              opt.quick ? "quick run" : "full run");
  auto cpu = tersor::context::create();
  auto single = tersor::context::create(1);
  if (!cpu || !single) throw std::runtime_error("no CPU backend");
  const env e{.opt = opt, .log = log, .cpu = std::move(*cpu), .single = std::move(*single)};
  bool any = false;
  for (const entry& which : entries()) {
    if (!opt.only.empty() ? opt.only != which.name : opt.quick && !which.in_quick) continue;
    run_section(which, e);
    any = true;
    if (!log.write()) throw std::runtime_error("cannot write " + opt.json);
  }
  if (!any) throw std::runtime_error("no section is called " + opt.only);
  std::printf("%s\n", log.failed() ? "FAILED" : "all sections passed");
  return log.failed() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  options opt;
  if (!parse(argc, argv, opt)) {
    std::fprintf(stderr,
                 "usage: gpu_test [--list] [--only NAME] [--quick] [--bare] [--watchdog SECONDS]\n"
                 "                [--vectors DIR] [--json FILE] [--commit TEXT]\n");
    return 2;
  }
  if (opt.list) {
    for (const entry& which : entries()) std::printf("%s\n", which.name);
    return 0;
  }
  try {
    return run_all(opt);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_test: %s\n", error.what());
    return 1;
  }
}
