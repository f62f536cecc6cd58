// A model file or directory from C++: compress, verify against the original, print what it gained.
#include <cstdio>

#include <tersor/tersor.hpp>

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: compress_model MODEL OUT\n"), 2;
  const auto ctx = tersor::context::create();
  if (!ctx) return std::fprintf(stderr, "%s\n", ctx.error().describe().c_str()), 2;
  const auto report = tersor::compress(*ctx, argv[1], argv[2], {.overwrite = true});
  if (!report) return std::fprintf(stderr, "%s\n", report.error().describe().c_str()), 2;
  const auto right = tersor::verify(*ctx, argv[2], argv[1]);
  if (!right) return std::fprintf(stderr, "%s\n", right.error().describe().c_str()), 1;
  std::printf("%llu -> %llu bytes, ratio %.3f, verified\n",
              static_cast<unsigned long long>(report->original_bytes),
              static_cast<unsigned long long>(report->stored_bytes),
              static_cast<double>(report->original_bytes) / static_cast<double>(report->stored_bytes));
  return 0;
}
