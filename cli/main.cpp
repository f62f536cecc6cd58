// The tersor program: understands the command line, then runs one verb.
#include <algorithm>
#include <csignal>
#include <exception>
#include <memory>
#include <string_view>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "command.hpp"
#include "output.hpp"
#include <tersor/program.hpp>
#include <tersor/version.hpp>

namespace {

using namespace tersor;
using namespace tersor::cli;

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor compress model.safetensors          write model.tersor.safetensors\n"
    "  tersor compress llama-8b/ -o small/        a whole model directory\n"
    "  tersor verify small/ --against llama-8b/   compare every byte\n"
    "  tersor decompress small/ -o back/          the original files again\n"
    "\n"
    "Exit codes: 0 ok, 1 the data is wrong, 2 usage error or could not.\n"
    "'tersor COMMAND --help' explains a command.";

/// A descriptor closed by the parent would be reused by the first file that the program opens, and a message
/// would end up in that file. Read-only, so that output to it fails as it should.
void occupy_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) == -1) (void)::open("/dev/null", O_RDONLY);
  }
}

int usage_error(const CLI::App& program, std::string message, bool json) {
  std::string command = "tersor";
  for (const auto* verb = &program; !verb->get_subcommands().empty();) {
    verb = verb->get_subcommands().front();
    command += " " + verb->get_name();
  }
  std::replace(message.begin(), message.end(), '\n', ' ');
  return report_error(
      {.code = errc::invalid_argument, .message = fmt::format("{} (see '{} --help')", message, command)},
      json);
}

bool asks_for_json(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](const char* arg) { return std::string_view(arg) == "--json"; });
}

/// Help without the validators, which the messages name when they matter.
class plain_formatter : public CLI::Formatter {
 public:
  plain_formatter() {
    column_width(32);
    label("SUBCOMMAND", "COMMAND");
    label("Positionals", "Arguments");
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    std::string name = CLI::Formatter::make_option_name(option, is_positional);
    if (const auto comma = name.find(','); comma != std::string::npos) name.insert(comma + 1, " ");
    return name;
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return option->get_required() ? " (required)" : "";
    const std::string type = option->get_type_name().empty() ? "" : " " + option->get_type_name();
    return type + (option->get_required() && option->nonpositional() ? " (required)" : "");
  }
};

int run(int argc, char** argv) {
  CLI::App program(
      "Lossless compression of LLM weights and KV caches: smaller safetensors files that come back byte for "
      "byte.",
      "tersor");
  program.set_version_flag("--version", fmt::format("tersor {}", kVersion), "print the version");
  program.formatter(std::make_shared<plain_formatter>());
  program.set_help_flag("-h,--help", "print this help");
  program.footer(kExamples);
  action chosen;
  for (const auto add : {add_compress, add_pack, add_decompress, add_verify, add_inspect, add_analyze,
                         add_calibrate, add_kv_send, add_kv_recv, add_bench, add_tune, add_doctor}) {
    add(program, chosen);
  }
  for (CLI::App* verb : program.get_subcommands([](const CLI::App*) { return true; })) {
    verb->group("Commands");
  }
  const bool json = asks_for_json(argc, argv);
  try {
    program.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return print(program.help());
  } catch (const CLI::CallForVersion& e) {
    return print(std::string(e.what()) + "\n");
  } catch (const CLI::ParseError& e) {
    return usage_error(program, e.what(), json);
  }
  if (!chosen) return usage_error(program, argc > 1 ? "a command is missing" : "no command given", json);
  if (const auto installed = install_signal_cleanup(); !installed)
    return report_error(installed.error(), json);
  return chosen();
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_descriptors();
  // A reader that went away is a failed write with a message, not a silent death.
  (void)std::signal(SIGPIPE, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    return report_error({.code = errc::internal, .message = e.what()}, asks_for_json(argc, argv));
  }
}
