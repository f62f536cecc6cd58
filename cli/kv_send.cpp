#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "transfer_flags.hpp"
#include "transfer_output.hpp"

namespace tersor::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor kv-send kv.safetensors --to 127.0.0.1:7600                   codec chosen as it goes\n"
    "  tersor kv-send kv.safetensors --to decode-1:7600 --psk-file key     authenticated\n"
    "  tersor kv-send kv.safetensors --to 127.0.0.1:7600 --codec raw       to compare\n"
    "\n"
    "Exit codes: 0 published at the receiver, 1 refused or the data is wrong, 2 could not.";

struct send_flags {
  transfer_flags transfer;
  std::string source;
  std::string to;
  std::string codec = "auto";
};

std::string check_coding(const std::string& name) {
  return transfer::parse_coding(name)
             ? ""
             : fmt::format("unknown codec '{}'; auto, rank, top16 and raw are known", name);
}

result<send_summary> send_now(const send_flags& flags) {
  const common_flags& common = flags.transfer.common;
  TERSOR_TRY(const transfer::endpoint to, transfer::parse_endpoint(flags.to));
  transfer::sender_options options;
  TERSOR_TRY(options.security, security_from(flags.transfer));
  options.timeouts = timeouts_from(flags.transfer);
  options.transport = flags.transfer.transport;
  options.coding = *transfer::parse_coding(flags.codec);
  options.geometry.layout = transfer::kFileLayout;
  TERSOR_TRY(const context ctx, context::create(common.threads));
  TERSOR_TRY(const auto file, transfer::file_source::open(
                                  ctx, flags.source, common.no_mmap ? read_mode::pread : read_mode::mmap));
  progress_line line("kv-send", common.quiet);
  if (const auto show = line.callback()) {
    options.on_progress = [show](const transfer::transfer_progress& p) {
      show({.done = p.done_bytes, .total = p.total_bytes, .file = {}});
    };
  }
  send_summary out{.source = flags.source,
                   .destination = transfer::to_string(to),
                   .transport = options.transport,
                   .codec = flags.codec,
                   .request = fmt::format("{:016x}", file->contents().request),
                   .authenticated = is_authenticated(flags.transfer),
                   .threads = ctx.threads(),
                   .backend = std::string(ctx.backend())};
  TERSOR_TRY(transfer::sender connection, transfer::sender::connect(to, options));
  TERSOR_TRY(out.report, connection.send(file->contents(), *file));
  return out;
}

int run(const send_flags& flags) {
  const common_flags& common = flags.transfer.common;
  const auto summary = send_now(flags);
  if (!summary) return report_error(summary.error(), common.json);
  if (common.json) return print(json_of(*summary));
  if (common.quiet) return kExitOk;
  return print(table_of(*summary, common.verbose));
}

}  // namespace

void add_kv_send(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<send_flags>();
  CLI::App* verb = program.add_subcommand(
      "kv-send", "send a KV cache to a machine that runs kv-recv, compressed on the way");
  verb->add_option("FILE", flags->source, "a safetensors file")->required()->type_name("");
  verb->add_option("--to", flags->to, "where kv-recv listens")
      ->required()
      ->type_name("HOST:PORT")
      ->check(check_endpoint);
  verb->add_option("--codec", flags->codec,
                   "auto (measures, then takes the fastest), rank, top16 or raw; default: auto")
      ->type_name("NAME")
      ->check(check_coding);
  add_transfer_flags(*verb, flags->transfer,
                     "longest wait for the receiver, in seconds; default: 5 to connect, 30 for a message");
  add_read_flags(*verb, flags->transfer.common);
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return run(*flags); }; });
}

}  // namespace tersor::cli
