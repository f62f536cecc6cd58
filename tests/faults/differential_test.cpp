// All backends give the same bytes, or the same error code for the same chunk.
#include <gtest/gtest.h>

#include "support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;

class mutator {
 public:
  explicit mutator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() { return state_ = state_ * 6364136223846793005U + 1442695040888963407U, state_ >> 33; }

  /// A few changes, mostly where they get past the digests of header and index.
  void change(bytes& frame) {
    for (std::uint64_t n = next() % 4 + 1; n > 0; --n) {
      std::size_t at = next() % frame.size();
      if (next() % 4 == 0) at = 128 + next() % 96;
      if (next() % 16 == 0) at = next() % 128;
      const auto b = static_cast<std::byte>(next() % 3 == 0 ? next() : 1U << next() % 8);
      frame[at] = next() % 2 == 0 ? b : frame[at] ^ b;
    }
  }

 private:
  std::uint64_t state_;
};

TEST(differential, mutated_frames_give_the_same_verdict_everywhere) {
  std::vector<tersor::context> contexts;
  for (const std::string& backend : faults::backend_names()) {
    contexts.push_back(faults::make_context(1, backend));
    contexts.push_back(faults::make_context(3, backend));
  }
  mutator random(2024);
  std::uint64_t tried = 0;
  std::uint64_t different = 0;
  std::uint64_t good = 0;
  const unsigned rounds = faults::long_run() ? 40'000 : 800;
  for (const codec c : {codec::rank, codec::top16, codec::raw}) {
    for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
      const bytes frame = faults::encode_data(contexts[0], c, type, faults::mixed_values(type, 17'000, 8));
      for (unsigned round = 0; round < rounds / 5; ++round, ++tried) {
        bytes mutated = frame;
        random.change(mutated);
        if (random.next() % 8 != 0) faults::reseal(mutated);
        const faults::verdict expected = faults::decode_verdict(contexts[0], mutated);
        if (expected.code == tersor::errc::ok) ++good;
        for (std::size_t i = 1; i < contexts.size(); ++i) {
          if (faults::decode_verdict(contexts[i], mutated) == expected) continue;
          ++different;
          ADD_FAILURE() << contexts[i].backend() << " differs: " << to_string(c) << ' ' << to_string(type)
                        << " round " << round;
        }
      }
    }
  }
  EXPECT_LT(good, tried / 2);
  faults::publish(3, "mutated frames on all backends", tried, different, "frames");
}

}  // namespace
