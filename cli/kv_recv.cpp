#include <atomic>
#include <chrono>
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

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

constexpr const char* kExamples =
    "Examples:\n"
    "  tersor kv-recv --listen 127.0.0.1:7600 -o kv.safetensors --once     one file, then end\n"
    "  tersor kv-recv --listen 0.0.0.0:7600 -o caches/ --psk-file key      files, until Ctrl-C\n"
    "  tersor kv-recv --listen 127.0.0.1:0 -o x --once --timeout 60        a free port, a minute's patience\n"
    "\n"
    "Exit codes: 0 received, 1 the data is wrong, 2 usage error or could not.";

struct receive_flags {
  transfer_flags transfer;
  std::string listen;
  std::string destination;
  std::string metrics;
  bool once = false;
  bool force = false;
  double max_gib = 64;
};

/// Everything between the command line and the end of the program.
struct session {
  const receive_flags& flags;
  progress_line line;
  std::atomic<std::uint64_t> done{0}, total{0};
  std::uint64_t seen_failures = 0;

  explicit session(const receive_flags& f) : flags(f), line("kv-recv", f.transfer.common.quiet) {}

  [[nodiscard]] int run();
  [[nodiscard]] result<int> serve();
  [[nodiscard]] result<transfer::file_sink_options> destination();
  [[nodiscard]] result<int> loop(transfer::receiver& r, transfer::file_sink& sink);
  [[nodiscard]] int tell(const transfer::received_file& file, const transfer::receiver& r);
  void warn_of_failures(const transfer::receiver& r);
};

/// One file, or a directory that is made if it is missing: files come and go there by name.
result<transfer::file_sink_options> session::destination() {
  transfer::file_sink_options out{
      .destination = flags.destination, .into_directory = !flags.once, .overwrite = flags.force};
  std::error_code code;
  const auto kind = std::filesystem::status(flags.destination, code).type();
  const auto refuse = [&](errc why, const char* message) {
    return tl::unexpected<error>(error{.code = why, .message = message, .file = flags.destination});
  };
  if (flags.once) {
    if (kind == std::filesystem::file_type::directory) {
      return refuse(errc::invalid_argument, "is a directory; with --once, -o names the file");
    }
    // Known before anybody connects, so said before anybody does.
    if (kind != std::filesystem::file_type::not_found && !flags.force) {
      return refuse(errc::already_exists, "exists already (--force replaces it)");
    }
    return out;
  }
  if (kind == std::filesystem::file_type::not_found) {
    if (!std::filesystem::create_directory(flags.destination, code) && code) {
      return refuse(errc::io_error, "cannot create the directory");
    }
  } else if (kind != std::filesystem::file_type::directory) {
    return refuse(errc::invalid_argument, "is no directory; without --once, -o names one");
  }
  return out;
}

void session::warn_of_failures(const transfer::receiver& r) {
  const transfer::transfer_counters now = r.counters();
  const std::uint64_t failures = now.failed_connections + now.refused;
  if (failures == seen_failures) return;
  seen_failures = failures;
  if (flags.transfer.common.quiet) return;
  line.clear();
  const auto why = r.last_error();
  print_warning(why ? fmt::format("a connection failed: {}", why->describe()) : "a connection was refused");
}

int session::tell(const transfer::received_file& file, const transfer::receiver& r) {
  line.clear();
  const receive_summary summary{.listen = transfer::to_string(r.address()),
                                .destination = flags.destination,
                                .transport = flags.transfer.transport,
                                .authenticated = is_authenticated(flags.transfer),
                                .file = file};
  if (flags.transfer.common.json) return print(flags.once ? json_of(summary) : json_line_of(summary));
  return flags.transfer.common.quiet ? kExitOk : print(table_of(summary, flags.transfer.common.verbose));
}

result<int> session::loop(transfer::receiver& r, transfer::file_sink& sink) {
  const auto show = line.callback();
  std::uint64_t moved = 0;
  auto last_moved = clock::now();
  for (;;) {
    const auto file = sink.take(100ms);
    warn_of_failures(r);
    if (file) {
      // The sender still waits for the answer that makes its exit code 0.
      if (flags.once) (void)r.wait_idle(2s);
      const int code = tell(*file, r);
      if (flags.once || code != kExitOk) return code;
    } else if (file.error().code != errc::not_found) {
      return tl::unexpected<error>(file.error());
    }
    const auto now = clock::now();
    if (const auto n = sink.decoded_bytes(); n != moved || file) {
      moved = n;
      last_moved = now;
      if (show && !file) show({.done = done.load(), .total = total.load(), .file = {}});
    }
    if (!flags.once || flags.transfer.timeout <= 0) continue;
    if (std::chrono::duration<double>(now - last_moved).count() < flags.transfer.timeout) continue;
    const auto why = r.last_error();
    if (why && is_data_error(why->code)) return tl::unexpected<error>(*why);
    return fail(errc::io_error, fmt::format("nothing came for {} s{}", flags.transfer.timeout,
                                            why ? "; the last connection: " + why->describe() : ""));
  }
}

result<int> session::serve() {
  TERSOR_TRY(const transfer::endpoint at, transfer::parse_endpoint(flags.listen));
  transfer::receiver_options options;
  TERSOR_TRY(options.security, security_from(flags.transfer));
  if (!is_authenticated(flags.transfer) && !transfer::is_loopback(at)) {
    return fail(
        errc::invalid_argument,
        fmt::format("{} is not a loopback address, and without --psk-file anybody who reaches it could "
                    "send files",
                    transfer::to_string(at)));
  }
  options.timeouts = timeouts_from(flags.transfer);
  options.transport = flags.transfer.transport;
  options.max_request_bytes = static_cast<std::uint64_t>(flags.max_gib * 1024 * 1024 * 1024);
  options = transfer::for_files(std::move(options));
  TERSOR_TRY(const context ctx, context::create(flags.transfer.common.threads));
  TERSOR_TRY(auto where, destination());
  where.on_progress = [this](const transfer::transfer_progress& p) {
    done = p.done_bytes;
    total = p.total_bytes;
  };
  transfer::file_sink sink(ctx, std::move(where));
  TERSOR_TRY(transfer::receiver r, transfer::receiver::listen(at, options, sink));
  std::optional<transfer::metrics_server> page;
  if (!flags.metrics.empty()) {
    TERSOR_TRY(const transfer::endpoint page_at, transfer::parse_endpoint(flags.metrics));
    TERSOR_TRY(page, transfer::metrics_server::listen(
                         page_at, [&r] { return transfer::prometheus_text(r.counters(), "receiver"); }));
  }
  // Without this line nobody knows the port that the system chose.
  if (!flags.transfer.common.quiet || at.port == 0) {
    print_note(fmt::format("listening on {} ({}{})", transfer::to_string(r.address()), options.transport,
                           is_authenticated(flags.transfer) ? ", authenticated" : ", no key"));
  }
  if (page && (!flags.transfer.common.quiet || page->address().port == 0)) {
    print_note(fmt::format("metrics on http://{}/metrics", transfer::to_string(page->address())));
  }
  return loop(r, sink);
}

int session::run() {
  const auto code = serve();
  line.clear();
  return code ? *code : report_error(code.error(), flags.transfer.common.json);
}

}  // namespace

void add_kv_recv(CLI::App& program, action& chosen) {
  auto flags = std::make_shared<receive_flags>();
  CLI::App* verb = program.add_subcommand("kv-recv", "receive what kv-send sends, decoded and verified");
  verb->add_option("--listen", flags->listen,
                   "address to listen on; port 0 takes a free one; beyond loopback only with a key")
      ->required()
      ->type_name("HOST:PORT")
      ->check(check_endpoint);
  verb->add_option("-o,--output", flags->destination, "with --once the file, else the directory for files")
      ->required()
      ->type_name("OUT");
  verb->add_flag("--once", flags->once, "end after one file");
  verb->add_flag("-f,--force", flags->force, "replace files that exist");
  verb->add_option("--max-size", flags->max_gib, "refuse files of more than this many GiB; default: 64")
      ->type_name("GIB")
      ->check(CLI::Range(0.0, 1e6).description(""));
  verb->add_option("--metrics", flags->metrics, "serve counters there for Prometheus, on loopback only")
      ->type_name("HOST:PORT")
      ->check(check_endpoint);
  add_transfer_flags(*verb, flags->transfer,
                     "longest wait for a sender, in seconds; with --once also for the first one");
  verb->footer(kExamples);
  verb->callback([flags, &chosen] { chosen = [flags] { return session(*flags).run(); }; });
}

}  // namespace tersor::cli
