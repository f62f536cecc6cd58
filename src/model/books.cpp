// Codebook sets and their JSON.
#include <nlohmann/json.hpp>

#include "codec/frame_codec.hpp"
#include <tersor/model.hpp>

namespace tersor {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using entry_map = std::map<std::string, codebook_set::entry, std::less<>>;

constexpr std::uint64_t kBooksVersion = 0;

tl::unexpected<error> fail_json(std::string message) {
  return fail(errc::malformed, "codebook file: " + std::move(message));
}

ordered_json entries_to_json(const entry_map& entries) {
  ordered_json out = ordered_json::object();
  for (const auto& [name, entry] : entries) {
    out[name] = {{"dtype", std::string(to_string(entry.type))}, {"symbols", entry.book.symbols}};
  }
  return out;
}

result<codebook> book_from_json(const json& symbols, dtype type) {
  codebook book;
  if (!symbols.is_array() || symbols.size() != book.symbols.size())
    return fail_json("symbols are not 16 numbers");
  for (std::size_t i = 0; i < book.symbols.size(); ++i) {
    if (!symbols[i].is_number_unsigned() || symbols[i].get<std::uint64_t>() > 0xff) {
      return fail_json("a symbol is not a number below 256");
    }
    book.symbols[i] = symbols[i].get<std::uint8_t>();
  }
  const auto plan = codec_detail::make_plan(codec::rank, codec_detail::find_planes(type)->symbol_bits);
  if (!codec_detail::is_valid_book(plan, book)) return fail_json("symbols repeat or leave the dtype's width");
  return book;
}

result<dtype> codable_from(const std::string& name) {
  const auto type = parse_dtype(name);
  if (!type || !is_codable(*type)) return fail_json("'" + name + "' is no dtype with a coded exponent");
  return *type;
}

result<codebook_set::entry> entry_from_json(const json& value) {
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
      !value.contains("symbols")) {
    return fail_json("an entry has no dtype or no symbols");
  }
  TERSOR_TRY(const dtype type, codable_from(value["dtype"].get<std::string>()));
  TERSOR_TRY(const codebook book, book_from_json(value["symbols"], type));
  return codebook_set::entry{.type = type, .book = book};
}

result<entry_map> entries_from_json(const json& root, const char* key) {
  entry_map entries;
  if (!root.contains(key)) return entries;
  if (!root[key].is_object()) return fail_json(std::string(key) + " is not an object");
  for (const auto& [name, value] : root[key].items()) {
    TERSOR_TRY(const codebook_set::entry entry, entry_from_json(value));
    entries.emplace(name, entry);
  }
  return entries;
}

result<codebook_set> set_from_json(const json& root) {
  if (!root.is_object()) return fail_json("not a JSON object");
  const json version = root.value("tersor_codebooks", json());
  if (!version.is_number_unsigned()) return fail_json("no member 'tersor_codebooks'");
  if (version != kBooksVersion) return fail(errc::unsupported_version, "codebook file of a newer Tersor");
  codebook_set set;
  TERSOR_TRY(set.by_name, entries_from_json(root, "by_name"));
  TERSOR_TRY(set.by_type, entries_from_json(root, "by_type"));
  if (!root.contains("by_dtype")) return set;
  if (!root["by_dtype"].is_object()) return fail_json("by_dtype is not an object");
  for (const auto& [name, value] : root["by_dtype"].items()) {
    TERSOR_TRY(const dtype type, codable_from(name));
    TERSOR_TRY(const codebook book, book_from_json(value, type));
    set.by_dtype.emplace(type, book);
  }
  return set;
}

}  // namespace

std::optional<codebook> codebook_set::find(std::string_view tensor_name, dtype type) const {
  const auto look = [type](const entry_map& entries, std::string_view key) -> std::optional<codebook> {
    const auto found = entries.find(key);
    if (found == entries.end() || found->second.type != type) return std::nullopt;
    return found->second.book;
  };
  if (const auto own = look(by_name, tensor_name)) return own;
  if (const auto shared = look(by_type, tersor::tensor_type(tensor_name))) return shared;
  const auto found = by_dtype.find(type);
  if (found == by_dtype.end()) return std::nullopt;
  return found->second;
}

std::string codebook_set::to_json() const {
  ordered_json root;
  root["tersor_codebooks"] = kBooksVersion;
  root["by_dtype"] = ordered_json::object();
  for (const auto& [type, book] : by_dtype) root["by_dtype"][std::string(to_string(type))] = book.symbols;
  root["by_type"] = entries_to_json(by_type);
  root["by_name"] = entries_to_json(by_name);
  return root.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

result<codebook_set> codebook_set::from_json(std::string_view text) {
  try {
    const json root = json::parse(text, nullptr, false);
    if (root.is_discarded()) return fail_json("not valid JSON");
    return set_from_json(root);
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    return fail(errc::internal, e.what());
  }
}

}  // namespace tersor
