// Damaged frames: the GPU says of each what the CPU says, writes nothing beside its destination, and ends.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "damage.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::errc;
using tersor::cuda::decode_task;
using tersor::cuda::frame_result;

constexpr std::uint64_t kMostValues = 40'000;

/// One frame, what the task expects of it, and what the CPU says.
struct shot {
  codec c = codec::rank;
  dtype type = dtype::bf16;
  std::uint64_t n_values = 0;
  bool declares_other = false;  ///< the header names another codec, dtype or number than the task
  bytes frame;
  verdict cpu;
  std::string what;
  std::uint64_t frame_at = 0, dst_at = 0, codes_at = 0;

  [[nodiscard]] std::uint64_t dst_bytes() const { return n_values * tersor::value_bytes(type); }
  [[nodiscard]] std::uint64_t n_chunks() const { return (n_values + 8191) / 8192; }
};

/// The task asks for what `good` held or, where `believe` is set and the GPU could, for what the header
/// declares, so that later checks are reached.
shot make_shot(const env& e, const good_frame& good, bytes frame, bool believe, std::string what) {
  shot s{.c = good.codec,
         .type = good.type,
         .n_values = good.n_values,
         .frame = std::move(frame),
         .cpu = {},
         .what = std::move(what)};
  s.cpu = cpu_verdict(e.single, s.frame);
  if (s.frame.size() < 128) return s;
  const auto c = static_cast<codec>(s.frame[10]);
  const auto type = static_cast<dtype>(s.frame[11]);
  std::uint64_t n_values = 0;
  std::memcpy(&n_values, s.frame.data() + 16, 8);
  s.declares_other = c != s.c || type != s.type || n_values != s.n_values;
  const bool possible = std::ranges::find(kCodecs, c) != kCodecs.end() &&
                        std::ranges::find(kTypes, type) != kTypes.end() && n_values <= kMostValues;
  if (!s.declares_other || !believe || !possible) return s;
  s.c = c;
  s.type = type;
  s.n_values = n_values;
  s.declares_other = false;
  return s;
}

/// Frames, destinations and verdicts of one launch. The last frame ends where its allocation does.
struct volley {
  std::vector<shot> shots;
  device_memory frames, dst, codes, results;
  std::uint64_t dst_bytes = 0, codes_bytes = 0;
};

void place(volley& v, prng& random) {
  std::uint64_t at = 0;
  for (shot& s : v.shots) {
    s.frame_at = (at + 127) / 128 * 128;
    at = s.frame_at + s.frame.size();
    s.dst_at = v.dst_bytes + 512 + random.below(16);
    v.dst_bytes = s.dst_at + s.dst_bytes() + 512;
    s.codes_at = v.codes_bytes + 16;
    v.codes_bytes = s.codes_at + s.n_chunks() + 16;
  }
  v.frames.free();
  v.frames.grow(at);
  bytes all(at, std::byte{0xff});
  for (const shot& s : v.shots)
    std::ranges::copy(s.frame, all.begin() + static_cast<std::ptrdiff_t>(s.frame_at));
  v.frames.put(0, all);
  v.dst.grow(v.dst_bytes);
  v.dst.fill(0, v.dst_bytes, kGuard);
  v.codes.grow(v.codes_bytes);
  v.codes.fill(0, v.codes_bytes, kGuard);
  v.results.grow(v.shots.size() * sizeof(frame_result));
  v.results.fill(0, v.shots.size() * sizeof(frame_result), kPoison);
}

std::vector<decode_task> tasks_of(const volley& v) {
  std::vector<decode_task> tasks;
  for (std::size_t i = 0; i < v.shots.size(); ++i) {
    const shot& s = v.shots[i];
    tasks.push_back({.type = s.type,
                     .n_values = s.n_values,
                     .frame_dev = v.frames.get() + s.frame_at,
                     .frame_bytes = s.frame.size(),
                     .dst_dev = v.dst.get() + s.dst_at,
                     .result_dev = v.results.as<frame_result>() + i,
                     .chunk_codes_dev = i % 4 == 3 ? nullptr : v.codes.get() + s.codes_at});
  }
  return tasks;
}

void check_verdict(section& s, const shot& shot, const frame_result& r) {
  const auto code = static_cast<errc>(r.code);
  const std::string said = "GPU says " + std::to_string(r.code) + " chunk " + std::to_string(r.chunk) +
                           ", CPU " + std::to_string(static_cast<int>(shot.cpu.code)) + " chunk " +
                           std::to_string(shot.cpu.chunk);
  if (shot.declares_other && shot.cpu.believed) {
    const bool refused = code == errc::mismatch || (code != errc::ok && code == shot.cpu.code);
    s.check(refused, "not refused as another frame than expected: " + said, shot.what);
    return;
  }
  if (!s.check(code == shot.cpu.code, said, shot.what)) return;
  if (shot.cpu.chunk != tersor::cuda::kNoChunk)
    s.check(r.chunk == shot.cpu.chunk, "another first bad chunk: " + said, shot.what);
  if (code == errc::ok) {
    s.check(r.frame_bytes == shot.cpu.frame_bytes && r.digest == shot.cpu.digest &&
                r.chunk == tersor::cuda::kNoChunk,
            "result of a good frame is wrong", shot.what);
  }
}

/// Where header and index are good, every chunk has a verdict of its own.
void check_chunks(const env& e, section& s, const shot& shot, byte_view codes) {
  if (!shot.cpu.opened || shot.declares_other) return;
  bytes chunk(shot.dst_bytes());
  for (std::uint64_t i = 0; i < shot.n_chunks(); ++i) {
    const auto decoded = tersor::decode_chunks(e.single, shot.frame, i, 1, chunk);
    const errc expected = decoded ? errc::ok : decoded.error().code;
    s.check(std::to_integer<int>(codes[i]) == static_cast<int>(expected),
            "chunk " + std::to_string(i) + " has code " + std::to_string(std::to_integer<int>(codes[i])) +
                ", not " + std::to_string(static_cast<int>(expected)),
            shot.what);
  }
}

/// True if the bytes from `from` to `to` are the guard's.
bool untouched(const bytes& all, std::uint64_t from, std::uint64_t to) {
  return std::all_of(all.begin() + static_cast<std::ptrdiff_t>(from),
                     all.begin() + static_cast<std::ptrdiff_t>(to),
                     [](std::byte b) { return b == std::byte{kGuard}; });
}

void check_volley(const env& e, section& s, const volley& v) {
  const bytes dst = v.dst.take(0, v.dst_bytes);
  const bytes codes = v.codes.take(0, v.codes_bytes);
  const bytes raw_results = v.results.take(0, v.shots.size() * sizeof(frame_result));
  std::uint64_t dst_end = 0, codes_end = 0;
  for (std::size_t i = 0; i < v.shots.size(); ++i) {
    const shot& shot = v.shots[i];
    frame_result r;
    std::memcpy(&r, raw_results.data() + i * sizeof r, sizeof r);
    check_verdict(s, shot, r);
    s.check(untouched(dst, dst_end, shot.dst_at), "written beside a destination", shot.what);
    s.check(untouched(codes, codes_end, shot.codes_at), "written beside the chunks' codes", shot.what);
    const byte_view found = byte_view(dst).subspan(shot.dst_at, shot.dst_bytes());
    if (r.code == 0 && shot.cpu.code == errc::ok && !shot.declares_other)
      s.check(std::ranges::equal(found, shot.cpu.data), "decoded values differ", shot.what);
    if (i % 4 != 3) check_chunks(e, s, shot, byte_view(codes).subspan(shot.codes_at, shot.n_chunks()));
    dst_end = shot.dst_at + shot.dst_bytes();
    codes_end = shot.codes_at + shot.n_chunks();
    s.add_values(shot.n_values);
  }
  s.check(untouched(dst, dst_end, v.dst_bytes) && untouched(codes, codes_end, v.codes_bytes),
          "written behind the last destination");
}

/// Decodes all shots of one codec in one launch.
void fire(const env& e, section& s, const side_stream& stream, work_memory& work, volley& v, codec c,
          prng& random, bool single) {
  if (v.shots.empty()) return;
  place(v, random);
  const auto tasks = tasks_of(v);
  const auto memory = work.of(tersor::cuda::decode_workspace_size(tasks));
  const auto called = single ? tersor::cuda::decode_async(c, tasks[0], memory, as_stream(stream.get()))
                             : tersor::cuda::decode_batch_async(c, tasks, memory, as_stream(stream.get()));
  e.wait(stream.get(), s, "damaged frames, first: " + v.shots[0].what);
  if (s.check(called.has_value(), "decode: " + text_of(called), v.shots[0].what)) check_volley(e, s, v);
}

/// Sorts shots by codec and fires them in volleys.
class battery {
 public:
  battery(const env& e, section& s, std::size_t size) : env_(e), section_(s), size_(size) {}

  void add(shot s) {
    const std::size_t slot = s.c == codec::rank ? 0 : 1;
    waiting_[slot].push_back(std::move(s));
    if (waiting_[slot].size() >= size_) flush(slot);
  }
  void flush() {
    flush(0);
    flush(1);
  }

 private:
  void flush(std::size_t slot) {
    volley_.shots = std::exchange(waiting_[slot], {});
    volley_.dst_bytes = volley_.codes_bytes = 0;
    // Frames of one dtype may share a launch; mixed ones may not.
    if (++volleys_ % 2 == 0) std::ranges::stable_sort(volley_.shots, {}, &shot::type);
    fire(env_, section_, stream_, work_, volley_, kCodecs[slot], random_, size_ == 1);
  }

  const env& env_;
  section& section_;
  std::size_t size_;
  side_stream stream_;
  work_memory work_;
  prng random_{9};
  unsigned volleys_ = 0;
  std::vector<shot> waiting_[2];
  volley volley_;
};

void random_damage(const env& e, section& s, const std::vector<good_frame>& good, std::uint64_t n,
                   std::size_t size, std::uint64_t seed) {
  battery guns(e, s, size);
  for (std::uint64_t i = 0; i < n; ++i) {
    prng random(seed + i);
    const good_frame& from = good[random.below(good.size())];
    const auto damage = static_cast<unsigned>(i % kDamages);
    bytes frame = make_damaged(from, good[random.below(good.size())], damage, random);
    // Frames too short for a header are fired alone, see below.
    if (frame.size() < 128 && size != 1) continue;
    guns.add(make_shot(e, from, std::move(frame), random.below(4) != 0,
                       label(from.codec, from.type, from.n_values,
                             std::string(damage_name(damage)) + ", seed " + std::to_string(seed + i))));
  }
  guns.flush();
}

void short_frames(const env& e, section& s, const std::vector<good_frame>& good) {
  battery guns(e, s, 1);
  for (const std::uint64_t n : std::initializer_list<std::uint64_t>{0, 1, 4, 7, 8, 16, 63, 64, 127}) {
    const good_frame& from = good[n % good.size()];
    bytes frame(from.frame.begin(), from.frame.begin() + static_cast<std::ptrdiff_t>(n));
    guns.add(make_shot(e, from, std::move(frame), false, "cut to " + std::to_string(n)));
  }
  guns.flush();
}

/// The undamaged frames themselves, some with bytes behind them.
void good_ones(const env& e, section& s, const std::vector<good_frame>& good) {
  battery guns(e, s, 16);
  for (std::size_t i = 0; i < good.size(); ++i) {
    bytes frame = good[i].frame;
    frame.resize(frame.size() + i % 3 * 100, std::byte{0xee});
    guns.add(make_shot(e, good[i], std::move(frame), false, "a good frame"));
    s.check(good[i].frame.size() >= 128, "a good frame is short");
  }
  guns.flush();
}

void vectors(const env& e, section& s) {
  if (e.opt.vectors.empty()) return s.note("must-fail frames: no --vectors given");
  std::vector<std::string> files;
  for (const auto& file : std::filesystem::directory_iterator(e.opt.vectors + "/must-fail"))
    if (file.path().extension() == ".tersor") files.push_back(file.path().string());
  std::ranges::sort(files);
  s.check(files.size() >= 40, "fewer than 40 must-fail frames", e.opt.vectors);
  battery guns(e, s, 1);
  const good_frame usual{.n_values = 1000, .frame = {}};
  for (const std::string& file : files)
    guns.add(make_shot(e, usual, read_file(file), true, std::filesystem::path(file).filename()));
  guns.flush();
}

}  // namespace

void run_hostile(const env& e, section& s) {
  const auto good = make_good_frames(e);
  good_ones(e, s, good);
  short_frames(e, s, good);
  vectors(e, s);
  random_damage(e, s, good, e.pick<std::uint64_t>(48, 2048), 1, 1'000'000);
  random_damage(e, s, good, e.pick<std::uint64_t>(480, 65'536), e.pick<std::size_t>(24, 256), 2'000'000);
}

}  // namespace gpu_test
