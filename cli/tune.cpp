// `tersor tune`.
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "gemm_flags.hpp"
#include "output.hpp"
#include "progress.hpp"
#include <tersor/program.hpp>

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor tune --shapes llama-3.1-8b -o plans.json\n"
    "  tersor bench gemm --shapes llama-3.1-8b --plans plans.json";

struct tune_flags {
  common_flags common;
  gemm_flags gemm;
  std::string output;
  bool force = false;
};

std::string text_of(const cuda::gemm_plan_table& found) {
  std::vector<std::vector<std::string>> rows = {{"shape", "layout", "plan", "N", "us"}};
  for (const auto& e : found.entries) {
    rows.push_back({fmt::format("{} x {}", e.shape.rows, e.shape.cols),
                    std::string(to_string(e.shape.layout)), to_string(e.plan), fmt::format("{}", e.shape.n),
                    fmt::format("{:.2f}", e.time_us)});
  }
  return fmt::format("{}\n\n", printable(found.device)) + table(rows, 3);
}

int run(const tune_flags& flags) {
  auto options = gemm_options_of(flags.gemm, flags.common);
  if (!options) return report_error(options.error(), flags.common.json);
  std::error_code code;
  if (!flags.force && std::filesystem::exists(flags.output, code)) {
    return report_error(
        {.code = errc::already_exists, .message = "exists; --force replaces it", .file = flags.output},
        flags.common.json);
  }
  progress_line line("tune", flags.common.quiet);
  options->on_step = [&](const std::string& text) { line.show("tune: " + printable(text)); };
  const auto found = bench::tune_gemm(*options);
  line.clear();
  if (!found) return report_error(found.error(), flags.common.json);
  const std::string json = found->to_json();
  if (const auto written = write_file(flags.output, json, flags.force); !written) {
    return report_error(written.error(), flags.common.json);
  }
  return print(flags.common.json ? json : text_of(*found));
}

}  // namespace

void add_tune(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<tune_flags>();
  CLI::App* verb = program.add_subcommand("tune", "find the fastest GEMM plans on this GPU");
  add_gemm_flags(*verb, flags->gemm, flags->common);
  verb->add_option("-o,--output", flags->output, "write the plans here, as JSON")
      ->type_name("FILE")
      ->required();
  verb->add_flag("-f,--force", flags->force, "replace the file if it exists");
  verb->add_flag("--json", flags->common.json, "JSON alone on standard output, errors included");
  verb->add_flag("-q,--quiet", flags->common.quiet, "no progress or warnings");
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
