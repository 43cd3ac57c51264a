// Steps -> ArenaLayout: no two blocks share memory while both are in use, and slices lie where their concatenation
// does.
#include "facenet/plan/arena_layout.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/models/mtcnn.hpp"
#include "small_network.hpp"

using namespace support;

namespace {

struct Laid {
  Steps steps;
  ArenaLayout layout;
};
Laid lay(const Network& n, ConvAlgorithm conv = ConvAlgorithm::automatic) {
  PlanOptions options;
  options.conv = conv;
  auto steps = make_steps(n, {}, options, {});
  REQUIRE(steps.ok());
  auto layout = lay_out(n, {}, *steps, {});
  REQUIRE(layout.ok());
  return {std::move(*steps), std::move(*layout)};
}

}  // namespace

TEST_CASE("blocks in use at one time are apart, and so are blocks with halos of other layouts") {
  for (const Network& n : {small_network(), models::inception_resnet_v1(), models::mtcnn_onet()})
    for (const auto conv : {ConvAlgorithm::automatic, ConvAlgorithm::direct}) {
      const Laid laid = lay(n, conv);
      std::vector<const ArenaBlock*> blocks;
      for (int op = 0; op < n.size(); ++op) {
        const ArenaBlock* b = &laid.layout.block_of(op);
        bool seen = false;
        for (const ArenaBlock* other : blocks) seen = seen || other == b;
        if (!seen) blocks.push_back(b);
      }
      for (const ArenaBlock* a : blocks) {
        CHECK(a->offset >= 0);
        CHECK(a->offset % 16 == 0);  // a cache line
        CHECK(a->offset + a->size() <= (a->per_batch ? laid.layout.per_batch_size : laid.layout.single_size));
        for (const ArenaBlock* b : blocks) {
          if (a == b || a->per_batch != b->per_batch) continue;
          const bool apart = a->offset + a->size() <= b->offset || b->offset + b->size() <= a->offset;
          const bool in_time = a->first <= b->last && b->first <= a->last;
          const bool same =
              a->shape == b->shape && a->halo_h == b->halo_h && a->halo_w == b->halo_w && a->offset == b->offset;
          CHECK((apart || !in_time));
          CHECK((apart || same || (!a->halo() && !b->halo())));
        }
      }
    }
}

TEST_CASE("a concatenation's inputs are slices of it, a residual is its trunk, and views stay inside of the arena") {
  const Network n = small_network();
  const Laid laid = lay(n);
  for (int op = 0; op < n.size(); ++op) {
    if (n[op].skip >= 0) CHECK(&laid.layout.block_of(op) == &laid.layout.block_of(n[op].skip));
    if (n[op].kind != OpKind::concat) continue;
    int channel = laid.layout.slices[op].channel;
    for (int k = 0; k < n[op].input_count; ++k) {
      const int in = n[op].inputs[k];
      CHECK(&laid.layout.block_of(in) == &laid.layout.block_of(op));
      CHECK(laid.layout.slices[in].channel == channel);
      channel += n[in].out.c;
    }
  }
  const int batch = 3, lanes = 2;
  std::vector<float> arena(static_cast<std::size_t>(laid.layout.size(batch, lanes)));
  for (int op = 0; op < n.size(); ++op) {
    const bool per_batch = laid.layout.block_of(op).per_batch;
    const int images = per_batch ? batch : 1;
    const float* first[lanes];
    for (int lane = 0; lane < lanes; ++lane) {
      const TensorView v = laid.layout.view(n, {arena.data(), batch, lanes, lane}, op, 0, images);
      first[lane] = v.pixel(0, 0, 0);
      CHECK(first[lane] >= arena.data());
      CHECK(v.pixel(images - 1, v.shape.h - 1, v.shape.w - 1) + v.shape.c <= arena.data() + arena.size());
    }
    CHECK(first[1] - first[0] == (per_batch ? 0 : laid.layout.single_size));
  }
}

TEST_CASE("a direct convolution's window is runs of contiguous floats") {
  const Network n = small_network();
  const Laid laid = lay(n, ConvAlgorithm::direct);
  for (int i = 0; i < laid.steps.size(); ++i) {
    const Step& s = laid.steps[i];
    const kernels::Runs runs = laid.layout.runs(i);
    if (!s.is_conv()) {
      CHECK(runs.count == 0);
      continue;
    }
    const Op& op = n[s.op];
    CHECK(std::int64_t{runs.count} * runs.length == weight_count(n, op) / op.out.c);
    const ArenaBlock& in = laid.layout.block_of(op.inputs[0]);
    for (int r = 0; r < runs.count; ++r) {  // the first pixel of each run, in the order of K
      const int width = window_of(n, op).kw, row = runs.count == window_of(n, op).kh ? r : r / width;
      const int column = runs.count == window_of(n, op).kh ? 0 : r % width;
      CHECK(runs.offset[r] == row * in.row() + column * std::int64_t{in.shape.c});
    }
  }
}

TEST_CASE("networks that read what was overwritten are refused") {
  Network twice("twice", {4, 4, 8});
  const Ref a = twice.conv("a", twice.input(), 8, k(1));
  twice.concat("c", twice.concat("b", a, twice.conv("d", twice.input(), 8, k(1))), a);
  Network late("late", {4, 4, 8});
  const Ref trunk = late.conv("a", late.input(), 8, k(1));
  late.residual("up", trunk, trunk, 1, relu);
  late.conv("again", trunk, 8, k(1));
  for (const Network& n : {twice, late}) {
    REQUIRE(n.ok());
    auto steps = make_steps(n, {}, {}, {});
    REQUIRE(steps.ok());
    CHECK(lay_out(n, {}, *steps, {}).status().code() == Errc::unsupported);
  }
}
