#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "output.hpp"
#include "progress.hpp"
#include <tersor/program.hpp>

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor analyze model.safetensors                    what each codec would give\n"
    "  tersor analyze llama-8b/ --report llama.html        a page with figures\n"
    "  tersor analyze kv.safetensors --json > kv.json       the numbers behind it";

struct analyze_flags {
  common_flags common;
  std::vector<std::string> sources;
  std::string report;
  bool force = false;
};

std::vector<std::string> row_of(const std::string& name, const tensor_analysis& t) {
  const auto ratio = [&](std::uint64_t bytes) { return fmt::format("{:.3f}", ratio_of(t.n_bytes, bytes)); };
  return {printable(name),
          std::string(to_string(t.type)),
          std::to_string(t.n_values),
          fmt::format("{:.3f}", t.entropy),
          fmt::format("{:.3f}%", 100 * t.coverage[7]),
          fmt::format("{:.3f}%", 100 * t.coverage[16]),
          fmt::format("{:.3f}", t.ideal_ratio),
          ratio(t.rank_bytes),
          ratio(t.top16_bytes)};
}

std::string text_of(const analysis& a) {
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "dtype", "values", "entropy", "top 7", "top 16", "ideal", "rank", "top16"}};
  for (const auto& t : a.tensors) rows.push_back(row_of(t.name, t));
  for (const auto& [type, t] : a.overall)
    rows.push_back(row_of(fmt::format("all {}, one codebook", to_string(type)), t));
  return table(rows, 2) +
         fmt::format(
             "\nentropy: bits an exponent; top k: share of values whose exponent is among the k most "
             "frequent;\nideal, rank, top16: original size / coded size. Other tensors: {}.\n",
             human_bytes(a.other_bytes));
}

result<analysis> analyze_now(const analyze_flags& flags) {
  TERSOR_TRY(const context ctx, context::create(flags.common.threads));
  model_options options = options_from(flags.common);
  progress_line line("analyze", flags.common.quiet);
  options.on_progress = line.callback();
  const std::vector<std::filesystem::path> sources(flags.sources.begin(), flags.sources.end());
  TERSOR_TRY(analysis a, analyze(ctx, sources, options));
  if (!flags.report.empty()) {
    const std::string title = fmt::format("{}", fmt::join(flags.sources, ", "));
    TERSOR_CHECK(write_file(flags.report, to_html(a, title), flags.force));
  }
  return a;
}

int run(const analyze_flags& flags) {
  const auto a = analyze_now(flags);
  if (!a) return report_error(a.error(), flags.common.json);
  if (a->tensors.empty() && !flags.common.quiet) print_warning("no tensor with an exponent to code");
  if (flags.common.json) {
    std::string text = to_json(*a);
    if (text.empty() || text.back() != '\n') text += '\n';
    return print(text);
  }
  const std::string report = flags.report.empty() ? "" : fmt::format("report: {}\n", printable(flags.report));
  return print(text_of(*a) + report);
}

}  // namespace

void add_analyze(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<analyze_flags>();
  CLI::App* verb =
      program.add_subcommand("analyze", "exponent entropy, coverage, and what each codec would give");
  verb->add_option("SRC", flags->sources, "files or model directories, compressed or not")
      ->required()
      ->type_name("");
  verb->add_option("--report", flags->report, "write a self-contained HTML page with figures")
      ->type_name("OUT.html");
  verb->add_flag("-f,--force", flags->force, "replace an existing report");
  add_filter_flags(*verb, flags->common);
  add_threads_flag(*verb, flags->common);
  add_read_flags(*verb, flags->common);
  add_output_flags(*verb, flags->common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
