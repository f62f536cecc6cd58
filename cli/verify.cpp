#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor verify model.tersor.safetensors      every digest of every chunk\n"
    "  tersor verify small/ --against llama-8b/    every byte as well\n"
    "  tersor verify small/ --json -T 2            as JSON, on two threads\n"
    "\n"
    "Exit codes: 0 right, 1 wrong, 2 could not check.";

struct verify_flags {
  common_flags common;
  std::string source;
  std::string against;
};

result<model_report> verify_now(const verify_flags& flags, job& what) {
  TERSOR_TRY(const context ctx, context::create(flags.common.threads));
  model_options options = options_from(flags.common);
  what = {.command = "verify",
          .source = flags.source,
          .threads = ctx.threads(),
          .backend = std::string(ctx.backend())};
  std::optional<std::filesystem::path> against;
  if (!flags.against.empty()) against = what.against = flags.against;
  progress_line line("verify", flags.common.quiet);
  options.on_progress = line.callback();
  return verify(ctx, flags.source, against, options);
}

int run(const verify_flags& flags) {
  job what;
  const auto report = verify_now(flags, what);
  if (!report) return report_error(report.error(), flags.common.json);
  if (flags.common.json) return print(json_of(what, *report));
  if (flags.common.quiet) return kExitOk;
  return print(fmt::format("{}: right ({} tensors, {} restored, every digest{} compared, {:.2f} s)\n",
                           printable(what.source), report->n_tensors, human_bytes(report->original_bytes),
                           what.against ? " and byte" : "", report->seconds));
}

}  // namespace

void add_verify(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<verify_flags>();
  CLI::App* verb = program.add_subcommand("verify", "decode in memory and compare every digest");
  verb->add_option("SRC", flags->source, "a compressed file or model directory")->required()->type_name("");
  verb->add_option("--against", flags->against, "compare the restored bytes with this original too")
      ->type_name("ORIGINAL");
  add_threads_flag(*verb, flags->common);
  add_read_flags(*verb, flags->common);
  add_output_flags(*verb, flags->common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
