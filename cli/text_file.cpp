#include "text_file.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace tersor::cli {
namespace {

tl::unexpected<error> fail_file(errc code, const std::string& message, const std::filesystem::path& path) {
  return tl::unexpected<error>(error{.code = code, .message = message, .file = path.string()});
}

}  // namespace

result<std::string> read_text(const std::filesystem::path& path) {
  // Far above a codebook for every tensor of the largest model.
  constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 30;
  std::error_code code;
  const auto kind = std::filesystem::status(path, code);
  if (kind.type() == std::filesystem::file_type::not_found) {
    return fail_file(errc::not_found, "cannot open: No such file or directory", path);
  }
  if (!code && !std::filesystem::is_regular_file(kind))
    return fail_file(errc::io_error, "is not a regular file", path);
  const auto size = std::filesystem::file_size(path, code);
  if (!code && size > kMaxBytes) return fail_file(errc::malformed, "is too large for a text file", path);
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || (size > 0 && !(text << in.rdbuf()))) {
    return fail_file(errc::io_error, std::string("cannot read: ") + std::strerror(errno), path);
  }
  return std::move(text).str();
}

result<codebook_set> read_codebooks(const std::filesystem::path& path) {
  TERSOR_TRY(const std::string text, read_text(path));
  auto books = codebook_set::from_json(text);
  if (!books && books.error().file.empty()) books.error().file = path.string();
  return books;
}

}  // namespace tersor::cli
