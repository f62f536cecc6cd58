#include "transform.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "output.hpp"

namespace tersor::cli {

void add_transform_flags(CLI::App& verb, transform_flags& flags) {
  verb.add_option("SRC", flags.source, "a .safetensors file or a model directory")->required()->type_name("");
  verb.add_option("-o,--output", flags.destination,
                  "destination; nothing carries this name before it is complete")
      ->type_name("DST");
  verb.add_flag("-f,--force", flags.force, "replace an existing destination");
  verb.add_flag("--rm", flags.remove, "remove SRC after success; implies --verify");
  verb.add_flag("--dry-run", flags.dry_run, "do all but write");
  verb.add_flag("--verify", flags.verify, "decode and compare with SRC before DST gets its name");
  add_threads_flag(verb, flags.common);
  add_read_flags(verb, flags.common);
  add_output_flags(verb, flags.common);
}

std::filesystem::path destination_of(const transform_flags& flags,
                                     std::filesystem::path (*default_path)(const std::filesystem::path&)) {
  return flags.destination.empty() ? default_path(flags.source) : std::filesystem::path(flags.destination);
}

model_options transform_options(const transform_flags& flags) {
  model_options options = options_from(flags.common);
  options.overwrite = flags.force;
  options.verify = flags.verify || flags.remove;
  options.remove_source = flags.remove;
  options.dry_run = flags.dry_run;
  return options;
}

std::string file_table(const model_report& report, bool with_tensors) {
  std::vector<std::vector<std::string>> rows = {{"file", "codec", "original", "stored", "ratio"}};
  for (const auto& file : report.files) {
    rows.push_back({printable(file.name), file.is_safetensors ? "" : "copied",
                    human_bytes(file.original_bytes), human_bytes(file.stored_bytes),
                    fmt::format("{:.3f}", ratio_of(file.original_bytes, file.stored_bytes))});
    if (!with_tensors) continue;
    for (const auto& t : file.tensors) {
      rows.push_back({"  " + printable(t.name), std::string(t.coding()), human_bytes(t.original_bytes),
                      human_bytes(t.stored_bytes),
                      fmt::format("{:.3f}", ratio_of(t.original_bytes, t.stored_bytes))});
    }
  }
  return table(rows, 2);
}

}  // namespace tersor::cli
