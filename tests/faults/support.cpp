#include "support.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include <sys/mman.h>
#include <unistd.h>

#include "../golden/sample_data.hpp"
#include "codec/frame_codec.hpp"
#include "core/bytes.hpp"
#include "core/checked.hpp"

namespace faults {
namespace {

[[noreturn]] void give_up(const std::string& why) {
  std::cerr << "the test cannot go on: " << why << '\n';
  std::abort();
}

}  // namespace

bool long_run() {
  const char* wanted = std::getenv("TERSOR_LONG");
  return wanted != nullptr && std::string_view(wanted) == "1";
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const auto& backend : tersor::backends()) {
    if (backend.supported) names.emplace_back(backend.name);
  }
  return names;
}

tersor::context make_context(unsigned threads, std::string_view backend) {
  auto ctx = tersor::context::create(threads, backend);
  if (!ctx) give_up(ctx.error().describe());
  return std::move(*ctx);
}

void publish(int row, std::string_view what, std::uint64_t count, std::uint64_t wrong,
             std::string_view unit) {
  std::ostringstream line;
  line << "{\"row\":" << row << ",\"what\":\"" << what << "\",\"count\":" << count << ",\"wrong\":" << wrong
       << ",\"unit\":\"" << unit << "\"}";
  std::cout << "figure " << line.str() << std::endl;
  if (const char* path = std::getenv("TERSOR_FIGURES"); path != nullptr) {
    std::ofstream(path, std::ios::app) << line.str() << '\n';
  }
}

bytes encode_data(const tersor::context& ctx, tersor::codec c, tersor::dtype type,
                  std::span<const std::byte> data, bool raw_fallback) {
  const std::uint64_t shape[] = {data.size() / tersor::value_bytes(type)};
  auto frame = tersor::encode(ctx, {.type = type, .shape = shape, .data = data},
                              {.codec = c, .raw_fallback = raw_fallback});
  if (!frame) give_up(frame.error().describe());
  return std::move(*frame);
}

bytes mixed_values(tersor::dtype type, std::uint64_t n_values, std::uint64_t seed) {
  return golden::sample(type, n_values, golden::pattern::mixed, seed);
}

verdict decode_verdict(const tersor::context& ctx, std::span<const std::byte> frame) {
  auto decoded = tersor::decode(ctx, frame);
  if (decoded) return {.data = std::move(decoded->data)};
  const auto& e = decoded.error();
  return {.code = e.code, .chunk = e.chunk ? static_cast<std::int64_t>(*e.chunk) : -1};
}

void reseal(std::span<std::byte> frame) {
  constexpr std::size_t kHeader = tersor::format::kFrameHeaderBytes;
  if (frame.size() < kHeader) return;
  auto* p = reinterpret_cast<std::uint8_t*>(frame.data());
  const auto n_values = tersor::core::load_le<std::uint64_t>(p + 16);
  const bool raw = p[10] == 0;
  if (n_values <= frame.size() * 2) {
    const std::uint64_t record = raw ? tersor::format::kRawRecordBytes : tersor::format::kChunkRecordBytes;
    const std::uint64_t n_chunks =
        raw ? tersor::core::ceil_div(n_values * tersor::value_bytes(static_cast<tersor::dtype>(p[11])), 16384)
            : tersor::core::ceil_div(n_values, 8192);
    if (n_chunks * record <= frame.size() - kHeader) {
      tersor::core::store_le<std::uint64_t>(
          p + 32, tersor::codec_detail::index_digest_of({p + kHeader, n_chunks * record}, record));
    }
  }
  const std::span<const std::uint8_t, kHeader> header(p, kHeader);
  tersor::core::store_le<std::uint64_t>(p + tersor::format::kHeaderDigestOffset,
                                        tersor::codec_detail::header_digest_of(header));
}

guarded::guarded(std::size_t capacity) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  capacity_ = (std::max<std::size_t>(capacity, 1) + page - 1) / page * page;
  void* map = ::mmap(nullptr, capacity_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) give_up("no guarded memory");
  map_ = static_cast<std::byte*>(map);
  data_ = map_ + page;
  if (::mprotect(data_, capacity_, PROT_READ | PROT_WRITE) != 0) give_up("no guarded memory");
}

guarded::~guarded() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  ::munmap(map_, capacity_ + 2 * page);
}

temp_dir::temp_dir() {
  const bool shm = ::access("/dev/shm", W_OK) == 0;
  std::string pattern = (shm ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
                        "tersor-fault-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) give_up("no temporary directory");
  path_ = pattern;
}

temp_dir::~temp_dir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> temp_dir::names() const {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    found.push_back(entry.path().filename().string());
  }
  return found;
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> data) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  if (!out.flush()) give_up("cannot write " + path.string());
}

bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) give_up("cannot read " + path.string());
  bytes data(static_cast<std::size_t>(in.tellg()));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
  return data;
}

void write_model(const std::filesystem::path& path, std::uint64_t n_values) {
  const bytes weights = golden::sample(tersor::dtype::bf16, n_values, golden::pattern::mixed, 21);
  const bytes halves = golden::sample(tersor::dtype::f16, n_values / 4, golden::pattern::weights, 22);
  const bytes numbers = golden::sample(tersor::dtype::i32, 100, golden::pattern::uniform, 23);
  std::string json = R"({"__metadata__":{"format":"pt"})";
  bytes data;
  const auto add = [&](const char* name, tersor::dtype type, const std::string& shape, const bytes& values) {
    json += ",\"" + std::string(name) + R"(":{"dtype":")" + std::string(tersor::to_string(type)) +
            R"(","shape":)" + shape + R"(,"data_offsets":[)" + std::to_string(data.size()) + "," +
            std::to_string(data.size() + values.size()) + "]}";
    data.insert(data.end(), values.begin(), values.end());
  };
  add("weights", tersor::dtype::bf16, "[" + std::to_string(n_values) + "]", weights);
  add("halves", tersor::dtype::f16, "[" + std::to_string(n_values / 4) + "]", halves);
  add("numbers", tersor::dtype::i32, "[10,10]", numbers);
  add("empty", tersor::dtype::bf16, "[0,7]", {});
  json += "}";
  bytes file(8 + json.size());
  tersor::core::store_le<std::uint64_t>(file.data(), json.size());
  std::memcpy(file.data() + 8, json.data(), json.size());
  file.insert(file.end(), data.begin(), data.end());
  write_file(path, file);
}

std::uint64_t peak_kib() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6));
  }
  return 0;
}

void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace faults
