#include "command.hpp"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "output.hpp"

namespace tersor::cli {

void add_output_flags(CLI::App& verb, common_flags& flags) {
  verb.add_flag("--json", flags.json, "JSON alone on standard output, errors included");
  auto* quiet = verb.add_flag("-q,--quiet", flags.quiet, "no progress, warnings or summary");
  verb.add_flag("-v,--verbose", flags.verbose, "say more")->excludes(quiet);
}

void add_threads_flag(CLI::App& verb, common_flags& flags) {
  verb.add_option("-T,--threads", flags.threads, "threads; default: the cores this process may use")
      ->type_name("N")
      ->check(CLI::Range(1U, 1024U).description(""));
}

void add_read_flags(CLI::App& verb, common_flags& flags) {
  verb.add_flag("--no-mmap", flags.no_mmap,
                "read with pread: a failing network disk is an error, not a crash");
}

void add_filter_flags(CLI::App& verb, common_flags& flags) {
  verb.add_option("--include", flags.include, "only tensors whose name matches; may be repeated")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
  verb.add_option("--exclude", flags.exclude, "not tensors whose name matches; wins over --include")
      ->type_name("GLOB")
      ->expected(1)
      ->take_all();
}

model_options options_from(const common_flags& flags) {
  model_options options;
  options.include = flags.include;
  options.exclude = flags.exclude;
  options.read = flags.no_mmap ? read_mode::pread : read_mode::mmap;
  return options;
}

void warn_unmatched(const common_flags& flags, const std::vector<std::string>& names) {
  if (flags.quiet) return;
  const auto warn = [&](const char* option, const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      const bool matched = std::any_of(names.begin(), names.end(),
                                       [&](const auto& name) { return glob_match(pattern, name); });
      if (!matched) print_warning(fmt::format("{} '{}' matches no tensor", option, pattern));
    }
  };
  warn("--include", flags.include);
  warn("--exclude", flags.exclude);
}

std::vector<std::string> tensor_names(const model_report& report) {
  std::vector<std::string> names;
  for (const auto& file : report.files) {
    for (const auto& tensor : file.tensors) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace tersor::cli
