// The part of a launch that one CTA works on: a group, and which of its chunks.
//
// Both kinds answer the same questions, so that a kernel is written once: chunks first(), first() + step(),
// ... of n_frames() * shape().n_chunks, frame after frame.
#pragma once

#include "cuda/codec/tiles.cuh"

namespace tersor::cuda {

struct chunk_place {
  u32 frame, chunk;
};

template <class Launch>
class tensor_work {
 public:
  static constexpr bool kPages = false;
  static constexpr bool kOneFrame = true;
  TERSOR_DEVICE tensor_work(const Launch& l, u32 cta) : l_(l) {
    if constexpr (Launch::kMost > 1) {
      while (group_ + 1 < l.n_groups && cta >= l.first_cta[group_ + 1]) ++group_;
      cta -= l.first_cta[group_];
    }
    first_ = cta;
  }
  [[nodiscard]] TERSOR_DEVICE u32 first() const { return first_; }
  [[nodiscard]] TERSOR_DEVICE u32 step() const { return l_.first_cta[group_ + 1] - l_.first_cta[group_]; }
  [[nodiscard]] TERSOR_DEVICE const frame_shape& shape() const { return group().shape; }
  [[nodiscard]] TERSOR_DEVICE u32 n_chunks() const { return shape().n_chunks; }
  [[nodiscard]] TERSOR_DEVICE u32 n_frames() const { return 1; }
  [[nodiscard]] TERSOR_DEVICE chunk_place locate(u32 chunk) const { return {0, chunk}; }
  [[nodiscard]] TERSOR_DEVICE u8* frame(u32) const { return group().frame; }
  template <class Lane>
  [[nodiscard]] TERSOR_DEVICE tensor_tiles<Lane> tiles(u32) const {
    return {group().tensor, shape()};
  }
  [[nodiscard]] TERSOR_DEVICE result_slot* result(u32) const { return group().result; }
  [[nodiscard]] TERSOR_DEVICE u8* chunk_codes(u32) const { return group().chunk_codes; }
  [[nodiscard]] TERSOR_DEVICE frame_totals* totals(u32) const { return l_.totals + group_; }
  [[nodiscard]] TERSOR_DEVICE const u64* header() const { return group().header; }
  [[nodiscard]] TERSOR_DEVICE const u8* codebook() const { return group().codebook; }
  [[nodiscard]] TERSOR_DEVICE u32* waiting(u32) const { return l_.waiting[group_]; }
  [[nodiscard]] TERSOR_DEVICE u32* order_words(u32) const { return l_.order_words[group_]; }
  [[nodiscard]] TERSOR_DEVICE const result_slot* where(u32) const { return nullptr; }

 private:
  [[nodiscard]] TERSOR_DEVICE const tensor_group& group() const { return l_.groups[group_]; }
  const Launch& l_;
  u32 group_ = 0, first_;
};

class page_work {
 public:
  static constexpr bool kPages = true;
  static constexpr bool kOneFrame = false;  ///< maybe one: n_frames()
  TERSOR_DEVICE page_work(const page_launch& l, u32 cta)
      : l_(l), group_(cta / l.ctas_per_group), first_(cta % l.ctas_per_group) {}
  [[nodiscard]] TERSOR_DEVICE u32 first() const { return first_; }
  [[nodiscard]] TERSOR_DEVICE u32 step() const { return l_.ctas_per_group; }
  [[nodiscard]] TERSOR_DEVICE const frame_shape& shape() const { return l_.shape; }
  [[nodiscard]] TERSOR_DEVICE u32 n_chunks() const { return l_.n_frames * l_.shape.n_chunks; }
  [[nodiscard]] TERSOR_DEVICE u32 n_frames() const { return l_.n_frames; }
  [[nodiscard]] TERSOR_DEVICE chunk_place locate(u32 chunk) const {
    if (l_.n_frames == 1) return {0, chunk};
    const u32 frame = chunk / l_.shape.n_chunks;
    return {frame, chunk - frame * l_.shape.n_chunks};
  }
  [[nodiscard]] TERSOR_DEVICE u8* frame(u32 f) const { return l_.frames + number(f) * l_.frame_stride; }
  template <class Lane>
  [[nodiscard]] TERSOR_DEVICE page_tiles<Lane> tiles(u32 f) const {
    return {l_.pools[group_], l_.page_ids + static_cast<u64>(f) * l_.n_pages, l_.pages, l_.shape};
  }
  [[nodiscard]] TERSOR_DEVICE result_slot* result(u32 f) const { return l_.results + number(f); }
  [[nodiscard]] TERSOR_DEVICE u8* chunk_codes(u32) const { return nullptr; }
  [[nodiscard]] TERSOR_DEVICE frame_totals* totals(u32 f) const { return l_.totals + number(f); }
  [[nodiscard]] TERSOR_DEVICE const u64* header() const { return l_.header; }
  [[nodiscard]] TERSOR_DEVICE const u8* codebook() const {
    return l_.codebooks + 16 * static_cast<u64>(group_);
  }
  [[nodiscard]] TERSOR_DEVICE u32* waiting(u32 f) const {
    return l_.waiting == nullptr ? nullptr : l_.waiting + number(f) * l_.waiting_stride;
  }
  [[nodiscard]] TERSOR_DEVICE u32* order_words(u32 f) const {
    return l_.order_words + number(f) * l_.order_blocks;
  }
  [[nodiscard]] TERSOR_DEVICE const result_slot* where(u32 f) const {
    return l_.where == nullptr ? nullptr : l_.where + number(f);
  }

 private:
  [[nodiscard]] TERSOR_DEVICE u64 number(u32 f) const { return static_cast<u64>(group_) * l_.n_frames + f; }
  const page_launch& l_;
  u32 group_, first_;
};

template <u32 kMaxGroups>
TERSOR_DEVICE tensor_work<tensors_launch<kMaxGroups>> work_of(const tensors_launch<kMaxGroups>& l, u32 cta) {
  return {l, cta};
}
TERSOR_DEVICE page_work work_of(const page_launch& l, u32 cta) {
  return {l, cta};
}

TERSOR_DEVICE frame_planes planes_of(u8* frame, const frame_shape& s) {
  return {frame + s.rest, {frame + s.fields[0], frame + s.fields[1]}, frame + s.code};
}

}  // namespace tersor::cuda
