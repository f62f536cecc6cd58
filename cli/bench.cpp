#include <algorithm>
#include <memory>
#include <optional>
#include <span>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench_gpu.hpp"
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
    "  TERSOR_BACKEND=avx2 tersor bench codec             another instruction set\n"
    "  tersor bench codec --device cuda:0 --pages --graph --output gpu.json\n"
    "                                                     a GPU, with paged KV caches";

struct bench_flags {
  common_flags common;
  std::string device = "cpu";
  std::string input;
  std::string calibration_input;
  bool synthetic = false;
  std::vector<std::string> codecs;
  std::uint64_t size_mib = 256;
  std::optional<unsigned> repeats;
  double seconds = 0;
  std::uint64_t chunk_values = 0;
  bool calibrate_on_input = false;
  gpu_flags gpu;
  std::vector<std::string> given;  ///< options of the command line that only one kind of device has
};

constexpr const char* kGpuOptions[] = {"--rows",   "--hidden-dim", "--data",   "--dtype",     "--warmup",
                                       "--iters",  "--graph",      "--pages",  "--kv-tokens", "--kv-layers",
                                       "--output", "--plot",       "--commit", "--peer-json"};
constexpr const char* kCpuOptions[] = {"--size", "--seconds"};

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

/// Options that the chosen device would ignore are refused.
status check_given(const bench_flags& flags, bool gpu) {
  const std::span<const char* const> others =
      gpu ? std::span<const char* const>(kCpuOptions) : std::span<const char* const>(kGpuOptions);
  for (const char* option : others) {
    if (std::find(flags.given.begin(), flags.given.end(), option) == flags.given.end()) continue;
    return fail(errc::invalid_argument,
                fmt::format("{} is for {} only", option, gpu ? "the cpu" : "--device cuda:N"));
  }
  return {};
}

int run_on_gpu(const bench_flags& flags, int device) {
  gpu_flags gpu = flags.gpu;
  gpu.options.device = device;
  gpu.codecs = flags.codecs;
  if (!flags.input.empty()) gpu.options.input = flags.input;
  if (!flags.calibration_input.empty()) gpu.options.calibration_input = flags.calibration_input;
  if (flags.repeats) gpu.options.repeats = *flags.repeats;
  return run_gpu_bench(gpu, flags.common);
}

result<bench::codec_bench_report> bench_now(const bench_flags& flags) {
  if (flags.device != "cpu") {
    return fail(errc::backend_unavailable, fmt::format("no device '{}'; cpu and cuda:N are", flags.device));
  }
  bench::codec_bench_options options;
  options.threads = flags.common.threads == 0 ? 1 : flags.common.threads;
  if (!flags.input.empty()) options.input = flags.input;
  if (!flags.calibration_input.empty()) options.calibration_input = flags.calibration_input;
  options.codecs = flags.codecs;
  options.n_bytes = flags.size_mib << 20;
  if (flags.repeats) options.repeats = *flags.repeats;
  options.seconds = flags.seconds;
  progress_line line("bench", flags.common.quiet);
  options.on_round = [&](unsigned round, unsigned planned) {
    line.show(round == 0 ? std::string("bench: checking every contender")
                         : fmt::format("bench: round {} of {}", round, std::max(round, planned)));
  };
  return bench::run_codec_bench(options);
}

int run(const bench_flags& flags) {
  const auto device = parse_cuda_device(flags.device);
  if (const auto ok = check_given(flags, device.has_value()); !ok) {
    return report_error(ok.error(), flags.common.json);
  }
  if (device) return run_on_gpu(flags, *device);
  const auto report = bench_now(flags);
  if (!report) return report_error(report.error(), flags.common.json);
  for (const auto& name : report->absent) {
    if (!flags.common.quiet) print_warning(fmt::format("{} is not in this build; its row is absent", name));
  }
  return print(flags.common.json ? json_of(*report) : text_of(*report));
}

constexpr std::uint64_t kMostValues = std::uint64_t{1} << 40;

template <class T>
void add_number(CLI::App& verb, const char* name, T& into, const char* help, T low, T high) {
  verb.add_option(name, into, help)->type_name("N")->check(CLI::Range(low, high).description(""));
}

void add_input_options(CLI::App& verb, bench_flags& flags) {
  auto* input =
      verb.add_option("--input", flags.input, "the BF16 tensors of this file or directory")->type_name("SRC");
  verb.add_flag("--synthetic", flags.synthetic, "normally distributed values; the default")->excludes(input);
  auto* calibration = verb.add_option("--calibration-input", flags.calibration_input,
                                      "take the codebook from here; default: the input")
                          ->type_name("SRC");
  verb.add_flag("--calibrate-on-input", flags.calibrate_on_input, "take each codebook from the input itself")
      ->excludes(calibration);
  verb.add_option("--codec", flags.codecs,
                  "contenders: rank, top16, raw, zstd-1, zstd-3, lz4; default: all but raw; "
                  "on a GPU rank and top16")
      ->type_name("NAMES")
      ->delimiter(',');
  verb.add_option("--chunk-size", flags.chunk_values, "values a chunk; the format has 8192")
      ->type_name("N")
      ->check(CLI::IsMember({std::uint64_t{8192}}).description(""));
}

void add_gpu_options(CLI::App& verb, gpu_flags& gpu) {
  bench::gpu_bench_options& o = gpu.options;
  add_number(verb, "--rows", o.rows, "GPU: rows of the tensor; default: 65536", std::uint64_t{1},
             kMostValues);
  add_number(verb, "--hidden-dim", o.hidden_dim, "GPU: values a row; default: 4096", std::uint64_t{1},
             kMostValues);
  verb.add_option("--data", o.data,
                  "GPU: normal, lognormal-columns, row-scaled, input; default: the input, or the other three")
      ->type_name("NAMES")
      ->delimiter(',');
  verb.add_option("--dtype", gpu.dtypes, "GPU: bf16, f16, e4m3, e5m2; default: bf16")
      ->type_name("NAMES")
      ->delimiter(',');
  add_number(verb, "--warmup", o.warmup, "GPU: calls before the clock starts; default: 10", 0U, 100000U);
  add_number(verb, "--iters", o.iters, "GPU: calls a measurement at least; default: 50", 1U, 100000U);
  verb.add_flag("--graph", o.graph, "GPU: replay a CUDA graph of the calls");
  verb.add_flag("--pages", o.pages, "GPU: paged KV caches too");
  add_number(verb, "--kv-tokens", o.kv_tokens, "GPU: tokens in the sent pages; default: 32768",
             std::uint64_t{16}, std::uint64_t{1} << 24);
  add_number(verb, "--kv-layers", o.kv_layers, "GPU: layers of the cache; default: 4", 1U, 1024U);
  verb.add_option("--output", gpu.output, "GPU: write the JSON here and a plot beside it")->type_name("FILE");
  verb.add_option("--plot", gpu.plot, "GPU: write the plot here, as SVG")->type_name("FILE");
  verb.add_option("--commit", gpu.commit, "GPU: what the report says was measured")->type_name("TEXT");
  verb.add_option("--peer-json", gpu.peer_json, "GPU: rows of another program for report and plot")
      ->type_name("FILE");
}

void note_given(const CLI::App& verb, bench_flags& flags) {
  for (const std::span<const char* const> options :
       {std::span<const char* const>(kGpuOptions), std::span<const char* const>(kCpuOptions)}) {
    for (const char* option : options) {
      if (verb.count(option) != 0) flags.given.emplace_back(option);
    }
  }
}

}  // namespace

void add_bench(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<bench_flags>();
  CLI::App* group = program.add_subcommand("bench", "measure");
  CLI::App* verb =
      group->add_subcommand("codec", "ratio and speed beside memcpy, zstd and lz4 on the same bytes");
  verb->add_option("--device", flags->device, "cpu or cuda:N; default: cpu")->type_name("NAME");
  verb->add_option("-T,--threads", flags->common.threads,
                   "threads of every contender, memcpy included; default: 1; on a GPU those that check")
      ->type_name("N")
      ->check(CLI::Range(1U, 1024U).description(""));
  add_input_options(*verb, *flags);
  verb->add_option("--size", flags->size_mib, "memory that the input is repeated to; default: 256")
      ->type_name("MIB")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 20).description(""));
  verb->add_option("--repeats", flags->repeats, "rounds at least; default: 9, on a GPU 5")
      ->type_name("N")
      ->check(CLI::Range(1U, 100000U).description(""));
  verb->add_option("--seconds", flags->seconds, "go on until this much time has passed")
      ->type_name("S")
      ->check(CLI::Range(0.0, 1e6).description(""));
  add_gpu_options(*verb, flags->gpu);
  verb->add_flag("--json", flags->common.json, "JSON alone on standard output, errors included");
  verb->add_flag("-q,--quiet", flags->common.quiet, "no progress or warnings");
  verb->footer(kExamples);
  verb->callback([flags, verb, &chosen] {
    note_given(*verb, *flags);
    chosen = [flags] { return run(*flags); };
  });
  add_bench_gemm(*group, chosen);
}

}  // namespace tersor::cli
