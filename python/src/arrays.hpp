// Between Python's objects and the engine's: pixels without a copy, results as NumPy arrays, a Status as an exception.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "facenet/dispatch.hpp"
#include "interrupt.hpp"

namespace nb = nanobind;

namespace python {

using facenet::ChannelOrder;
using facenet::Errc;
using facenet::Image;
using facenet::ImageView;
using facenet::Span;
using facenet::Status;

template <class T>
using Array = nb::ndarray<nb::numpy, T>;

/// Sets the exception of facenet._errors that fits: code and sentence.
void set_error(const char* code, const std::string& sentence);
/// Raises it. It runs Python, so no mutex may be held.
[[noreturn]] void raise(const char* code, const std::string& sentence);
[[noreturn]] void raise(const Status& status);
inline void check(const Status& status) {
  if (!status.ok()) raise(status);
}
template <class T>
T value(facenet::Result<T> result) {
  if (!result) raise(result.status());
  return std::move(*result);
}
template <class T>
T unwrapped(facenet::Result<T> result) {
  return value(std::move(result));
}
template <class T>
T unwrapped(T made) {
  return made;
}

/// f() without the interpreter's lock, where f looks at the flag `cancel`, which Ctrl-C sets. Where Python's handler
/// returns, f is done again.
template <class F>
void interruptible(std::atomic<bool>& cancel, F&& f) {
  for (;;) {
    Status status;
    {
      const Interruptible watch(cancel);
      const Unlocked others_run;
      status = f();
    }
    cancel.store(false, std::memory_order_relaxed);
    if (status.code() != Errc::cancelled) return check(status);
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

/// f() without the interpreter's lock. What f throws, or a Status that it returns, becomes an exception of Python's
/// when the lock is held again; a Result becomes its value, and whatever else f returns stays as it is.
template <class F>
auto unlocked(F&& f) {
  using Made = decltype(f());
  if constexpr (std::is_void_v<Made>) {
    const Unlocked others_run;
    f();
  } else {
    auto made = [&] {
      const Unlocked others_run;
      return f();
    }();
    if constexpr (std::is_same_v<Made, Status>)
      check(made);
    else
      return unwrapped(std::move(made));
  }
}

/// Someone's buffer (a NumPy array, a memoryview), held open. The interpreter's lock must be held at both ends.
class View {
 public:
  explicit View(nb::handle object);
  View(View&& other) noexcept : buffer_(other.buffer_), open_(std::exchange(other.open_, false)) {}
  View& operator=(View&&) = delete;
  ~View() {
    if (open_) PyBuffer_Release(&buffer_);
  }
  const Py_buffer& operator*() const noexcept { return buffer_; }
  const Py_buffer* operator->() const noexcept { return &buffer_; }

 private:
  Py_buffer buffer_{};
  bool open_ = false;
};

/// Pictures for the engine: views into arrays, which stay open as long as this. Rows may lie any number of bytes apart,
/// bottom up too, and channels be reversed (bgr[..., ::-1]); other strides cost a copy.
class Pictures {
 public:
  Pictures() = default;
  /// An array uint8 [height, width, 3], or several in [n, height, width, 3].
  /// Returns the number of its axes.
  int add(nb::handle array, ChannelOrder order);
  const std::vector<ImageView>& views() const noexcept { return views_; }
  Span<const ImageView> span() const noexcept { return {views_.data(), views_.size()}; }

 private:
  std::vector<View> open_;
  std::vector<std::unique_ptr<std::uint8_t[]>> copies_;
  std::vector<ImageView> views_;
};

ChannelOrder channel_order(std::string_view word);
bool is_float(const Py_buffer& buffer) noexcept;
/// Type and shape, for messages.
std::string description(const Py_buffer& buffer);

/// The array of `data`, which dies with it.
template <class T>
Array<T> owned(std::unique_ptr<T[]> data, std::initializer_list<std::size_t> shape) {
  T* const first = data.get();
  nb::capsule owner(data.release(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Array<T>(first, shape.size(), shape.begin(), owner);
}
/// A picture's own pixels as uint8 [height, width, 3], in the order RGB.
Array<std::uint8_t> array_of(Image image);

/// Floats [n, dim] of an array; those of a one-dimensional array are one row.
struct Rows {
  View view;
  std::size_t rows, dim;
  Span<const float> floats() const noexcept { return {static_cast<const float*>(view->buf), rows * dim}; }
};
Rows rows_of(nb::handle array, const char* name);

}  // namespace python
