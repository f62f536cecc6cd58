#include "transfer_output.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "output.hpp"

namespace tersor::cli {
namespace {

using json = nlohmann::ordered_json;

std::string text_of(const json& document, int indent) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace) + "\n";
}

json or_null(const std::optional<double>& value) {
  return value ? json(*value) : json(nullptr);
}

double giga_per_second(std::uint64_t n_bytes, double seconds) {
  return seconds > 0 ? static_cast<double>(n_bytes) / seconds / 1e9 : 0;
}

constexpr double kBottleneckShare = 0.5;

std::string speedup_text(const send_summary& s) {
  if (const auto speedup = s.speedup()) {
    return fmt::format("{:.2f}x over raw, estimated: the saved bytes at the link's speed", *speedup);
  }
  if (s.report.rank_parts + s.report.top16_parts == 0) return "none: every part was sent raw";
  return fmt::format("not estimated: the link was busy {:.0f}% of the time, so it was not the bottleneck",
                     100 * s.link_share());
}

std::string seconds_text(double seconds) {
  return fmt::format("{:.3f} s", seconds);
}

json parts_json(std::uint64_t total, std::uint64_t rank, std::uint64_t top16, std::uint64_t raw) {
  return {{"total", total}, {"rank", rank}, {"top16", top16}, {"raw", raw}};
}

std::string parts_text(std::uint64_t total, std::uint64_t rank, std::uint64_t top16, std::uint64_t raw) {
  return fmt::format("{}: {} rank, {} top16, {} raw", total, rank, top16, raw);
}

json receive_json(const receive_summary& s) {
  const transfer::received_file& f = s.file;
  return {{"command", "kv-recv"},
          {"listen", s.listen},
          {"destination", s.destination},
          {"transport", s.transport},
          {"authenticated", s.authenticated},
          {"request", fmt::format("{:016x}", f.request)},
          {"file", f.path.string()},
          {"raw_bytes", f.file_bytes},
          {"frame_bytes", f.frame_bytes},
          {"ratio", ratio_of(f.file_bytes, f.frame_bytes)},
          {"parts", parts_json(f.parts, f.rank_parts, f.top16_parts, f.raw_parts)},
          {"seconds", f.seconds},
          {"decode_seconds", f.decode_seconds},
          {"effective_gb_s", s.effective_gb_s()}};
}

}  // namespace

double send_summary::effective_gb_s() const {
  return giga_per_second(report.raw_bytes, report.seconds);
}

std::optional<double> send_summary::link_gb_s() const {
  if (report.send_seconds <= 0) return std::nullopt;
  return giga_per_second(report.sent_bytes, report.send_seconds);
}

std::optional<double> send_summary::speedup() const {
  const auto link = link_gb_s();
  if (!link || *link <= 0 || link_share() < kBottleneckShare) return std::nullopt;
  if (report.rank_parts + report.top16_parts == 0 || report.sent_bytes >= report.raw_bytes)
    return std::nullopt;
  const auto saved = static_cast<double>(report.raw_bytes - report.sent_bytes);
  return 1 + saved / (*link * 1e9) / report.seconds;
}

double send_summary::link_share() const {
  return report.seconds > 0 ? report.send_seconds / report.seconds : 0;
}

std::string json_of(const send_summary& s) {
  const transfer::transfer_report& r = s.report;
  json parts = parts_json(r.parts, r.rank_parts, r.top16_parts, r.raw_parts);
  parts["bypassed"] = r.bypassed_parts;
  return text_of({{"command", "kv-send"},
                  {"source", s.source},
                  {"destination", s.destination},
                  {"transport", s.transport},
                  {"codec", s.codec},
                  {"threads", s.threads},
                  {"backend", s.backend},
                  {"authenticated", s.authenticated},
                  {"request", s.request},
                  {"raw_bytes", r.raw_bytes},
                  {"sent_bytes", r.sent_bytes},
                  {"ratio", ratio_of(r.raw_bytes, r.sent_bytes)},
                  {"parts", std::move(parts)},
                  {"resumptions", r.resumptions},
                  {"seconds", r.seconds},
                  {"encode_seconds", r.encode_seconds},
                  {"send_seconds", r.send_seconds},
                  {"credit_seconds", r.credit_seconds},
                  {"decode_seconds", r.decode_seconds},
                  {"effective_gb_s", s.effective_gb_s()},
                  {"link_gb_s", or_null(s.link_gb_s())},
                  {"speedup_estimate", or_null(s.speedup())}},
                 2);
}

std::string table_of(const send_summary& s, bool verbose) {
  const transfer::transfer_report& r = s.report;
  const auto link = s.link_gb_s();
  std::string parts = parts_text(r.parts, r.rank_parts, r.top16_parts, r.raw_parts);
  if (r.bypassed_parts > 0) parts += fmt::format(" ({} because raw is faster here)", r.bypassed_parts);
  std::vector<std::vector<std::string>> rows = {
      {"raw", human_bytes(r.raw_bytes)},
      {"sent",
       fmt::format("{}, ratio {:.3f}", human_bytes(r.sent_bytes), ratio_of(r.raw_bytes, r.sent_bytes))},
      {"parts", std::move(parts)},
      {"encode", seconds_text(r.encode_seconds)},
      {"send", seconds_text(r.send_seconds) + (link ? fmt::format(", {:.3f} GB/s on the link", *link) : "")},
      {"wait", seconds_text(r.credit_seconds) + " for the receiver"},
      {"decode", seconds_text(r.decode_seconds) + " at the receiver"},
      {"total",
       fmt::format("{:.3f} s, {:.3f} GB/s of raw bytes; the stages overlap", r.seconds, s.effective_gb_s())},
      {"speed-up", speedup_text(s)}};
  if (verbose) {
    rows.push_back({"request", s.request});
    rows.push_back({"encoder", fmt::format("{}, {} threads", s.backend, s.threads)});
  }
  if (r.resumptions > 0) rows.push_back({"resumed", fmt::format("{} times", r.resumptions)});
  return fmt::format("{} -> {} ({}{}): published and verified\n{}", printable(s.source), s.destination,
                     s.transport, s.authenticated ? ", authenticated" : "", table(rows, 2));
}

double receive_summary::effective_gb_s() const {
  return giga_per_second(file.file_bytes, file.seconds);
}

std::string json_line_of(const receive_summary& summary) {
  return text_of(receive_json(summary), -1);
}

std::string json_of(const receive_summary& summary) {
  return text_of(receive_json(summary), 2);
}

std::string table_of(const receive_summary& s, bool verbose) {
  const transfer::received_file& f = s.file;
  std::vector<std::vector<std::string>> rows = {
      {"raw", human_bytes(f.file_bytes)},
      {"frames",
       fmt::format("{}, ratio {:.3f}", human_bytes(f.frame_bytes), ratio_of(f.file_bytes, f.frame_bytes))},
      {"parts", parts_text(f.parts, f.rank_parts, f.top16_parts, f.raw_parts)},
      {"decode", seconds_text(f.decode_seconds) + ", every digest compared in place"},
      {"total",
       fmt::format("{:.3f} s, {:.3f} GB/s of raw bytes, sync included", f.seconds, s.effective_gb_s())}};
  if (verbose) rows.push_back({"request", fmt::format("{:016x}", f.request)});
  return fmt::format("{}: complete and verified\n{}", printable(f.path.string()), table(rows, 2));
}

}  // namespace tersor::cli
