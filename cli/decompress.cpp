#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "json.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "transform.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor decompress model.tersor.safetensors       write model.safetensors, byte for byte the original\n"
    "  tersor decompress small/ -o llama-8b/            a model directory with its config.json\n"
    "  tersor decompress small/ --dry-run --json        check that everything would come back";

std::string summary(const job& what, const model_report& report) {
  const double rate =
      report.seconds > 0 ? static_cast<double>(report.original_bytes) / report.seconds / 1e9 : 0;
  return fmt::format("{}: {} -> {} ({} tensors, {:.2f} s, {:.2f} GB/s){} {} {}\n", printable(what.source),
                     human_bytes(report.stored_bytes), human_bytes(report.original_bytes), report.n_tensors,
                     report.seconds, rate, what.verified ? ", verified," : "",
                     what.dry_run ? "would write" : "->", printable(*what.destination));
}

result<model_report> decompress_now(const transform_flags& flags, job& what) {
  const auto destination = destination_of(flags, default_decompressed_path);
  TERSOR_TRY(const context ctx, context::create(flags.common.threads));
  model_options options = transform_options(flags);
  what = {.command = "decompress",
          .source = flags.source,
          .destination = destination.string(),
          .threads = ctx.threads(),
          .backend = std::string(ctx.backend()),
          .dry_run = flags.dry_run,
          .verified = options.verify};
  progress_line line("decompress", flags.common.quiet);
  options.on_progress = line.callback();
  return decompress(ctx, flags.source, destination, options);
}

int run(const transform_flags& flags) {
  job what;
  const auto report = decompress_now(flags, what);
  if (!report) return report_error(report.error(), flags.common.json);
  if (flags.common.json) return print(json_of(what, *report));
  if (flags.common.quiet) return kExitOk;
  return print((flags.common.verbose ? file_table(*report, true) : "") + summary(what, *report));
}

}  // namespace

void add_decompress(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<transform_flags>();
  CLI::App* verb = program.add_subcommand("decompress", "restore the original bytes");
  add_transform_flags(*verb, *flags);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
