// Embeddings packed for the register tile, in blocks that never move.
#pragma once

#include "facenet/distance.hpp"
#include "facenet/kernels/score.hpp"

FACENET_BEGIN

/// How embeddings are kept. Half precision takes half the memory and moves a distance between unit vectors by at most
/// 2^-11; results are exact for the values as they are stored.
enum class TemplateStorage : std::uint8_t { f32, f16 };

namespace detail {

/// Templates by slot 0, 1, 2 …, 32 (a panel) beside each other as [component][template]: the way the register tile
/// reads weights. Blocks of 4 MiB never move, so that a store grows without a moment of twice its memory.
class TemplateStore {
 public:
  struct Panel {
    void* values;                // [dim][simd::panel] floats or halves
    float* scale;                // [2][simd::panel]: kernels::Affine's scales and offsets
    kernels::ScoreError* error;  // of all its templates
    std::uint64_t* id;           // [simd::panel], like person
    std::uint64_t* person;
  };

  TemplateStore() noexcept = default;
  TemplateStore(int dim, Metric metric, TemplateStorage storage) noexcept
      : dim_(dim), metric_(metric), half_(storage == TemplateStorage::f16) {
    // Whole cache lines, which an odd dimension and a narrow panel do not give: panels and what is beside them are
    // aligned.
    values_bytes_ =
        round_up(static_cast<std::size_t>(dim) * simd::panel * (half_ ? sizeof(Half) : sizeof(float)), cache_line);
    panels_in_block_ = block_bytes / (values_bytes_ + sizeof(Side));
    if (panels_in_block_ == 0) panels_in_block_ = 1;
  }
  TemplateStore(TemplateStore&& other) noexcept { swap(other); }
  TemplateStore& operator=(TemplateStore&& other) noexcept {
    swap(other);
    return *this;
  }
  ~TemplateStore() {
    for (std::size_t i = 0; i < blocks_; ++i) deallocate(block_[i]);
  }

  int dim() const noexcept { return dim_; }
  Metric metric() const noexcept { return metric_; }
  bool half() const noexcept { return half_; }

  /// Makes room for `n` templates in all.
  Status reserve(std::size_t n) noexcept {
    while (blocks_ * panels_in_block_ * simd::panel < n) {
      if (blocks_ == block_.size()) {
        auto longer = Buffer<char*>::make(blocks_ == 0 ? 16 : 2 * blocks_);
        if (!longer) return longer.status();
        if (blocks_ > 0) std::memcpy(longer->data(), block_.data(), blocks_ * sizeof(char*));
        block_ = std::move(*longer);
      }
      auto* block = static_cast<char*>(allocate(panels_in_block_ * (values_bytes_ + sizeof(Side))));
      if (block == nullptr) return {Errc::out_of_memory, "there is not enough memory for more templates"};
      block_[blocks_++] = block;
    }
    return {};
  }

  Panel panel(std::size_t p) const noexcept {
    char* block = block_[p / panels_in_block_];
    const std::size_t i = p % panels_in_block_;
    auto* side = reinterpret_cast<Side*>(block + panels_in_block_ * values_bytes_) + i;
    return {block + i * values_bytes_, side->scale, &side->error, side->id, side->person};
  }
  std::uint64_t& id(std::size_t slot) const noexcept { return panel(slot / width).id[slot % width]; }
  std::uint64_t& person(std::size_t slot) const noexcept { return panel(slot / width).person[slot % width]; }

  /// Makes zeros of a new panel: what the last one lacks is computed with, and thrown away.
  void open(std::size_t p) const noexcept {
    const Panel to = panel(p);
    std::memset(to.values, 0, values_bytes_);
    std::memset(static_cast<void*>(to.scale), 0, 2 * width * sizeof(float));
    *to.error = {0, 0};
  }
  /// Components below 1.2e-38 count as zero: arithmetic would take them for it anyway (simd::FlushDenormals).
  void put(std::size_t slot, const float* from) const noexcept {
    const Panel to = panel(slot / width);
    const std::size_t column = slot % width;
    constexpr std::size_t part = 16;
    double sums[part] = {};  // one chain of additions would wait for each
    const auto dim = static_cast<std::size_t>(dim_);
    for (std::size_t k = 0; k < dim; k += part) {
      const std::size_t count = dim - k < part ? dim - k : part;
      alignas(cache_line) float x[part] = {};
      for (std::size_t i = 0; i < count; ++i) x[i] = from[k + i];
      for (float& value : x) value = std::fabs(value) < 0x1p-126f ? 0.0f : value;
      if (half_) {
        alignas(cache_line) Half halves[part];
        simd::float_to_half(x, halves);
        for (std::size_t i = 0; i < count; ++i) static_cast<Half*>(to.values)[(k + i) * width + column] = halves[i];
        for (std::size_t i = 0; i < part; i += simd::width) simd::store(x + i, simd::load(halves + i));
      } else {
        for (std::size_t i = 0; i < count; ++i) static_cast<float*>(to.values)[(k + i) * width + column] = x[i];
      }
      for (std::size_t i = 0; i < part; ++i) sums[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    double square = 0;
    for (const double sum : sums) square += sum;
    const double norm = std::sqrt(square), offset = metric_ == Metric::euclidean ? square / 2 : 0;
    const double scale = metric_ == Metric::euclidean ? 1 : norm > 0 ? 1 / norm : 0;
    to.scale[column] = static_cast<float>(scale);
    to.scale[width + column] = static_cast<float>(-offset);
    const auto error = kernels::score_error(dim_, norm, scale, offset);
    if (error.norm > to.error->norm) to.error->norm = error.norm;
    if (error.constant > to.error->constant) to.error->constant = error.constant;
  }
  void get(std::size_t slot, float* to) const noexcept {
    const void* values = panel(slot / width).values;
    const std::size_t column = slot % width;
    for (std::size_t k = 0; k < static_cast<std::size_t>(dim_); ++k)
      to[k] = half_ ? simd::half_to_float(static_cast<const Half*>(values)[k * width + column])
                    : static_cast<const float*>(values)[k * width + column];
  }

 private:
  static constexpr std::size_t block_bytes = 2 * huge_page, width = simd::panel;
  struct alignas(cache_line) Side {
    float scale[2 * width];
    kernels::ScoreError error;
    std::uint64_t id[width], person[width];
  };
  void swap(TemplateStore& other) noexcept {
    std::swap(dim_, other.dim_);
    std::swap(metric_, other.metric_);
    std::swap(half_, other.half_);
    std::swap(values_bytes_, other.values_bytes_);
    std::swap(panels_in_block_, other.panels_in_block_);
    std::swap(blocks_, other.blocks_);
    std::swap(block_, other.block_);
  }

  int dim_ = 0;
  Metric metric_ = Metric::euclidean;
  bool half_ = false;
  std::size_t values_bytes_ = 0, panels_in_block_ = 1, blocks_ = 0;
  Buffer<char*> block_;
};

}  // namespace detail

FACENET_END
