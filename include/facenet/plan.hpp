// A network and its weights, compiled: network -> Quantisation -> Steps -> ArenaLayout and PackedWeights -> Plan
// (folder plan/).
//
// A Plan is immutable and shared by any number of threads; each caller owns a Workspace. run() neither allocates nor
// throws. Every output is one fixed chain of operations, so the bits do not depend on threads, batch or position.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/plan/describe.hpp"
#include "facenet/plan/execute.hpp"

FACENET_BEGIN

/// A network with its weights, ready to run.
///
/// Example:
///   auto reader = facenet::WeightsReader::open("facenet.safetensors");
///   if (!reader) return reader.status();
///   auto plan = facenet::Plan::compile(facenet::models::inception_resnet_v1(512, true), *reader);
///   if (!plan) return plan.status();
///   auto workspace = plan->workspace(1, 2);  // one image at a time, two threads
///   if (!workspace) return workspace.status();
///   std::vector<float> pixels(std::size_t(plan->input_shape().size())), out(plan->output_size());
///   facenet::PlanInput input;
///   input.nhwc = pixels.data();
///   return plan->run(*workspace, &input, 1, out);
///
/// Threads: a Plan is immutable, and several threads may run it at once, each in a Workspace of its own. Lifetimes: a
/// Workspace must not outlive the plan's arena. The reader may be closed after compile(); int8 weights that stay in the
/// caller's memory must outlive the plan. A Plan that is default-made or was moved from has no steps, and every call
/// that takes a workspace returns invalid_argument.
class Plan {
 public:
  /// Reads all weights through `reader` and packs them; int8 weights that stay in the caller's memory must outlive the
  /// plan. Errors: those of the reader, out_of_memory, unsupported, invalid_argument (also for the number of threads).
  static Result<Plan> compile(const Network& network, WeightsReader& reader, PlanOptions options = {}) noexcept {
    return compile_packed(
        network, options,
        [&](const Network& n, const Quantisation& q, const Steps& steps, Memory memory) {
          return pack_weights(n, q, steps, options, reader, memory);
        },
        [&](const Network& n, Memory memory) -> Result<Quantisation> {
#if defined(FACENET_NO_INTEGER)
          (void)n, (void)memory;
          return {Errc::unsupported, "this build has no integer arithmetic: FACENET_NO_INTEGER is set"};
#else
          const Metadata& m = reader.metadata();
          return quantise(
              n, input_bytes(m.scaling, m.channel_order),
              [&](int op, Span<float> room, std::size_t& count) { return reader.input_scales(n, op, room, count); },
              memory);
#endif
        });
  }
  /// Compiles with the weights that pack(network, quantisation, steps, memory) returns, a Result<PackedWeights>: see
  /// plan/from_values.hpp. For integer arithmetic scales(network, memory) returns a Result<Quantisation>.
  template <class Pack, class Scales = std::nullptr_t>
  static Result<Plan> compile_packed(const Network& network, const PlanOptions& options, Pack&& pack,
                                     Scales&& scales = nullptr) noexcept {
    if (!network.ok()) return {Errc::invalid_argument, "the network description has a mistake"};
    if (!kernels::may_keep_int8 && options.int8_weights)
      return {Errc::unsupported, "this build keeps no int8 weights: FACENET_NO_INT8_WEIGHTS is set"};
    if (options.half_weights && options.int8_weights)
      return {Errc::invalid_argument, "weights can be kept in half precision or as int8, not both"};
    const simd::FlushDenormals mode;
    Plan p;
    p.memory_ = {options.arena, Arena::front};
    FACENET_TRY(detail::allocate(p.network_, 1, false, p.memory_));
    std::memcpy(static_cast<void*>(p.network_.data()), &network, sizeof network);
    if constexpr (!std::is_same_v<std::decay_t<Scales>, std::nullptr_t>)
      if (options.arithmetic == Arithmetic::int8) {
        if (options.half_weights || options.int8_weights)
          return {Errc::invalid_argument, "integer arithmetic keeps its weights in a form of its own"};
        auto quantisation = scales(p.network(), p.memory_);
        if (!quantisation) return quantisation.status();
        p.quantisation_ = std::move(*quantisation);
      }
    auto steps = make_steps(network, p.quantisation_, options, p.memory_);
    if (!steps) return steps.status();
    p.steps_ = std::move(*steps);
    auto layout = lay_out(network, p.quantisation_, p.steps_, p.memory_);
    if (!layout) return layout.status();
    p.layout_ = std::move(*layout);
    auto weights = pack(p.network(), p.quantisation_, p.steps_, p.memory_);
    if (!weights) return weights.status();
    p.weights_ = std::move(*weights);
    return p;
  }

  FACENET_HIDDEN const Network& network() const noexcept {
    // Zeros are a network without operators, and unlike a constant they take no 40 KB of every program.
    alignas(Network) static unsigned char none[sizeof(Network)];
    return network_.empty() ? *reinterpret_cast<const Network*>(none) : net();
  }
  Shape input_shape() const noexcept { return network_.empty() ? Shape() : net()[0].out; }
  /// Whether it takes pixels as bytes alone, which its first layer multiplies as they are.
  bool takes_bytes() const noexcept { return quantisation_.bytes(0); }
  /// Floats of one image's output: height, width and channels of the last operator.
  int output_size() const noexcept {
    return network_.empty() ? 0 : static_cast<int>(net()[net().size() - 1].out.size());
  }
  Span<const Step> steps() const noexcept { return steps_.list; }
  const char* step_name(const Step& s) const noexcept { return facenet::step_name(network(), s); }
  /// Multiply-adds of a step's register tiles for one image: fewer than the layer's with Winograd, whose transforms are
  /// not counted, and more where the last panel is padded.
  std::int64_t executed_macs(const Step& s) const noexcept {
    if (!s.is_conv()) return 0;
    return kernels::panels(s.channels, s.panel) * panel_weights(network(), s) * detail::conv_units(network(), s, 1);
  }
  /// Bytes of packed weights; of int8 ones, those that are not the caller's.
  std::size_t weight_bytes() const noexcept { return weights_.values.size(); }
  /// Bytes of a step's weights; int8: in the file.
  std::int64_t weight_bytes(const Step& s) const noexcept { return weights_[steps_.index_of(s)].bytes; }
  /// Bytes of arena that a workspace for `batch` images takes with so many threads.
  std::size_t arena_bytes(int batch, int threads) const noexcept {
    return static_cast<std::size_t>(layout_.size(batch, lanes(batch, threads))) * sizeof(float);
  }

  /// Errors: invalid_argument, out_of_memory.
  Result<Workspace> workspace(int batch, int threads) const noexcept { return workspace(batch, threads, memory_); }
  /// Makes a workspace in other memory than the plan's.
  Result<Workspace> workspace(int batch, int threads, Memory memory) const noexcept {
    if (network_.empty()) return {Errc::invalid_argument, never_compiled};
    if (batch < 1 || batch > 4096) return {Errc::invalid_argument, "the batch must be 1 to 4096 images"};
    if (threads < 1 || threads > max_threads) return {Errc::invalid_argument, "threads must be 1 to 256"};
    Workspace w;
    w.batch_ = batch;
    w.lanes_ = lanes(batch, threads);
    const std::size_t floats = arena_bytes(batch, threads) / sizeof(float);
    FACENET_TRY(detail::allocate_bulk(w.arena_, floats, true, memory));  // halos stay zero from here on
    if (!memory.measuring()) layout_.clear_bytes(w.part());
    auto team = OwnedTeam::make(threads, memory);
    if (!team) return team.status();
    w.team_ = std::move(*team);
    const int members = memory.measuring() ? Team::size_of(threads) : w.threads();
    FACENET_TRY(detail::allocate_bulk(w.scratch_, static_cast<std::size_t>(weights_.scratch * members), true, memory));
    return w;
  }

  /// Runs n <= workspace.batch() images; out: n * output_size() floats or more. Errors: invalid_argument (also for a
  /// workspace that another plan made), cancelled.
  Status run(Workspace& w, const PlanInput* inputs, int n, Span<float> out) const noexcept {
    return run(w, inputs, n, out, [](int) {});
  }
  /// Runs, and the calling thread calls after(step) whenever a step is done: once an image, or once a batch.
  template <class After>
  Status run(Workspace& w, const PlanInput* inputs, int n, Span<float> out, After&& after) const noexcept {
    FACENET_TRY(check(w));
    if (inputs == nullptr) return {Errc::invalid_argument, "there are no pictures: the pointer is null"};
    if (n < 1 || n > w.batch_) return {Errc::invalid_argument, "more pictures than the workspace has room for"};
    for (int i = 0; i < n; ++i)
      if (inputs[i].rgb == nullptr && (inputs[i].nhwc == nullptr || takes_bytes()))
        return {Errc::invalid_argument, takes_bytes() ? "integer arithmetic takes a picture's bytes, not floats"
                                                      : "a picture has no pixels: its pointer is null"};
    FACENET_TRY(detail::check_room(out, std::int64_t{n} * output_size()));
    bool stopped = false;
    std::atomic<bool> left{false};  // whether a thread left the image that it ran alone
    in_team(w, [&](Member& m) {
      bool stop = false;
      // Runs steps from `first` on until `done`, and returns the next one.
      const auto run_steps = [&](int first, auto&& done, auto&& run) {
        int s = first;
        for (; s < steps_.size() && !stop && !done(steps_[s]); ++s) {
          stop = run(s);
          if (m.member == 0) after(s);
        }
        return s;
      };
      const auto merged = [](const Step& s) { return s.per_batch; };
      // While there is an image for each thread, each runs one alone, in a lane of its own: nobody waits for anybody.
      const int alone = w.lanes_ > 1 ? n / m.members * m.members : 0;
      for (int image = m.member; image < alone && !stop; image += m.members)
        run_steps(0, merged, [&](int s) { return m.step_alone(s, inputs, image); });
      if (alone > 0) {
        if (stop) left.store(true, std::memory_order_relaxed);
        w.team_->barrier();
        stop = left.load(std::memory_order_relaxed);
      }
      for (int image = alone; image < n && !stop; ++image)
        run_steps(0, merged, [&](int s) { return m.step(s, inputs, image, 1); });
      int first = 0;
      while (first < steps_.size() && !merged(steps_[first])) ++first;
      run_steps(
          first, [](const Step&) { return false; }, [&](int s) { return m.step(s, inputs, 0, n); });
      if (m.member == 0) stopped = stop;
    });
    if (stopped) return {Errc::cancelled, "the caller has cancelled it"};
    const int last = net().size() - 1, size = output_size();
    for (int i = 0; i < n; ++i)
      std::memcpy(out.data() + std::int64_t{i} * size, view(w, last, i, 1).data,
                  static_cast<std::size_t>(size) * sizeof(float));
    return {};
  }

  /// Runs one step alone on image 0, for tests that feed each layer a reference's input. Does nothing with a workspace
  /// that another plan made.
  void run_step(Workspace& w, int index, const PlanInput* input = nullptr) const noexcept {
    if (!check(w).ok() || index < 0 || index >= steps_.size()) return;
    in_team(w, [&](Member& m) { m.step(index, input, 0, 1); });
  }

  /// Where operator `op`'s output lies. Valid right after the step that computes it; a later step may reuse the memory.
  TensorView view(Workspace& w, int op, int image = 0, int images = 1) const noexcept {
    if (network_.empty() || w.arena_.empty()) return {};
    return layout_.view(net(), w.part(), op, image, images);
  }
  /// The same as bytes; view() and bytes() have no data where the output is not kept so.
  kernels::ActivationView bytes(Workspace& w, int op, int image = 0, int images = 1) const noexcept {
    if (network_.empty() || w.arena_.empty()) return {};
    return layout_.bytes(net(), w.part(), op, image, images);
  }
  const Quantisation& quantisation() const noexcept { return quantisation_; }

#if !defined(FACENET_NO_STDIO)
  /// Calls line(const char*) for each line of a table of the choices.
  template <class F>
  void describe(F&& line) const noexcept {
    facenet::describe(network(), steps_, layout_, weights_, line);
  }
#endif

 private:
  static constexpr const char* never_compiled = "the plan was never compiled, or was moved from";

  const Network& net() const noexcept { return network_[0]; }
  int lanes(int batch, int threads) const noexcept {
    return choose_lanes(batch, Team::size_of(threads), !quantisation_.empty());
  }
  /// Whether this plan made the workspace.
  Status check(const Workspace& w) const noexcept {
    if (network_.empty()) return {Errc::invalid_argument, never_compiled};
    if (!w.team_ || w.arena_.empty())
      return {Errc::invalid_argument, "the workspace was never made, or was moved from"};
    if (w.bytes() != static_cast<std::size_t>(layout_.size(w.batch_, w.lanes_)) * sizeof(float) ||
        w.scratch_.size() != static_cast<std::size_t>(weights_.scratch * w.threads()))
      return {Errc::invalid_argument, "the workspace is another plan's"};
    return {};
  }

  /// One thread of a team at work.
  struct Member {
    const Plan& plan;
    Workspace& w;
    int member, members;
    unsigned round = 0;

    detail::StepRun run_of(int index, const PlanInput* inputs, int image, int images, int lane,
                           int sharers) const noexcept {
      float* const scratch = w.scratch_.data() + member * plan.weights_.scratch;
      return {plan.net(),    plan.quantisation_,
              plan.steps_,   plan.layout_,
              plan.weights_, w.part(lane),
              scratch,       inputs,
              index,         image,
              images,        sharers};
    }
    /// Shares one step out among the members, and says whether to leave now.
    bool step(int index, const PlanInput* inputs, int image, int images) noexcept {
      const detail::StepRun r = run_of(index, inputs, image, images, 0, members);
      const detail::Operator& op = detail::operator_of(r.step(), r.op());
      w.team_->queue.work(member, round, op.chunks(r), [&](int chunk) { op.run(r, chunk); });
      // One looks for all, who must leave together. The next look goes to the other place, after another barrier.
      bool& stop = w.stop_[round++ & 1];
      if (w.cancel_ != nullptr && member == 0) stop = w.cancel_->load(std::memory_order_relaxed);
      w.team_->barrier();
      return w.cancel_ != nullptr && stop;
    }
    /// Runs one step of an image that is this thread's alone, and says whether to leave.
    bool step_alone(int index, const PlanInput* inputs, int image) const noexcept {
      const detail::StepRun r = run_of(index, inputs, image, 1, member, 1);
      const detail::Operator& op = detail::operator_of(r.step(), r.op());
      const int chunks = op.chunks(r);
      for (int chunk = 0; chunk < chunks; ++chunk) op.run(r, chunk);
      return w.cancel_ != nullptr && w.cancel_->load(std::memory_order_relaxed);
    }
  };

  /// Calls body(Member&) on every member.
  template <class F>
  void in_team(Workspace& w, F&& body) const noexcept {
    w.team_->queue.reset(w.team_->size());
    w.team_->run([&](int member, int members) {
      // OpenMP may grant fewer threads than asked for (a nested region, OMP_THREAD_LIMIT). The counters of those who
      // are absent would then never be reset, and from the third step on their chunks would be taken for done.
      if (members != w.team_->size()) {
        if (member == 0) w.team_->queue.reset(members);
        w.team_->barrier();
      }
      Member m{*this, w, member, members};
      body(m);
    });
  }

  Memory memory_;
  Buffer<Network> network_;
  Quantisation quantisation_;
  Steps steps_;
  ArenaLayout layout_;
  PackedWeights weights_;
};

FACENET_END

#include "facenet/base/macros_pop.inc"
