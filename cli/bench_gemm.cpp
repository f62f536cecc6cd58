// `tersor bench gemm`.
#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "gemm_flags.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "run_info.hpp"
#include "text_file.hpp"
#include <tersor/program.hpp>

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor bench gemm 28672 4096 8                  one weight, eight tokens\n"
    "  tersor bench gemm --shapes llama-3.1-70b --pdl  all layers, with programmatic dependent launch\n"
    "  tersor bench gemm --shapes targets --pdl --unpack --output gemm.json\n"
    "                                                  the table and the figure of docs/gemm.md\n"
    "  tersor bench gemm 4096 4096 8 --plan 'warp_mma n_tile=8 row_blocks=2 ctas=128 split_k=1'\n"
    "                                                  a plan of your own\n"
    "Exit code 1: a product is wrong.";

struct bench_gemm_flags {
  common_flags common;
  gemm_flags gemm;
  std::optional<std::uint64_t> m, k, n;
  bool n_list = false;  ///< --n was given
  bool graph = false, no_graph = false;
  std::string split_k = "auto";
  std::string plan;
  std::string plans;
  std::string output;
  std::string plot;
  std::string commit = "unknown";
};

std::string fixed(double value, int digits) {
  return fmt::format("{:.{}f}", value, digits);
}

std::vector<std::string> cells_of(const bench::gemm_row& row) {
  const auto speedup = row.speedup();
  const bool measured = row.failure.empty();
  const auto us = [](std::optional<double> value) { return value ? fixed(*value, 2) : std::string("-"); };
  std::string shape = fmt::format("{} x {}", row.size.rows, row.size.cols);
  std::string mode = row.pdl ? "pdl" : row.graph ? "graph" : "launch";
  return {std::move(shape),
          std::string(to_string(row.layout)),
          std::move(mode),
          to_string(row.plan),
          !measured   ? printable(row.failure)
          : row.wrong ? "WRONG"
                      : "ok",
          fmt::format("{}", row.n),
          measured ? fixed(row.time_us, 2) : "-",
          measured ? fixed(row.packed_tb_s(), 3) : "-",
          measured ? fixed(row.tflop_s(), 1) : "-",
          fixed(row.bits_per_weight, 3),
          us(row.cublas_us),
          speedup ? fixed(*speedup, 3) : "-",
          measured ? fmt::format("{:.2e}", row.error.rms) : "-",
          row.cublas_error ? fmt::format("{:.2e}", row.cublas_error->rms) : "-"};
}

std::string text_of(const bench::gemm_bench_report& report) {
  std::vector<std::vector<std::string>> rows = {{"shape", "layout", "mode", "plan", "result", "N", "us",
                                                 "TB/s", "TFLOP/s", "bits", "cuBLAS us", "speed-up",
                                                 "rms error", "cuBLAS"}};
  for (const bench::gemm_row& row : report.rows) rows.push_back(cells_of(row));
  std::string text = fmt::format(
      "{}, driver {}; a copy moves {:.1f} GB/s, bytes read and written; weights: {}\n",
      printable(report.device), printable(report.driver), report.copy_gb_s, printable(report.data));
  if (!report.has_library) text += "cuBLASLt was not found: nothing to compare with\n";
  text += "\n" + table(rows, 5);
  if (const auto summaries = bench::summaries_of(report.rows); !summaries.empty()) {
    std::vector<std::vector<std::string>> means = {{"layout", "mode", "N", "shapes", "geomean", "minimum"}};
    for (const bench::gemm_summary& s : summaries) {
      means.push_back({std::string(to_string(s.layout)), s.pdl ? "pdl" : "plain", fmt::format("{}", s.n),
                       fmt::format("{}", s.n_rows), fixed(s.geomean, 3), fixed(s.least, 3)});
    }
    text += "\n" + table(means, 2);
  }
  if (!report.unpack.empty()) {
    std::vector<std::vector<std::string>> unpacked = {{"unpack", "layout", "us", "GB/s", "of a copy"}};
    for (const bench::gemm_unpack_row& row : report.unpack) {
      unpacked.push_back({fmt::format("{} x {}", row.size.rows, row.size.cols),
                          std::string(to_string(row.layout)), fixed(row.time_us, 2), fixed(row.gb_s, 1),
                          fixed(row.copy_share, 3)});
    }
    text += "\n" + table(unpacked, 2);
  }
  return text;
}

status read_product(const bench_gemm_flags& flags, bench::gemm_bench_options& options) {
  if (!flags.m) return {};
  if (!flags.k) return fail(errc::invalid_argument, "a product has M and K, and perhaps N");
  if (!flags.gemm.shapes.empty()) return fail(errc::invalid_argument, "M K and --shapes exclude each other");
  options.sizes = {{*flags.m, *flags.k}};
  if (flags.n && flags.n_list) return fail(errc::invalid_argument, "N was given twice");
  if (flags.n) options.n = {*flags.n};
  return {};
}

status read_plans(const bench_gemm_flags& flags, bench::gemm_bench_options& options) {
  if (flags.split_k != "auto") {
    const auto plan = cuda::parse_gemm_plan("automatic split_k=" + flags.split_k);
    if (!plan)
      return fail(errc::invalid_argument, fmt::format("no split '{}' (auto, or a number)", flags.split_k));
    options.split_k = plan->split_k;
  }
  if (!flags.plan.empty()) {
    options.plan = cuda::parse_gemm_plan(flags.plan);
    if (!options.plan) return fail(errc::invalid_argument, fmt::format("no plan '{}'", flags.plan));
  }
  if (!flags.plans.empty()) {
    TERSOR_TRY(const std::string text, read_text(flags.plans));
    TERSOR_TRY(options.plans, cuda::gemm_plan_table::from_json(text));
  }
  return {};
}

result<bench::gemm_bench_report> measure(const bench_gemm_flags& flags) {
  bench::gemm_bench_options base = flags.gemm.options;
  base.graph = !flags.no_graph;
  TERSOR_CHECK(read_product(flags, base));
  TERSOR_CHECK(read_plans(flags, base));
  gemm_flags gemm = flags.gemm;
  gemm.options = std::move(base);
  TERSOR_TRY(auto options, gemm_options_of(gemm, flags.common));
  progress_line line("bench", flags.common.quiet);
  options.on_step = [&](const std::string& text) { line.show("bench: " + printable(text)); };
  return bench::run_gemm_bench(options);
}

status write_files(const bench_gemm_flags& flags, const bench::gemm_bench_report& report,
                   const std::string& json) {
  if (!flags.output.empty()) TERSOR_CHECK(write_file(flags.output, json, true));
  if (flags.output.empty() && flags.plot.empty()) return {};
  const std::filesystem::path plot = flags.plot.empty()
                                         ? std::filesystem::path(flags.output).replace_extension(".svg")
                                         : std::filesystem::path(flags.plot);
  const std::string machine = fmt::format("{}, driver {}, commit {}, {}", report.device, report.driver,
                                          flags.commit, now_text().substr(0, 10));
  return write_file(plot, bench::gemm_svg(report.rows, machine), true);
}

int run(const bench_gemm_flags& flags) {
  const auto report = measure(flags);
  if (!report) return report_error(report.error(), flags.common.json);
  const std::string json =
      json_of(*report, {.commit = flags.commit, .command = command_line(), .date = now_text()});
  const auto written = write_files(flags, *report, json);
  const int printed = print(flags.common.json ? json : text_of(*report));
  // After the figures, which took minutes and should not be lost with a full disk.
  if (!written) return report_error(written.error(), false);
  if (printed != kExitOk) return printed;
  const auto any = [&](auto what) { return std::any_of(report->rows.begin(), report->rows.end(), what); };
  if (any([](const bench::gemm_row& row) { return row.wrong; })) return kExitDataWrong;
  return any([](const bench::gemm_row& row) { return !row.failure.empty(); }) ? kExitCouldNot : kExitOk;
}

}  // namespace

void add_bench_gemm(CLI::App& group, action& chosen) {
  auto flags = std::make_shared<bench_gemm_flags>();
  CLI::App* verb = group.add_subcommand("gemm", "products from packed weights beside cuBLASLt, on a GPU");
  verb->add_option("M", flags->m, "outputs, rows of the weight")->type_name("");
  verb->add_option("K", flags->k, "inputs, columns of the weight")->type_name("");
  verb->add_option("N", flags->n, "tokens")->type_name("");
  add_gemm_flags(*verb, flags->gemm, flags->common);
  bench::gemm_bench_options& o = flags->gemm.options;
  auto* graph = verb->add_flag("--graph", flags->graph, "replay CUDA graphs of the calls; the default");
  verb->add_flag("--no-graph", flags->no_graph, "launch the calls one by one")->excludes(graph);
  verb->add_flag("--pdl", o.pdl, "programmatic dependent launch too");
  verb->add_flag("--unpack", o.unpack, "the decompressor too");
  auto* split =
      verb->add_option("--split-k", flags->split_k, "CTAs that share a row's columns; default: auto");
  split->type_name("N");
  auto* plan = verb->add_option("--plan", flags->plan, "one plan for all rows, as the table prints it");
  plan->type_name("TEXT")->excludes(split);
  verb->add_option("--plans", flags->plans, "plans that 'tersor tune' stored")
      ->type_name("FILE")
      ->excludes(plan);
  verb->add_option("--output", flags->output, "write the JSON here and a plot beside it")->type_name("FILE");
  verb->add_option("--plot", flags->plot, "write the plot here, as SVG")->type_name("FILE");
  verb->add_option("--commit", flags->commit, "what the report says was measured")->type_name("TEXT");
  verb->add_flag("--json", flags->common.json, "JSON alone on standard output, errors included");
  verb->add_flag("-q,--quiet", flags->common.quiet, "no progress or warnings");
  verb->footer(kExamples);
  verb->callback([flags, verb, &chosen] {
    flags->n_list = verb->count("--n") != 0;
    chosen = [flags] { return run(*flags); };
  });
}

}  // namespace tersor::cli
