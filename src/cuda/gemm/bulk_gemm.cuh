// Y = X W^T from weights in the `packed` layout, fed by the copy engine: compute capability 9.0 and newer.
// The products are mma.sync (any of them) or wgmma with the decoded weights in registers (9.0a only).
//
// Grid: x = ctas * split_k (a cluster of split_k CTAs works on the same rows), y = groups. A CTA owns
// consecutive blocks of 16 rows and goes through them kTeams at a time (a pass). Team r of kTeam warps takes
// row block r of the pass; its warps share the columns: group g of columns is kTeam consecutive blocks of
// 128, one a warp. For wgmma the warps of four neighbouring teams that share their columns are a warpgroup.
// Two more warps fetch, by one thread each: weights, and X (apart, so that neither waits for the other's
// counters).
//
// Shared memory: | a ring of `stages` stages for each team | slabs of X | repairs of each warp | sums |
// counters |
//   stage   the kTeam blocks of one row block and one group, which lie side by side in the matrix: one bulk
//   copy slab    the kTeam slices of X (gemm_block.cuh) of one group, for all teams
//
// Order of everything: token tile, pass, group; stages in it by row block. Warps meet only at the end of a
// pass. Every warp waits for every phase of a counter that it uses, since a parity tells a phase from the
// next one only: so a stage belongs to one team, and warps without work wait for slabs all the same.
#pragma once

#include "cuda/gemm/gemm_block.cuh"

namespace tersor::cuda {

template <class Weight, u32 kTokensOfTile, u32 kTeamsOfCta, u32 kWarpsOfTeam, bool kWithGroups = false>
struct bulk_gemm_sizes {
  static constexpr bool kGroups = kWithGroups;  ///< wgmma
  static_assert(!kGroups || kTeamsOfCta % 4 == 0);
  static constexpr u32 kTokens = kTokensOfTile;
  static constexpr u32 kTeams = kTeamsOfCta, kTeam = kWarpsOfTeam, kWarps = kTeams * kTeam;
  static constexpr u32 kMaxStages = 8;
  static constexpr u32 kSlabs = slice_bytes(kTokens) * kTeam <= 8192    ? 5
                                : slice_bytes(kTokens) * kTeam <= 32768 ? 3
                                                                        : 2;
  static constexpr u32 kSlabAlignment = 1024;
  static constexpr u32 kSlabBytes = kTeam * slice_bytes(kTokens);
  static constexpr u32 kRowOutputs = packed_geometry::kRows * kSumStride<kTokens>;  ///< floats of a row block
  static constexpr u32 kOutputs = kTeams * kRowOutputs;
  static constexpr u32 kAdders =
      kTeam < 4 ? 1 : kTeam / 2;  ///< warps of a team that keep sums in shared memory
  static constexpr u32 kSumBytes = kAdders * kOutputs * 4;
  static constexpr u32 kFixedBytes = kSlabs * kSlabBytes + kWarps * kRepairBytes + kSumBytes +
                                     8 * (2 * kTeams * kMaxStages + 2 * kSlabs + 2);
  static constexpr u32 kMultiplying = 32 * kWarps;  ///< threads
  static constexpr u32 kThreads = kMultiplying + 64;

  /// Stages a team that fit.
  static constexpr u32 stages(u32 block_bytes, u32 budget) {
    const u32 room = budget - kSlabAlignment;
    const u32 n = room < kFixedBytes ? 0 : (room - kFixedBytes) / (kWarps * block_bytes);
    return n < kMaxStages ? n : kMaxStages;
  }
  static constexpr u32 ring_bytes(u32 n_stages, u32 block_bytes) {
    return (n_stages * kWarps * block_bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
  }
  static constexpr u32 bytes(u32 n_stages, u32 block_bytes) {
    return ring_bytes(n_stages, block_bytes) + kFixedBytes;
  }
};

template <class Sizes>
struct bulk_counters {
  u64 full[Sizes::kMaxStages * Sizes::kTeams],
      empty[Sizes::kMaxStages * Sizes::kTeams];  ///< by stage, then team
  u64 slab_full[Sizes::kSlabs], slab_empty[Sizes::kSlabs];
  u64 sums_ready, sums_taken;

  /// By one thread: with a warp at it, the compiler no longer knows warps to be converged further on.
  TERSOR_DEVICE void init(u32 stages, u32 split_k) {
    for (u32 i = 0; i < stages * Sizes::kTeams; ++i) {
      ptx::arrival_init(&full[i], 1);
      ptx::arrival_init(&empty[i], 32 * Sizes::kTeam);
    }
    for (u32 i = 0; i < Sizes::kSlabs; ++i) {
      ptx::arrival_init(&slab_full[i], 1);
      ptx::arrival_init(&slab_empty[i], 32 * Sizes::kWarps);
    }
    ptx::arrival_init(&sums_ready, split_k);
    ptx::arrival_init(&sums_taken, split_k);
    ptx::fence_for_copies();
  }
};

/// CTAs of a cluster that share a row block's columns, at most.
inline constexpr u32 kMaxSplit = 8;

/// A place in a ring and the parity of its present phase.
struct ring_place {
  u32 index = 0, parity = 0;

  TERSOR_DEVICE void next(u32 places) {
    if (++index == places) {
      index = 0;
      parity ^= 1;
    }
  }
};

/// What a CTA works on.
struct cta_share {
  u32 first_row, end_row;       ///< row blocks
  u32 first_group, group_step;  ///< of columns
  u32 n_groups;
};

/// Calls visit(first token, first row block, row blocks, group) in the order of the kernel; after each pass
/// end(first token, first row block, row blocks).
template <class Sizes, class Visit, class End>
TERSOR_DEVICE void walk(const cta_share& share, u32 n_tokens, Visit visit, End end) {
  for (u32 token = 0; token < n_tokens; token += Sizes::kTokens) {
    for (u32 row = share.first_row; row < share.end_row; row += Sizes::kTeams) {
      const u32 left = share.end_row - row, n = left < Sizes::kTeams ? left : Sizes::kTeams;
      for (u32 g = share.first_group; g < share.n_groups; g += share.group_step) visit(token, row, n, g);
      end(token, row, n);
    }
  }
}

/// The thread that fetches weights. (A lane for each team was slower.)
template <class Sizes>
TERSOR_DEVICE void fetch_stages(const bulk_gemm_launch& launch, const group_operands& group,
                                const cta_share& share, u8* stages, bulk_counters<Sizes>& counters) {
  const u8* blocks = group.matrix + launch.sections.blocks_at;
  const u32 block_bytes = launch.sections.block_bytes;
  ring_place rings[Sizes::kTeams];
  walk<Sizes>(
      share, group.n_tokens,
      [&](u32, u32 row, u32 n, u32 g) {
        const u32 col = g * Sizes::kTeam, cols = launch.col_blocks - col;
        const u32 n_bytes = (cols < Sizes::kTeam ? cols : Sizes::kTeam) * block_bytes;
#pragma unroll
        for (u32 r = 0; r < Sizes::kTeams; ++r) {
          if (r >= n) break;
          const u32 stage = rings[r].index * Sizes::kTeams + r;
          // The counter of an empty ring is in its first phase: the one before counts as ended.
          ptx::wait_until_ended(&counters.empty[stage], rings[r].parity ^ 1);
          ptx::arrive_expecting(&counters.full[stage], n_bytes);
          ptx::bulk_copy_once(stages + stage * (Sizes::kTeam * block_bytes),
                              blocks + (static_cast<u64>(row + r) * launch.col_blocks + col) * block_bytes,
                              n_bytes, &counters.full[stage]);
          rings[r].next(launch.stages);
        }
      },
      [](u32, u32, u32) {});
}

/// The thread that fetches X. Rows and columns that X does not have arrive as zeros, and as rows of other
/// groups.
template <class Sizes>
TERSOR_DEVICE void fetch_slabs(const bulk_gemm_launch& launch, const group_operands& group,
                               const cta_share& share, u8* slabs, bulk_counters<Sizes>& counters) {
  constexpr u32 kHalfBytes = slice_bytes(Sizes::kTokens) / 2;
  ring_place slab;
  ptx::wait_for_previous_kernel();
  walk<Sizes>(
      share, group.n_tokens,
      [&](u32 token, u32, u32, u32 g) {
        ptx::wait_until_ended(&counters.slab_empty[slab.index], slab.parity ^ 1);
        const u32 col = g * Sizes::kTeam, left = launch.col_blocks - col;
        const u32 n = left < Sizes::kTeam ? left : Sizes::kTeam;
        u64* full = &counters.slab_full[slab.index];
        ptx::arrive_expecting(full, n * slice_bytes(Sizes::kTokens));
        u8* to = slabs + slab.index * Sizes::kSlabBytes;
        for (u32 half = 0; half < 2 * n; ++half, to += kHalfBytes)
          ptx::tensor_copy(to, launch.x_map, col * packed_geometry::kCols + 64 * half,
                           group.first_token + token, full);
        slab.next(Sizes::kSlabs);
      },
      [](u32, u32, u32) {});
}

/// A warp's team and its place in it.
struct seat {
  u32 team, member;
};
template <class Sizes>
TERSOR_DEVICE seat seat_of(u32 warp) {
  if constexpr (Sizes::kGroups) {
    const u32 group = warp / 4;
    return {group / Sizes::kTeam * 4 + warp % 4, group % Sizes::kTeam};
  } else {
    return {warp / Sizes::kTeam, warp % Sizes::kTeam};
  }
}

/// Adds up the sums of a pass over the CTA, and over its cluster, and stores what comes of it.
template <class Weight, class Sizes>
TERSOR_DEVICE void store_pass(const bulk_gemm_launch& launch, const group_operands& group, u32 first_token,
                              u32 row, u32 n, const block_sums<Sizes::kTokens>& sums, float* shared, u32 rank,
                              bulk_counters<Sizes>& counters, u32& parity) {
  const auto meet = [] { ptx::barrier_of(1, Sizes::kMultiplying); };
  const u32 thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32, ctas = launch.split_k;
  const auto [team, member] = seat_of<Sizes>(warp);
  // The last members of a team put their sums down, those before add theirs, in a fixed order.
  constexpr u32 kTurns = (Sizes::kTeam + Sizes::kAdders - 1) / Sizes::kAdders;
  for (u32 turn = kTurns; turn-- > 0;) {
    if (member / Sizes::kAdders == turn) {
      const bool add = member + Sizes::kAdders < Sizes::kTeam;
      put_sums<Sizes::kTokens>(
          sums, add, lane, shared + member % Sizes::kAdders * Sizes::kOutputs + team * Sizes::kRowOutputs);
    }
    meet();
  }
  if (ctas > 1) {
    if constexpr (Sizes::kAdders > 1) {
      for (u32 i = thread; i < Sizes::kOutputs; i += Sizes::kMultiplying) {
        float value = shared[i];
#pragma unroll
        for (u32 w = 1; w < Sizes::kAdders; ++w) value += shared[w * Sizes::kOutputs + i];
        shared[i] = value;
      }
      meet();
    }
    if (thread < ctas) ptx::arrive_in_cluster(&counters.sums_ready, thread);
    ptx::wait_for_cluster(&counters.sums_ready, parity);
  }
  for (u32 i = rank * Sizes::kMultiplying + thread; i < 16 * Sizes::kTeams * (Sizes::kTokens / 4);
       i += ctas * Sizes::kMultiplying) {
    // Neighbouring threads store neighbouring rows.
    const u32 out = i % (16 * Sizes::kTeams), token = 4 * (i / (16 * Sizes::kTeams));
    if (out >= 16 * n || first_token + token >= group.n_tokens) continue;
    const float* at = shared + out * kSumStride<Sizes::kTokens> + token;
    float4 value;
    if (ctas == 1) {
      value = *reinterpret_cast<const float4*>(at);
#pragma unroll
      for (u32 w = 1; w < Sizes::kAdders; ++w)
        value = plus(value, *reinterpret_cast<const float4*>(at + w * Sizes::kOutputs));
    } else {
      // All loads first: one takes as long as many.
      float4 parts[kMaxSplit];
#pragma unroll
      for (u32 cta = 0; cta < kMaxSplit; ++cta)
        if (cta < ctas) parts[cta] = ptx::load_from_cluster(at, cta);
      value = parts[0];
#pragma unroll
      for (u32 cta = 1; cta < kMaxSplit; ++cta)
        if (cta < ctas) value = plus(value, parts[cta]);
    }
    store_outputs<Weight>(launch.op, group, 16 * row + out, first_token + token, value);
  }
  meet();
  if (ctas > 1) {
    if (thread < ctas) ptx::arrive_in_cluster(&counters.sums_taken, thread);
    ptx::wait_for_cluster(&counters.sums_taken, parity);
    parity ^= 1;
  }
}

/// A warp that multiplies.
template <class Weight, class Sizes>
TERSOR_DEVICE void multiply_stages(const bulk_gemm_launch& launch, const group_operands& group,
                                   const cta_share& share, const u8* stages, const u8* slabs, u8* repairs,
                                   float* shared, bulk_counters<Sizes>& counters, u32 rank) {
  // By way of lane 0, so that the compiler knows it to be the same in all lanes.
  const u32 warp = ptx::shfl(ptx::thread_index() / 32, 0), lane = ptx::thread_index() % 32;
  const auto [team, member] = seat_of<Sizes>(warp);
  const u32 block_bytes = launch.sections.block_bytes;
  block_multiplier<Weight> multiplier(launch.sections, launch.col_blocks, group.matrix, lane, repairs);
  block_sums<Sizes::kTokens> sums;
  clear<Sizes::kTokens>(sums);
  ring_place ring, slab;
  u32 parity = 0;
  ptx::wait_for_previous_kernel();
  walk<Sizes>(
      share, group.n_tokens,
      [&](u32, u32 row, u32 n, u32 g) {
        const u32 col = g * Sizes::kTeam + member;
        // Warps without a block wait too: nobody arrives twice in a phase.
        ptx::wait_until_ended(&counters.slab_full[slab.index], slab.parity);
        const u32 stage = ring.index * Sizes::kTeams + team;
        const auto done = [&] {
          if (team < n) ptx::arrive(&counters.empty[stage]);
        };
        if (team < n) {
          ptx::wait_until_ended(&counters.full[stage], ring.parity);
          ring.next(launch.stages);
        }
        // All lanes have seen both come before lane 0 lets the next ones in.
        ptx::sync_warp();
        const u8* block = stages + (stage * Sizes::kTeam + member) * block_bytes;
        const u8* slice = slabs + slab.index * Sizes::kSlabBytes + member * slice_bytes(Sizes::kTokens);
        if (col >= launch.col_blocks || (team >= n && !Sizes::kGroups)) {
          done();
        } else if constexpr (Sizes::kGroups) {
          // A warp without a row block keeps the warpgroup company; what it multiplies is not used.
          multiplier.multiply_as_group(team < n, team < n ? block : slice, row + team, col, slice, sums,
                                       done);
        } else {
          multiplier.multiply(block, row + team, col, slice, sums, done);
        }
        ptx::sync_warp();
        ptx::arrive(&counters.slab_empty[slab.index]);
        slab.next(Sizes::kSlabs);
      },
      [&](u32 token, u32 row, u32 n) {
        store_pass<Weight, Sizes>(launch, group, token, row, n, sums, shared, rank, counters, parity);
        clear<Sizes::kTokens>(sums);
      });
}

template <class Weight, class Sizes>
TERSOR_DEVICE void bulk_gemm_cta(const bulk_gemm_launch& launch, u8* memory) {
  const u32 thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  const u32 rank = ptx::cta_index() % launch.split_k, part = ptx::cta_index() / launch.split_k;
  u8* slabs = memory + Sizes::ring_bytes(launch.stages, launch.sections.block_bytes);
  u8* repairs = slabs + Sizes::kSlabs * Sizes::kSlabBytes;
  float* shared = reinterpret_cast<float*>(repairs + Sizes::kWarps * kRepairBytes);
  auto& counters = *reinterpret_cast<bulk_counters<Sizes>*>(reinterpret_cast<u8*>(shared) + Sizes::kSumBytes);
  if (thread == 0) counters.init(launch.stages, launch.split_k);
  if (launch.split_k > 1) {
    ptx::cluster_barrier();
  } else {
    ptx::barrier();
  }
  ptx::release_next_kernel();
  if (launch.op.first_token != nullptr) ptx::wait_for_previous_kernel();
  const group_operands group = operands_of_group(launch.op, ptx::cta_index_y());
  const cta_share share = {static_cast<u32>(static_cast<u64>(part) * launch.row_blocks / launch.ctas),
                           static_cast<u32>(static_cast<u64>(part + 1) * launch.row_blocks / launch.ctas),
                           rank, launch.split_k, (launch.col_blocks + Sizes::kTeam - 1) / Sizes::kTeam};
  if (warp == Sizes::kWarps) {
    if (lane == 0) fetch_stages<Sizes>(launch, group, share, memory, counters);
  } else if (warp == Sizes::kWarps + 1) {
    if (lane == 0) fetch_slabs<Sizes>(launch, group, share, slabs, counters);
  } else {
    multiply_stages<Weight, Sizes>(launch, group, share, memory, slabs, repairs + warp * kRepairBytes, shared,
                                   counters, rank);
  }
}

}  // namespace tersor::cuda
