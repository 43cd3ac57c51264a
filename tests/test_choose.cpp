// Decisions about layers, by tables. Built for every ISA: the thresholds are an ISA's.
#include <doctest/doctest.h>

#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/plan/choose.hpp"

using namespace facenet;

namespace {
constexpr Network inception = models::inception_resnet_v1();
}

TEST_CASE("decisions") {
  using A = ConvAlgorithm;
  const int v = simd::width, wide = 64;
  const bool large = least_large_winograd_tiles <= 36;  // WebAssembly
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), true}, A::automatic) ==
        (large ? A::winograd_6x6_3x3 : A::winograd_4x4_3x3));
  CHECK(choose_conv({{36, 36, wide}, {17, 17, wide}, k(3).stride(2), true}, A::automatic) ==
        (large ? A::winograd_3x3_stride_2 : A::direct));
  CHECK(choose_conv({{36, 36, wide}, {17, 17, wide}, k(3).stride(2), true}, A::winograd_6x6_3x3) == A::direct);
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), true}, A::direct) == A::direct);
  CHECK(choose_conv({{79, 79, wide}, {39, 39, wide}, k(3).stride(2), true}, A::direct) == A::direct);
  CHECK(choose_conv({{79, 79, wide}, {77, 77, wide}, k(3), false}, A::automatic) == A::direct);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(3).pad(1, 1), true}, A::automatic) ==
        (least_winograd_tiles > 4 ? A::direct : A::winograd_4x4_3x3));
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(3).pad(1, 1), true}, A::winograd_4x4_3x3) == A::winograd_4x4_3x3);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(1, 7).pad(0, 3), true}, A::automatic) == A::winograd_4_1x7);
  CHECK(choose_conv({{8, 8, wide}, {8, 8, wide}, k(7, 1).pad(3, 0), true}, A::automatic) == A::winograd_4_7x1);
  if (v > 1) CHECK(choose_conv({{79, 79, 3}, {77, 77, wide}, k(3), true}, A::automatic) == A::direct);
  CHECK(choose_merge(inception) > 40);
  CHECK(inception[choose_merge(inception)].name == "mixed_6a.branch0");
  CHECK(inception[choose_merge(inception, true)].name == "mixed_7a.branch0.1");
  CHECK(inception[choose_merge(inception, true, true)].name == "mixed_6a.branch0");
  // Weights must outweigh four times the activations: 8 * 8 against 4 * 16 do not, 8 * 9 against 4 * 17 do.
  Network even("even", {1, 1, 8}), over("over", {1, 1, 8});
  even.conv("c", even.input(), 8, k(1));
  over.conv("c", over.input(), 9, k(1));
  CHECK(choose_merge(even) == even.size());
  CHECK(choose_merge(over) == 1);
  CHECK(choose_panel(simd::panel, A::direct, false, false) == simd::panel);
  // Twelve vectors for eleven are 9% more, within a tenth; six for five are 20%, eight for seven 14%, four for three
  // 33%.
  if (simd::panel > v) CHECK(choose_panel(11 * v, A::direct, false, false) == simd::panel);
  const int ragged = simd::tile_vectors == 2 ? 5 : 7;
  if (simd::panel > v) CHECK(choose_panel(ragged * v, A::direct, false, false) == (v == 16 ? simd::panel : v));
  if (simd::panel > v) CHECK(choose_panel(3 * v, A::direct, false, false) == v);
  if (simd::panel > v) CHECK(choose_panel(v, A::direct, false, false) == v);
  if (simd::panel > v) CHECK(choose_panel(v, A::direct, true, false) == simd::panel);
  for (int pixels : {1, 9, 64, 289, 1444, 6241, 49928})
    for (int panels : {1, 3, 28, 56})
      for (int threads : {1, 2, 3, 8, 64})
        for (int block : {24, kernels::conv_block}) {
          for (const Chunking c : {choose_chunks(pixels, block, panels, threads),
                                   choose_winograd_chunks(pixels, block, panels, threads)}) {
            const bool sane = c.blocks >= 1 && c.groups >= 1 && c.groups <= panels && c.blocks <= pixels &&
                              (pixels + c.blocks - 1) / c.blocks <= block;
            CHECK(sane);
          }
          CHECK(choose_winograd_chunks(pixels, block, panels, threads).groups <= threads);  // each transforms its input
          const Chunking c = choose_expanded_chunks(pixels, block, panels, threads);
          const bool sane = c.blocks >= 1 && c.groups >= 1 && c.groups <= panels && c.blocks <= pixels;
          CHECK(sane);
          CHECK((c.count() >= threads || c.blocks == pixels));
          // A panel is expanded more than once only for a block of pixels, or for a thread that would be idle.
          CHECK((c.blocks == 1 || pixels / c.blocks >= block || c.blocks == (threads + c.groups - 1) / c.groups ||
                 c.blocks == pixels));
        }
#if defined(FACENET_AMX)
  for (int pixels : {1, 9, 64, 289, 1444, 6241, 49928})
    for (int panels : {1, 3, 28, 56})
      for (int threads : {1, 2, 3, 8, 64}) {
        const Chunking c = choose_matrix_chunks(pixels, kernels::conv_block, panels, threads, 32);
        const bool sane = c.blocks >= 1 && c.groups >= 1 && c.groups <= panels && c.groups <= threads;
        CHECK(sane);
        // A window is gathered once, but where a thread would have fewer than four groups of 32.
        CHECK((c.groups == 1 || pixels < 4 * 32 * threads));
        CHECK((c.groups == 1 || c.count() >= (panels < threads ? panels : threads)));
      }
#endif
  CHECK(choose_lanes(1, 2, true) == 1);
  CHECK(choose_lanes(2, 2, true) == 2);
  CHECK(choose_lanes(8, 2, true) == 2);
  CHECK(choose_lanes(8, 2, false) == 1);
  CHECK(choose_lanes(3, 4, true) == 1);
  CHECK(choose_lanes(8, 1, true) == 1);
  CHECK(choose_in_order_chunks(16, 1).count() == 4);  // 512-d: four panels at once
  CHECK(choose_in_order_chunks(16, 8).count() == 8);
  CHECK(choose_in_order_chunks(4, 2).count() == 2);  // 128-d: a thread each two
  CHECK(choose_in_order_chunks(1, 8).count() == 1);
  CHECK(choose_winograd_chunks(16, 60, 4, 2).groups == 2);  // Block17: each thread reads half of the weights
  CHECK(choose_winograd_chunks(81, 24, 6, 2).groups == 1);  // conv2d_4a: each thread transforms half of the tiles
}
