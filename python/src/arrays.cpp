#include "arrays.hpp"

#include <cstring>
#include <initializer_list>

namespace python {

namespace {

constexpr const char* code_of(Errc code) noexcept {
  switch (code) {
    case Errc::ok:
      return "ok";
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::out_of_memory:
      return "out_of_memory";
    case Errc::io_error:
      return "io_error";
    case Errc::not_found:
      return "not_found";
    case Errc::truncated:
      return "truncated";
    case Errc::corrupt:
      return "corrupt";
    case Errc::unsupported:
      return "unsupported";
    case Errc::limit_exceeded:
      return "limit_exceeded";
    case Errc::weights_mismatch:
      return "weights_mismatch";
    case Errc::cancelled:
      return "cancelled";
  }
  return "unsupported";
}

std::string shape_of(const Py_buffer& b) {
  std::string text = "[";
  for (int i = 0; i < b.ndim; ++i) text += (i == 0 ? "" : ", ") + std::to_string(b.shape[i]);
  return text + "]";
}

/// As NumPy names it, for messages; else the buffer's own letter.
std::string type_of(const Py_buffer& b) {
  struct Name {
    char letter;
    const char* name;
  };
  static constexpr Name names[] = {{'?', "bool"},    {'b', "int8"},    {'B', "uint8"},  {'h', "int16"},
                                   {'H', "uint16"},  {'i', "int32"},   {'I', "uint32"}, {'l', "int64"},
                                   {'L', "uint64"},  {'q', "int64"},   {'Q', "uint64"}, {'e', "float16"},
                                   {'f', "float32"}, {'d', "float64"}, {'O', "object"}};
  const char* format = b.format == nullptr ? "B" : b.format;
  for (const Name& n : names)
    if (format[0] == n.letter && format[1] == 0) return n.name;
  return format;
}

bool is_type(const Py_buffer& b, char letter, Py_ssize_t size) noexcept {
  const char* format = b.format == nullptr ? "B" : b.format;
  if (*format == '<' || *format == '=' || *format == '@') ++format;
  return format[0] == letter && format[1] == 0 && b.itemsize == size;
}

}  // namespace

void set_error(const char* code, const std::string& sentence) {
  // A name that was cut short may end in half a character, and a file's need not be UTF-8.
  const nb::object text =
      nb::steal(PyUnicode_DecodeUTF8(sentence.data(), static_cast<Py_ssize_t>(sentence.size()), "replace"));
  if (!text.is_valid()) return;
  const nb::object error = nb::module_::import_("facenet._errors").attr("error")(code, text);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

void raise(const char* code, const std::string& sentence) {
  set_error(code, sentence);
  throw nb::python_error();
}

void raise(const Status& status) {
  char text[768];
  const std::string sentence = status.print(text, sizeof text);
  raise(code_of(status.code()), sentence + ".");
}

View::View(nb::handle object) {
  if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    const std::string type = nb::cast<std::string>(nb::str(nb::handle(object.type()).attr("__name__")));
    raise("invalid_argument", "an object of the type " + type + " is no array: give a NumPy array.");
  }
  open_ = true;
}

ChannelOrder channel_order(std::string_view word) {
  if (word == "rgb") return ChannelOrder::rgb;
  if (word == "bgr") return ChannelOrder::bgr;
  raise("invalid_argument",
        "channels: \"" + std::string(word) + "\" is not known: give \"rgb\", or \"bgr\" for OpenCV's pictures.");
}

bool is_float(const Py_buffer& buffer) noexcept { return is_type(buffer, 'f', 4); }
std::string description(const Py_buffer& buffer) { return type_of(buffer) + " " + shape_of(buffer); }

int Pictures::add(nb::handle array, ChannelOrder order) {
  open_.emplace_back(array);
  const Py_buffer& b = *open_.back();
  if (!is_type(b, 'B', 1))
    raise("invalid_argument", "a picture's array is " + type_of(b) +
                                  ", not uint8: give bytes from 0 to 255; embed_nhwc() takes standardised floats.");
  if ((b.ndim != 3 && b.ndim != 4) || b.shape[b.ndim - 1] != 3)
    raise("invalid_argument", "a picture's array has the shape " + shape_of(b) +
                                  ": give uint8 [height, width, 3], or [n, height, width, 3] for several.");
  const bool several = b.ndim == 4;
  const Py_ssize_t n = several ? b.shape[0] : 1;
  const Py_ssize_t *shape = b.shape + several, *stride = b.strides + several;
  for (int i = 0; i < 2; ++i)
    if (shape[i] < 1 || shape[i] > facenet::max_image_side)
      raise(shape[i] < 1 ? "invalid_argument" : "limit_exceeded",
            "a picture's array has the shape " + shape_of(b) + ": sides are 1 to " +
                std::to_string(facenet::max_image_side) + " pixels.");
  const int h = static_cast<int>(shape[0]), w = static_cast<int>(shape[1]);
  // Along an axis of length 1 NumPy's stride means nothing.
  const bool packed = w == 1 || stride[1] == 3, reversed = stride[2] == -1;
  for (Py_ssize_t i = 0; i < n; ++i) {
    const auto* first = static_cast<const std::uint8_t*>(b.buf) + (several ? i * b.strides[0] : 0);
    if (packed && stride[2] == 1) {
      views_.emplace_back(first, w, h, stride[0], order);
    } else if (packed && reversed) {
      views_.emplace_back(first - 2, w, h, stride[0],
                          order == ChannelOrder::rgb ? ChannelOrder::bgr : ChannelOrder::rgb);
    } else {
      const std::size_t row = static_cast<std::size_t>(w) * 3;
      copies_.emplace_back(new std::uint8_t[row * static_cast<std::size_t>(h)]);
      std::uint8_t* to = copies_.back().get();
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x)
          for (int c = 0; c < 3; ++c) *to++ = first[y * stride[0] + x * stride[1] + c * stride[2]];
      views_.emplace_back(copies_.back().get(), w, h, static_cast<std::ptrdiff_t>(row), order);
    }
  }
  return b.ndim;
}

Array<std::uint8_t> array_of(Image image) {
  auto* const kept = new Image(std::move(image));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<Image*>(p); });
  if (kept->order() == ChannelOrder::bgr)
    for (std::size_t i = 0; i + 2 < kept->bytes(); i += 3) std::swap(kept->data()[i], kept->data()[i + 2]);
  const std::size_t shape[] = {static_cast<std::size_t>(kept->height()), static_cast<std::size_t>(kept->width()), 3};
  return Array<std::uint8_t>(kept->data(), 3, shape, owner);
}

Rows rows_of(nb::handle array, const char* name) {
  Rows r{View(array), 0, 0};
  const Py_buffer& b = *r.view;
  if (!is_type(b, 'f', 4))
    raise("invalid_argument", std::string(name) + ": the array is " + type_of(b) + ", not float32.");
  if (b.ndim != 1 && b.ndim != 2)
    raise("invalid_argument",
          std::string(name) + ": the array has the shape " + shape_of(b) + ", not [dim] or [n, dim].");
  r.rows = b.ndim == 1 ? 1 : static_cast<std::size_t>(b.shape[0]);
  r.dim = static_cast<std::size_t>(b.shape[b.ndim - 1]);
  if (PyBuffer_IsContiguous(&b, 'C') == 0)
    raise("invalid_argument", std::string(name) + ": the array has gaps: give numpy.ascontiguousarray() of it.");
  return r;
}

}  // namespace python
