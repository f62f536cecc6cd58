#include "model/config_splice.hpp"

#include <cstdio>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/checked.hpp"
#include "format/container_header.hpp"
#include "model/container.hpp"
#include "model/json_object.hpp"

namespace tersor::model_detail {
namespace {

using nlohmann::json;

constexpr std::string_view kMember = "quantization_config";
constexpr std::string_view kMethod = "tersor";
constexpr std::size_t kPositionDigits = 12;

std::string twelve_digits(std::size_t value) {
  std::string digits = std::to_string(value);
  return std::string(kPositionDigits - std::min(kPositionDigits, digits.size()), '0') + digits;
}

/// What is inserted, for a given length of itself; every length gives a text of the same size.
std::string insertion(std::string_view before, std::string_view after, std::size_t offset, std::size_t length,
                      std::string_view replaced, std::uint64_t digest) {
  std::string text(before);
  text += R"({"quant_method": "tersor", "version": )";
  text += format::kContainerVersion;
  text += R"(, "splice": ")" + twelve_digits(offset) + "+" + twelve_digits(length);
  text += R"(", "replaced": )" + json(replaced).dump();
  text += R"(, "digest": ")" + format::to_hex(digest) + "\"}";
  text += after;
  return text;
}

std::optional<std::size_t> parse_position(std::string_view digits) {
  if (digits.size() != kPositionDigits) return std::nullopt;
  std::size_t value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::size_t>(c - '0');
  }
  return value;
}

struct splice {
  std::size_t offset = 0;
  std::size_t length = 0;
  std::string replaced;
  std::uint64_t digest = 0;
};

result<splice> read_splice(std::string_view value) {
  const auto bad = [] { return fail(errc::malformed, "quantization_config is not as compress wrote it"); };
  const json member = json::parse(value, nullptr, false);
  if (!member.is_object() || member.value("quant_method", json()) != kMethod) {
    return fail(errc::malformed, "quantization_config is not Tersor's");
  }
  const json version = member.value("version", json());
  if (!version.is_number_unsigned()) return bad();
  if (version != kContainerFormatVersion) {
    return fail(errc::unsupported_version, "quantization_config is of version " + version.dump() +
                                               ", which is not one that this Tersor reads (" +
                                               std::string(format::kContainerVersion) + ")");
  }
  const json position = member.value("splice", json());
  const json replaced = member.value("replaced", json());
  const json digest = member.value("digest", json());
  if (!position.is_string() || !replaced.is_string() || !digest.is_string()) return bad();
  const auto& text = position.get_ref<const std::string&>();
  if (text.size() != 2 * kPositionDigits + 1 || text[kPositionDigits] != '+') return bad();
  const auto offset = parse_position(std::string_view(text).substr(0, kPositionDigits));
  const auto length = parse_position(std::string_view(text).substr(kPositionDigits + 1));
  const auto value64 = format::parse_hex(digest.get_ref<const std::string&>());
  if (!offset || !length || !value64) return bad();
  return splice{
      .offset = *offset, .length = *length, .replaced = replaced.get<std::string>(), .digest = *value64};
}

bool claims_splice(std::string_view text) {
  return text.find(R"("quant_method": "tersor")") != std::string_view::npos;
}

}  // namespace

result<std::optional<std::string>> splice_config(const context& ctx, std::string_view text) {
  const auto object = scan_object(text, kMember);
  if (!object) {
    // A text that is copied as it is must not look spliced when the model is restored.
    if (!claims_splice(text)) return std::nullopt;
    return fail(errc::malformed, "not valid JSON, but it names the quantization method 'tersor'");
  }
  std::string before;
  std::string after;
  text_range replaced{object->after_brace, object->after_brace};
  if (object->value) {
    replaced = *object->value;
  } else if (object->is_empty) {
    before = "\"quantization_config\": ";
  } else {
    // The white space before the first member, so that the new one is indented like the others.
    before = text_range{object->after_brace, object->first_member}.of(text);
    before += "\"quantization_config\": ";
    after = ",";
  }
  const std::uint64_t digest = digest_of_text(ctx, format::kStoredDigestDomain, text);
  const std::size_t length = insertion(before, after, replaced.begin, 0, replaced.of(text), digest).size();
  std::string out(text.substr(0, replaced.begin));
  out += insertion(before, after, replaced.begin, length, replaced.of(text), digest);
  out += text.substr(replaced.end);
  return out;
}

result<std::optional<std::string>> restore_config(const context& ctx, std::string_view text) {
  const auto object = scan_object(text, kMember);
  if (!object) {
    if (!claims_splice(text)) return std::nullopt;
    return fail(errc::malformed, "not valid JSON any more");
  }
  if (!object->value) return fail(errc::malformed, "Tersor's quantization_config is missing");
  TERSOR_TRY(const splice found, read_splice(object->value->of(text)));
  if (found.offset > text.size() || found.length > text.size() - found.offset) {
    return fail(errc::malformed, "the splice leaves the text");
  }
  std::string out(text.substr(0, found.offset));
  out += found.replaced;
  out += text.substr(found.offset + found.length);
  if (digest_of_text(ctx, format::kStoredDigestDomain, out) != found.digest) {
    return fail(errc::digest_mismatch, "the text was changed after compress wrote it");
  }
  return out;
}

}  // namespace tersor::model_detail
