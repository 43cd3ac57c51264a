// Steps -> ArenaLayout: where each activation lies in a workspace's arena.
//
// A block is an activation that others may be slices of. A padded convolution that runs directly wants a halo of zeros
// around its input, so that a row of the window is one contiguous run of floats. In integer arithmetic an operator has
// a block of bytes, one of floats, or both.
#pragma once

#include "facenet/plan/step.hpp"

FACENET_BEGIN

struct ArenaBlock {
  Shape shape;
  int halo_h = 0, halo_w = 0;
  int first = INT32_MAX, last = -1;  // steps between which it is in use
  bool per_batch = false;            // one for each image of the batch
  bool bytes = false;                // of kernels::Activation instead of floats
  std::int64_t offset = 0;           // floats; for per_batch ones times the batch

  /// Elements of a row.
  constexpr std::int64_t row() const noexcept { return std::int64_t{shape.w + 2 * halo_w} * shape.c; }
  constexpr std::int64_t elements() const noexcept { return (shape.h + 2 * halo_h) * row(); }
  /// Floats of the arena: whole cache lines.
  constexpr std::int64_t size() const noexcept {
    constexpr std::int64_t element = sizeof(kernels::Activation), each = sizeof(float);
    const std::int64_t floats =
        bytes ? ((elements() + kernels::integer_overread) * element + each - 1) / each : elements();
    return static_cast<std::int64_t>(round_up(static_cast<std::size_t>(floats), 16));
  }
  constexpr bool halo() const noexcept { return halo_h > 0 || halo_w > 0; }
};

/// The window of a direct convolution as `count` contiguous runs of `length` floats; first: into ArenaLayout::offsets.
struct WindowRuns {
  std::int64_t first = 0;
  int count = 0, length = 0;
};

/// An arena for `batch` images, and which of its lanes a thread works in. What lives while one image runs is there once
/// a lane, so that threads can run an image each.
struct ArenaPart {
  float* data = nullptr;
  int batch = 1, lanes = 1, lane = 0;
};

struct ArenaLayout {
  struct Slice {
    int block = -1, channel = 0;  // -1: there is none
  };
  Buffer<Slice> slices, byte_slices;  // by operator
  Buffer<ArenaBlock> blocks;          // room for more than there are
  Buffer<WindowRuns> windows;         // by step
  Buffer<std::int32_t> offsets;       // of the runs, from a pixel's first float
  std::int64_t single_size = 0;       // floats of a lane, which its images share, one after the other
  std::int64_t per_batch_size = 0;    // floats for each image of the batch

  const ArenaBlock& block_of(int op) const noexcept {
    return blocks[slices[op].block >= 0 ? slices[op].block : byte_slices[op].block];
  }
  kernels::Runs runs(int step) const noexcept {
    const WindowRuns& w = windows[step];
    return {offsets.data() + w.first, w.count, w.length};
  }
  /// Floats of an arena.
  std::int64_t size(int batch, int lanes) const noexcept { return single_size * lanes + per_batch_size * batch; }
  /// Operator `op`'s output: `images` of them from `image` on. Without data where it is not kept as floats.
  TensorView view(const Network& n, const ArenaPart& arena, int op, int image, int images) const noexcept {
    return view_of<float>(slices[op], n[op].out, arena, image, images);
  }
  /// The same as bytes.
  kernels::ActivationView bytes(const Network& n, const ArenaPart& arena, int op, int image,
                                int images) const noexcept {
    if (byte_slices.empty()) return {};
    return view_of<kernels::Activation>(byte_slices[op], n[op].out, arena, image, images);
  }
  /// Fills what holds bytes with the stored form of 0, which halos keep: not all ISAs store it as 0.
  void clear_bytes(ArenaPart arena) const noexcept {
    for (const ArenaBlock& b : blocks)
      for (int i = 0;
           simd::integer::zero_point != 0 && b.bytes && b.halo() && i < (b.per_batch ? arena.batch : arena.lanes);
           ++i) {
        arena.lane = b.per_batch ? 0 : i;
        std::memset(arena.data + at(b, arena, i), -simd::integer::zero_point,
                    static_cast<std::size_t>(b.size()) * sizeof(float));
      }
  }
  /// Where a block lies, in floats from the arena's first.
  std::int64_t at(const ArenaBlock& b, const ArenaPart& arena, int image) const noexcept {
    return b.per_batch ? single_size * arena.lanes + b.offset * arena.batch + image * b.size()
                       : single_size * arena.lane + b.offset;
  }

 private:
  template <class T>
  BasicTensorView<T> view_of(Slice s, Shape out, const ArenaPart& arena, int image, int images) const noexcept {
    if (s.block < 0) return {};
    const ArenaBlock& b = blocks[s.block];
    T* const base = reinterpret_cast<T*>(arena.data + at(b, arena, image));
    // From an image to the next, in elements: a cache line holds whole ones.
    constexpr std::int64_t line = 64, floats = line / 4, elements = line / static_cast<std::int64_t>(sizeof(T));
    const std::int64_t image_stride = b.size() / floats * elements;
    BasicTensorView<T> v{base, out, images, b.shape.c, b.row(), image_stride};
    v.data += b.halo_h * v.row_stride + b.halo_w * v.pixel_stride + s.channel;
    return v;
  }
};

FACENET_END

FACENET_SETUP_BEGIN

namespace detail {

/// Builds an ArenaLayout, a stage after the other.
class ArenaPlanner {
 public:
  ArenaPlanner(const Network& n, const Quantisation& q, const Steps& steps) noexcept : n_(n), q_(q), steps_(steps) {}

  Result<ArenaLayout> run(Memory memory) noexcept {
    const auto ops = static_cast<std::size_t>(n_.size());
    const bool bytes = !q_.empty();
    FACENET_TRY(allocate(made_.slices, ops, false, memory));
    if (bytes) FACENET_TRY(allocate(made_.byte_slices, ops, false, memory));
    FACENET_TRY(allocate(made_.blocks, bytes ? 2 * ops : ops, false, memory));
    for (auto& s : made_.slices) s = {};
    for (auto& s : made_.byte_slices) s = {};
    for (auto& b : made_.blocks) b = {};
    FACENET_TRY(place_outputs(made_.slices, false));
    if (bytes) FACENET_TRY(place_outputs(made_.byte_slices, true));
    find_lifetimes();
    arrange();
    FACENET_TRY(tabulate_windows(memory));
    return std::move(made_);
  }

 private:
  ArenaBlock& block(int i) noexcept { return made_.blocks[i]; }
  int new_block(Shape shape, bool bytes) noexcept {
    ArenaBlock b;
    b.shape = shape;
    b.bytes = bytes;
    block(block_count_) = b;
    return block_count_++;
  }
  static bool reads(const Op& op, int what) noexcept {
    for (int k = 0; k < op.input_count; ++k)
      if (op.inputs[k] == what) return true;
    return op.skip == what;
  }

  /// Gives each operator that is kept as floats, or as bytes, a block or a slice of one.
  Status place_outputs(Buffer<ArenaLayout::Slice>& slices, bool bytes) noexcept {
    const auto kept = [&](int op) { return bytes ? q_.bytes(op) : q_.floats(op); };
    for (int i = n_.size() - 1; i >= 0; --i) {  // backwards: a concatenation of concatenations is slices of slices
      if (n_[i].kind != OpKind::concat || !kept(i)) continue;
      ArenaLayout::Slice& whole = slices[i];
      if (whole.block < 0) whole = {new_block(n_[i].out, bytes), 0};
      int channel = whole.channel;
      for (int k = 0; k < n_[i].input_count; ++k) {
        const int in = n_[i].inputs[k];
        if (slices[in].block >= 0 || n_[in].skip >= 0 || n_[in].kind == OpKind::input)
          return Status(Errc::unsupported, "a concatenation's input must be used by it alone").in(n_[i].name.text);
        slices[in] = {whole.block, channel};
        channel += n_[in].out.c;
      }
    }
    for (int i = 0; i < n_.size(); ++i) {
      if (!kept(i)) continue;
      if (n_[i].skip >= 0) {  // the trunk is updated in place, so no later operator may read it
        for (int j = i + 1; j < n_.size(); ++j)
          if (reads(n_[j], n_[i].skip))
            return Status(Errc::unsupported, "a residual's trunk is read after the addition").in(n_[i].name.text);
        slices[i] = slices[n_[i].skip];
      }
      if (slices[i].block < 0) slices[i] = {new_block(n_[i].out, bytes), 0};
    }
    return {};
  }

  void find_lifetimes() noexcept {
    for (int s = 0; s < steps_.size(); ++s) {
      const Step& step = steps_[s];
      const auto touch_block = [&](int i) {
        if (i < 0) return;
        ArenaBlock& b = block(i);
        if (s < b.first) b.first = s;
        if (s > b.last) b.last = s;
        b.per_batch = b.per_batch || step.per_batch;
      };
      const auto touch = [&](int op) {
        touch_block(made_.slices[op].block);
        if (!q_.empty()) touch_block(made_.byte_slices[op].block);
      };
      touch(step.op);
      for (int k = 0; k < step.segment_count; ++k) touch(step.segment_ops[k]);
      const Op& op = n_[step.op];
      for (int k = 0; k < op.input_count; ++k) touch(op.inputs[k]);
      if (reads_rows(step)) {
        ArenaBlock& in = block(input_of(step).block);
        if (op.window.pad_h > in.halo_h) in.halo_h = op.window.pad_h;
        if (op.window.pad_w > in.halo_w) in.halo_w = op.window.pad_w;
      }
    }
    ArenaBlock& output = block(made_.slices[n_.size() - 1].block);
    output.last = steps_.size();
    output.per_batch = true;  // every picture's result is read after the last one has run
    // A per-batch block that an image-by-image step writes must keep every image's part while the next image runs.
    for (int i = 0; i < block_count_; ++i) {
      ArenaBlock& b = block(i);
      if (b.per_batch && b.first < steps_.size() && !steps_[b.first].per_batch) b.first = 0;
    }
  }

  /// Gives each block the lowest place that is free while it is in use, the largest blocks first. A block with a halo
  /// shares only with blocks of the same layout: the halo is zeroed once, when the workspace is made.
  void arrange() noexcept {
    bool placed[Network::max_ops] = {};
    for (int round = 0; round < block_count_; ++round) {
      int best = -1;
      for (int i = 0; i < block_count_; ++i)
        if (!placed[i] && (best < 0 || block(i).size() > block(best).size())) best = i;
      ArenaBlock& b = block(best);
      b.offset = 0;
      for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < block_count_; ++i) {
          const ArenaBlock& o = block(i);
          if (!placed[i] || o.per_batch != b.per_batch) continue;
          const bool in_time = o.first <= b.last && b.first <= o.last;
          const bool same_halo =
              o.bytes == b.bytes && o.shape == b.shape && o.halo_h == b.halo_h && o.halo_w == b.halo_w;
          const bool clash = in_time || ((o.halo() || b.halo()) && !(same_halo && o.offset == b.offset));
          if (clash && b.offset < o.offset + o.size() && o.offset < b.offset + b.size()) {
            b.offset = o.offset + o.size();
            moved = true;
          }
        }
      }
      placed[best] = true;
      std::int64_t& total = b.per_batch ? made_.per_batch_size : made_.single_size;
      if (b.offset + b.size() > total) total = b.offset + b.size();
    }
  }

  /// Whether a step reads its window as runs of whole rows, or pieces of them.
  static bool reads_rows(const Step& s) noexcept { return s.is_conv() && !is_winograd(s.algorithm); }
  const ArenaLayout::Slice& input_of(const Step& s) const noexcept {
    const int input = n_[s.op].inputs[0];
    return s.is_integer() ? made_.byte_slices[input] : made_.slices[input];
  }

  Status tabulate_windows(Memory memory) noexcept {
    FACENET_TRY(allocate(made_.windows, static_cast<std::size_t>(steps_.size()), true, memory));
    for (int pass = 0; pass < 2; ++pass) {  // count, then fill
      std::int64_t used = 0;
      for (int i = 0; i < steps_.size(); ++i) {
        if (!reads_rows(steps_[i])) continue;
        const Op& op = n_[steps_[i].op];
        const Shape in = n_[op.inputs[0]].out;
        const ArenaBlock& b = made_.blocks[input_of(steps_[i]).block];
        const int kh = window_of(n_, op).kh, kw = window_of(n_, op).kw;
        const bool dense = in.c == b.shape.c;
        WindowRuns& w = made_.windows[i];
        w = {used, dense ? kh : kh * kw, dense ? kw * in.c : in.c};
        for (int r = 0; r < w.count; ++r, ++used)
          if (pass == 1)
            made_.offsets[used] =
                static_cast<std::int32_t>(dense ? r * b.row() : r / kw * b.row() + r % kw * std::int64_t{b.shape.c});
      }
      if (pass == 1) break;
      FACENET_TRY(allocate(made_.offsets, static_cast<std::size_t>(used), true, memory));
    }
    return {};
  }

  const Network& n_;
  const Quantisation& q_;
  const Steps& steps_;
  ArenaLayout made_;
  int block_count_ = 0;
};

}  // namespace detail

/// Errors: unsupported (the network reads what was overwritten), out_of_memory.
inline Result<ArenaLayout> lay_out(const Network& n, const Quantisation& q, const Steps& steps,
                                   Memory memory) noexcept {
  return detail::ArenaPlanner(n, q, steps).run(memory);
}

FACENET_SETUP_END
