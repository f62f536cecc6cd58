#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "codec_bench.hpp"
#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor bench codec                                 synthetic weights, one thread\n"
    "  tersor bench codec --input model.safetensors -T 2  a real model, two threads\n"
    "  tersor bench codec --codec rank,top16 --json       only these two, as JSON\n"
    "  TERSOR_BACKEND=avx2 tersor bench codec             another instruction set";

struct bench_flags {
  common_flags common;
  std::string device = "cpu";
  std::string input;
  std::string calibration_input;
  bool synthetic = false;
  std::vector<std::string> codecs;
  std::uint64_t size_mib = 256;
  unsigned repeats = 9;
  double seconds = 0;
};

std::string text_of(const bench::codec_bench_report& report) {
  const auto speed = [](double gb_s) { return fmt::format("{:.2f}", gb_s); };
  const auto share = [&](double gb_s) { return fmt::format("{:.2f}", gb_s / report.memcpy_gb_s); };
  std::vector<std::vector<std::string>> rows = {
      {"codec", "ratio", "encode GB/s", "/memcpy", "decode GB/s", "/memcpy", "encode, codebook inside"}};
  rows.push_back(
      {"memcpy", "1.000", speed(report.memcpy_gb_s), "1.00", speed(report.memcpy_gb_s), "1.00", "-"});
  for (const auto& row : report.rows) {
    rows.push_back({row.name, fmt::format("{:.3f}", row.ratio), speed(row.encode_gb_s),
                    share(row.encode_gb_s), speed(row.decode_gb_s), share(row.decode_gb_s),
                    row.encode_auto_gb_s ? speed(*row.encode_auto_gb_s) : "-"});
  }
  return fmt::format("{}: {} of BF16 in {} of memory, {} thread{}, backend {}, median of {} rounds\n\n",
                     printable(report.input), human_bytes(report.input_bytes), human_bytes(report.n_bytes),
                     report.threads, report.threads == 1 ? "" : "s", report.backend, report.rounds) +
         table(rows, 1) + "\nEvery contender gave the input back bit for bit.\n";
}

result<bench::codec_bench_report> bench_now(const bench_flags& flags) {
  if (flags.device != "cpu") {
    return fail(errc::backend_unavailable,
                fmt::format("device '{}' is not in this build; cpu is", flags.device));
  }
  bench::codec_bench_options options;
  options.threads = flags.common.threads == 0 ? 1 : flags.common.threads;
  if (!flags.input.empty()) options.input = flags.input;
  if (!flags.calibration_input.empty()) options.calibration_input = flags.calibration_input;
  options.codecs = flags.codecs;
  options.n_bytes = flags.size_mib << 20;
  options.repeats = flags.repeats;
  options.seconds = flags.seconds;
  progress_line line("bench", flags.common.quiet);
  options.on_round = [&](unsigned round, unsigned planned) {
    line.show(round == 0 ? std::string("bench: checking every contender")
                         : fmt::format("bench: round {} of {}", round, std::max(round, planned)));
  };
  return bench::run_codec_bench(options);
}

int run(const bench_flags& flags) {
  const auto report = bench_now(flags);
  if (!report) return report_error(report.error(), flags.common.json);
  for (const auto& name : report->absent) {
    if (!flags.common.quiet) print_warning(fmt::format("{} is not in this build; its row is absent", name));
  }
  return print(flags.common.json ? json_of(*report) : text_of(*report));
}

}  // namespace

void add_bench(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<bench_flags>();
  CLI::App* group = program.add_subcommand("bench", "measure");
  CLI::App* verb =
      group->add_subcommand("codec", "ratio and speed beside memcpy, zstd and lz4 on the same bytes");
  verb->add_option("--device", flags->device, "cpu")->type_name("NAME");
  verb->add_option("-T,--threads", flags->common.threads,
                   "threads of every contender, memcpy included; default: 1")
      ->type_name("N")
      ->check(CLI::Range(1U, 1024U).description(""));
  auto* input = verb->add_option("--input", flags->input, "the BF16 tensors of this file or directory")
                    ->type_name("SRC");
  verb->add_flag("--synthetic", flags->synthetic, "normally distributed values; the default")
      ->excludes(input);
  verb->add_option("--calibration-input", flags->calibration_input,
                   "take the codebook from here; default: the input")
      ->type_name("SRC");
  verb->add_option("--codec", flags->codecs,
                   "contenders: rank, top16, raw, zstd-1, zstd-3, lz4; default: all but raw")
      ->type_name("NAMES")
      ->delimiter(',');
  verb->add_option("--size", flags->size_mib, "memory that the input is repeated to; default: 256")
      ->type_name("MIB")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 20).description(""));
  verb->add_option("--repeats", flags->repeats, "rounds at least; default: 9")
      ->type_name("N")
      ->check(CLI::Range(1U, 100000U).description(""));
  verb->add_option("--seconds", flags->seconds, "go on until this much time has passed")
      ->type_name("S")
      ->check(CLI::Range(0.0, 1e6).description(""));
  verb->add_flag("--json", flags->common.json, "JSON alone on standard output, errors included");
  verb->add_flag("-q,--quiet", flags->common.quiet, "no progress or warnings");
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
