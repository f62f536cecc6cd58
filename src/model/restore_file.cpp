#include <array>
#include <cstring>

#include "core/bytes.hpp"
#include "model/block_writer.hpp"
#include "model/file_jobs.hpp"
#include "model/tensor_reader.hpp"

namespace tersor::model_detail {
namespace {

/// Compares what it takes with a file, from the start of its data section on.
class comparing_sink final : public byte_sink {
 public:
  comparing_sink(const safetensors::input_file* original, std::uint64_t at) : original_(original), at_(at) {}

  result<std::span<std::byte>> room(std::uint64_t n_min) override {
    if (n_capacity_ < n_min) {
      buffer_.reset();
      buffer_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(n_min));
      n_capacity_ = n_min;
    }
    return std::span(buffer_.get(), static_cast<std::size_t>(n_capacity_));
  }
  status take(std::uint64_t n) override { return put({buffer_.get(), static_cast<std::size_t>(n)}); }
  status put(std::span<const std::byte> bytes) override {
    if (original_ == nullptr) return {};
    TERSOR_TRY(const auto expected, original_->view(at_, bytes.size(), scratch_));
    if (const auto differs = first_difference(bytes, expected)) {
      auto e = fail_file(errc::mismatch, "the restored bytes differ from the original", original_->path());
      e.value().byte_offset = at_ + *differs;
      return e;
    }
    original_->drop(at_, bytes.size());
    at_ += bytes.size();
    return {};
  }

 private:
  const safetensors::input_file* original_;
  std::uint64_t at_;
  std::unique_ptr<std::byte[]> buffer_;
  std::uint64_t n_capacity_ = 0;
  std::vector<std::byte> scratch_;
};

status read_all(session& run, const container& src, byte_sink& sink, file_report& report) {
  std::vector<std::byte> scratch;
  for (const container_item& item : src.items) {
    TERSOR_CHECK(run.advance(0));
    TERSOR_TRY(const auto read, read_tensor(run.ctx(), src, item, scratch, sink,
                                            [&](std::uint64_t n_bytes) { return run.advance(n_bytes); }));
    report.tensors.push_back(read ? coded_report(item.original, *read)
                                  : stored_report(item.original, item.digest));
  }
  return {};
}

status compare_head(const container& src, const safetensors::input_file& original) {
  if (original.size() != src.original_bytes) {
    return fail_file(errc::mismatch,
                     "the original has " + std::to_string(original.size()) + " bytes, the restored file " +
                         std::to_string(src.original_bytes),
                     original.path());
  }
  std::vector<std::byte> scratch;
  TERSOR_TRY(const auto head, original.view(0, src.original_data_offset(), scratch));
  const auto expected = restored_head(src);
  if (const auto differs = first_difference(head, std::as_bytes(std::span(expected)))) {
    auto e = fail_file(errc::mismatch, "the restored header differs from the original's", original.path());
    e.value().byte_offset = *differs;
    return e;
  }
  return {};
}

}  // namespace

std::string restored_head(const container& src) {
  std::string head(safetensors::kLengthBytes, '\0');
  core::store_le<std::uint64_t>(head.data(), src.original_json.size());
  return head + src.original_json;
}

file_report report_of(const container& src) {
  return {.name = src.file.path().filename().string(),
          .is_safetensors = true,
          .is_compressed = true,
          .original_bytes = src.original_bytes,
          .stored_bytes = src.file.size(),
          .tensors = {}};
}

result<file_report> decompress_file(session& run, const container& src, safetensors::atomic_file* out) {
  file_report report = report_of(src);
  block_writer writer(out, 0);
  const std::string head = restored_head(src);
  TERSOR_CHECK(writer.put(std::as_bytes(std::span(head))));
  TERSOR_CHECK(run.advance(head.size()));
  TERSOR_CHECK(read_all(run, src, writer, report));
  TERSOR_CHECK(writer.finish());
  return report;
}

result<file_report> verify_file(session& run, const container& src, const safetensors::input_file* original) {
  file_report report = report_of(src);
  if (original != nullptr) TERSOR_CHECK(compare_head(src, *original));
  TERSOR_CHECK(run.advance(src.original_data_offset()));
  comparing_sink sink(original, src.original_data_offset());
  TERSOR_CHECK(read_all(run, src, sink, report));
  return report;
}

}  // namespace tersor::model_detail
