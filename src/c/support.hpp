// What every function of the C library stands on: errors as facenet_error, structures of other versions, handles.
// Compiled for the baseline CPU.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <type_traits>

#include "facenet/base/status.hpp"
#include "facenet/facenet.h"

namespace facenet_c {

using facenet::Errc;
using facenet::Status;

static_assert(static_cast<int>(Errc::invalid_argument) == FACENET_INVALID_ARGUMENT &&
                  static_cast<int>(Errc::out_of_memory) == FACENET_OUT_OF_MEMORY &&
                  static_cast<int>(Errc::io_error) == FACENET_IO_ERROR &&
                  static_cast<int>(Errc::not_found) == FACENET_NOT_FOUND &&
                  static_cast<int>(Errc::truncated) == FACENET_TRUNCATED &&
                  static_cast<int>(Errc::corrupt) == FACENET_CORRUPT &&
                  static_cast<int>(Errc::unsupported) == FACENET_UNSUPPORTED &&
                  static_cast<int>(Errc::limit_exceeded) == FACENET_LIMIT_EXCEEDED &&
                  static_cast<int>(Errc::weights_mismatch) == FACENET_WEIGHTS_MISMATCH &&
                  static_cast<int>(Errc::cancelled) == FACENET_CANCELLED,
              "the codes of facenet.h are those of Errc");

// ---- Errors ---------------------------------------------------------------------------------------------------------

/// Fills the caller's error as far as its struct_size goes; returns the code.
facenet_code report(facenet_error* error, facenet_code code, const char* sentence, const char* place,
                    std::int64_t offset) noexcept;
facenet_code report(facenet_error* error, const Status& status) noexcept;
/// False for one that is not null and whose struct_size holds no code: nothing can be written there.
bool can_report(const facenet_error* error) noexcept;
/// What has a sentence of its own, of the store's: thrown, since a Status holds static text alone.
struct Failure {
  facenet_code code;
  std::string sentence, place;
};

/// Of the exception that is being handled.
facenet_code report_exception(facenet_error* error) noexcept;

/// Calls `Status f()` and reports what comes of it. No exception leaves.
template <class F>
facenet_code guarded(facenet_error* error, F&& f) noexcept {
  if (!can_report(error)) return FACENET_INVALID_ARGUMENT;
  try {
    return report(error, f());
  } catch (...) {
    return report_exception(error);
  }
}

inline Status null_argument(const char* name) noexcept {
  return Status(Errc::invalid_argument, "this argument is null").in(name);
}

// ---- Structures that grow -------------------------------------------------------------------------------------------

constexpr std::uint32_t largest_struct = 1 << 16;  // above it struct_size is not a size

inline Status check_struct_size(std::uint32_t size, const char* name) noexcept {
  if (size >= sizeof size && size <= largest_struct) return {};
  return Status(Errc::invalid_argument, "its struct_size is not set: initialise it with the macro of its name")
      .in(name);
}

/// The caller's options as this version knows them: what an older program lacks is 0. Null gives all zeros.
template <class T>
Status read_options(const T* given, const char* name, T& out) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  std::memset(&out, 0, sizeof out);
  if (given == nullptr) return {};
  const std::uint32_t size = given->struct_size;
  FACENET_TRY(check_struct_size(size, name));
  std::memcpy(&out, given, std::min<std::size_t>(size, sizeof out));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof out; i < size; ++i)
    if (bytes[i] != 0)
      return Status(Errc::unsupported, "a newer facenet knows this option, and this library does not: install that one")
          .in(name);
  return {};
}

/// Whether results can be written to `to`, which is looked at before any work is done.
template <class T>
Status check_result(const T* to, const char* name) noexcept {
  if (to == nullptr) return null_argument(name);
  return check_struct_size(to->struct_size, name);
}

/// Writes as much as the caller's structure holds, and zeros beyond what this version knows.
template <class T>
void write_result(const T& made, T* to) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  const std::uint32_t size = to->struct_size;
  std::memcpy(to, &made, std::min<std::size_t>(size, sizeof made));
  if (size > sizeof made) std::memset(reinterpret_cast<unsigned char*>(to) + sizeof made, 0, size - sizeof made);
  to->struct_size = size;
}

/// Copies text that may be longer, cut at a whole character.
void copy_text(const char* from, char* to, std::size_t size) noexcept;
template <std::size_t n>
void copy_text(const char* from, char (&to)[n]) noexcept {
  copy_text(from, to, n);
}

// ---- Handles --------------------------------------------------------------------------------------------------------

/// A lock that a child may take over when its parent was forked while another thread held it.
class ProcessLock {
 public:
  enum class Taken {
    yes,
    stale,  // the holder is a thread of the parent's: what the lock guards may be half-changed
    again,  // this thread holds it already, maybe since before a fork, so it was not taken
  };
  Taken lock() noexcept;
  void unlock() noexcept;

 private:
  // The holder's process and thread in one word, so that none is ever seen with the other's; 0: nobody.
  std::atomic<std::uint64_t> holder_{0};
};

/// While one lives, fork() waits for its thread: for what has tables and mutexes of a whole process, as SQLite has, of
/// which a child would get a copy that nobody puts in order. It waits 0.2 s at most, since what is done here may wait
/// for the thread that forks.
class NoFork {
 public:
  NoFork() noexcept;
  NoFork(const NoFork&) = delete;
  NoFork& operator=(const NoFork&) = delete;
  ~NoFork();
  /// Whether this process was forked off all the same.
  static bool was_missed() noexcept;
};

enum class Kind : std::uint8_t { embedder, detector, image, gallery, cancel };

/// What a handle stands for.
class Object {
 public:
  explicit Object(Kind kind) noexcept : kind_(kind) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  Kind kind() const noexcept { return kind_; }
  /// Makes good what a thread of the parent's was doing when this process was forked off.
  virtual Status recover() { return {}; }

  ProcessLock lock;
  bool stale = false;  // recover() has still to succeed; with the lock

 private:
  Kind kind_;
};

/// What an object says of its kind.
template <Kind k>
class ObjectOf : public Object {
 public:
  static constexpr Kind handle_kind = k;
  static constexpr const char* name = k == Kind::embedder   ? "embedder"
                                      : k == Kind::detector ? "detector"
                                      : k == Kind::image    ? "image"
                                      : k == Kind::gallery  ? "gallery"
                                                            : "cancel";
  ObjectOf() noexcept : Object(k) {}
};

/// Gives the object a handle, which is not an address: so a stale one is known. Throws std::bad_alloc.
Status make_handle(std::shared_ptr<Object> object, void*& handle);
/// Null for a handle that is not one of this kind now.
std::shared_ptr<Object> find_handle(const void* handle, Kind kind) noexcept;
/// Forgets the handle. The object ends with the last call that uses it.
facenet_code free_handle(const void* handle, Kind kind) noexcept;

template <class T>
Status find(const void* handle, std::shared_ptr<T>& object) noexcept {
  if (handle == nullptr) return Status(Errc::invalid_argument, "this handle is null").in(T::name);
  auto found = find_handle(handle, T::handle_kind);
  if (found == nullptr)
    return Status(Errc::invalid_argument, "this handle was freed, or is not one of this kind").in(T::name);
  object = std::static_pointer_cast<T>(std::move(found));
  return {};
}

/// An object that no other call uses meanwhile.
template <class T>
class Use {
 public:
  Use() = default;
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  ~Use() {
    if (locked_) object_->lock.unlock();
  }
  Status take(const void* handle) {
    FACENET_TRY(find(handle, object_));
    const auto taken = object_->lock.lock();
    if (taken == ProcessLock::Taken::again)
      return Status(Errc::invalid_argument, "a callback must not call with the handle that it is called by")
          .in(T::name);
    locked_ = true;
    object_->stale = object_->stale || taken == ProcessLock::Taken::stale;
    if (object_->stale) FACENET_TRY(object_->recover());
    object_->stale = false;
    return {};
  }
  T* operator->() const noexcept { return object_.get(); }
  T& operator*() const noexcept { return *object_; }

 private:
  std::shared_ptr<T> object_;
  bool locked_ = false;
};

/// Makes a T and its handle: `Status make(T&)` fills it.
template <class T, class Handle, class F>
facenet_code make_object(Handle** handle, const char* argument, facenet_error* error, F&& make) noexcept {
  if (handle != nullptr) *handle = nullptr;
  return guarded(error, [&]() -> Status {
    if (handle == nullptr) return null_argument(argument);
    auto object = std::make_shared<T>();
    FACENET_TRY(make(*object));
    void* made = nullptr;
    FACENET_TRY(make_handle(std::move(object), made));
    *handle = static_cast<Handle*>(made);
    return {};
  });
}

class Cancel : public ObjectOf<Kind::cancel> {
 public:
  std::atomic<bool> flag{false};
};

/// The flag of an option, null for none.
inline Status find_cancel(facenet_cancel* handle, std::shared_ptr<Cancel>& cancel) noexcept {
  cancel = nullptr;
  return handle == nullptr ? Status() : find(handle, cancel);
}

/// Overwrites memory that is not read again.
void wipe(void* memory, std::size_t size) noexcept;

}  // namespace facenet_c
