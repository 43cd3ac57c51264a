#include "support.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <stdexcept>
#include <vector>

namespace facenet_c {

// ---- Errors ---------------------------------------------------------------------------------------------------------

void copy_text(const char* from, char* to, std::size_t size) noexcept {
  const std::size_t length = std::strlen(from);
  std::size_t keep = length < size ? length : size - 1;
  while (keep < length && keep > 0 && (static_cast<unsigned char>(from[keep]) & 0xc0) == 0x80) --keep;
  std::memcpy(to, from, keep);
  std::memset(to + keep, 0, size - keep);
}

bool can_report(const facenet_error* error) noexcept {
  return error == nullptr ||
         (error->struct_size >= offsetof(facenet_error, offset) && error->struct_size <= largest_struct);
}

facenet_code report(facenet_error* error, facenet_code code, const char* sentence, const char* place,
                    std::int64_t offset) noexcept {
  if (error == nullptr) return code;
  facenet_error made;
  std::memset(&made, 0, sizeof made);
  made.code = code;
  made.offset = offset;
  copy_text(code == FACENET_OK ? "" : sentence, made.sentence);
  copy_text(code == FACENET_OK ? "" : place, made.place);
  const std::uint32_t size = error->struct_size;
  write_result(made, error);
  // An older program's structure may end inside of a text.
  if (size > offsetof(facenet_error, sentence) && size < sizeof made) reinterpret_cast<char*>(error)[size - 1] = 0;
  return code;
}

facenet_code report(facenet_error* error, const Status& status) noexcept {
  return report(error, static_cast<facenet_code>(status.code()), status.text(), status.place(), status.offset());
}

facenet_code report_exception(facenet_error* error) noexcept {
  try {
    throw;
  } catch (const Failure& f) {
    return report(error, f.code, f.sentence.c_str(), f.place.c_str(), -1);
  } catch (const std::bad_alloc&) {
    return report(error, FACENET_OUT_OF_MEMORY, "there is not enough memory", "", -1);
  } catch (const std::length_error&) {
    return report(error, FACENET_OUT_OF_MEMORY, "there is not enough memory", "", -1);
  } catch (const std::exception& e) {
    return report(error, FACENET_INTERNAL, e.what(), "", -1);
  } catch (...) {
    return report(error, FACENET_INTERNAL, "something unknown went wrong: please report it", "", -1);
  }
}

// ---- Locks ----------------------------------------------------------------------------------------------------------

namespace {

constexpr timespec short_pause{0, 100000};

// Numbers, not the addresses of pthread_self(): a child gives those of its parent's threads to threads of its own. No
// thread of a process has the number of another one, nor of one that its parent had.
std::uint32_t this_thread() noexcept {
  static std::atomic<std::uint32_t> last{0};
  static thread_local std::uint32_t number = 0;
  if (number == 0) number = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return number;
}

}  // namespace

ProcessLock::Taken ProcessLock::lock() noexcept {
  const std::uint32_t thread = this_thread();
  const std::uint64_t process = static_cast<std::uint32_t>(getpid()), here = process << 32 | thread;
  for (int turn = 0;; ++turn) {
    std::uint64_t holder = 0;
    if (holder_.compare_exchange_strong(holder, here, std::memory_order_acquire)) return Taken::yes;
    if (static_cast<std::uint32_t>(holder) == thread) return Taken::again;
    if (holder >> 32 != process) {  // this process's memory is a copy: the holder does not run in it
      if (holder_.compare_exchange_strong(holder, here, std::memory_order_acquire)) return Taken::stale;
      continue;
    }
    if (turn < 100) {
      sched_yield();
    } else {  // an embedding takes milliseconds, so 0.1 ms more is not noticed
      nanosleep(&short_pause, nullptr);
    }
  }
}

void ProcessLock::unlock() noexcept { holder_.store(0, std::memory_order_release); }

namespace {

// Below: threads with a NoFork. Above: those that wait in fork(). In one word, so that nobody comes in, if only to
// leave at once, while one waits: the child would see him.
std::atomic<std::uint64_t> gate{0};
constexpr std::uint64_t one_fork = std::uint64_t{1} << 32;
std::uint32_t inside() noexcept { return static_cast<std::uint32_t>(gate.load()); }

std::atomic<bool> missed{false};
thread_local std::uint32_t mine = 0;  // a thread may have several, but does not wait for itself

void before_fork() noexcept {
  constexpr int most_turns = 2000;
  gate.fetch_add(one_fork);
  for (int turn = 0; turn < most_turns && inside() > (mine > 0); ++turn) nanosleep(&short_pause, nullptr);
}
void in_parent() noexcept { gate.fetch_sub(one_fork); }
void in_child() noexcept {
  if (inside() > 0) missed.store(true);
  gate.store(mine > 0);
}

}  // namespace

NoFork::NoFork() noexcept {
  if (mine++ > 0) return;
  for (std::uint64_t now = gate.load();;) {
    if (now < one_fork && gate.compare_exchange_weak(now, now + 1)) return;
    if (now >= one_fork) {
      nanosleep(&short_pause, nullptr);
      now = gate.load();
    }
  }
}
NoFork::~NoFork() {
  if (--mine == 0) gate.fetch_sub(1);
}
bool NoFork::was_missed() noexcept { return missed.load(); }

// ---- Handles --------------------------------------------------------------------------------------------------------

namespace {

// A handle is (generation << 17) + (slot << 1) + 1: odd, so never the address of an object, and of another generation
// when its slot is used again. On 32 bits a handle returns after 32,768 uses of its slot.
constexpr std::size_t most_handles = 65535;
constexpr int slot_bits = 17;
constexpr std::uintptr_t last_generation = ~std::uintptr_t{0} >> slot_bits;

struct Slot {
  std::shared_ptr<Object> object;  // null: free
  std::uintptr_t generation = 0;
  std::size_t next_free = 0;
};

struct Table {
  std::vector<Slot> slots;
  std::size_t first_free = most_handles, live = 0;
};

// Not an object with a destructor: what a program did not free may still be in use by a thread when it ends.
Table* table = nullptr;
ProcessLock table_lock;

class TableUse {
 public:
  TableUse() noexcept { table_lock.lock(); }  // never stale: fork() waits for it, see below
  TableUse(const TableUse&) = delete;
  TableUse& operator=(const TableUse&) = delete;
  ~TableUse() { table_lock.unlock(); }
};

std::uintptr_t value_of(std::size_t slot) noexcept {
  return (table->slots[slot].generation << slot_bits) | (slot << 1) | 1;
}

/// The slot of a live handle; null for another value. With the lock.
Slot* slot_of(const void* handle, Kind kind) noexcept {
  const auto value = reinterpret_cast<std::uintptr_t>(handle);
  const std::size_t slot = (value >> 1) & 0xffff;
  if ((value & 1) == 0 || table == nullptr || slot >= table->slots.size()) return nullptr;
  Slot& s = table->slots[slot];
  return s.object != nullptr && value_of(slot) == value && s.object->kind() == kind ? &s : nullptr;
}

// A child must find the table whole. The table is locked last: those that before_fork() waits for may need it.
__attribute__((constructor)) void begin() {
  pthread_atfork([] { before_fork(), table_lock.lock(); }, [] { table_lock.unlock(), in_parent(); },
                 [] { table_lock.unlock(), in_child(); });
}

__attribute__((destructor)) void end() {
  if (table == nullptr || table->live != 0) return;
  delete table;
  table = nullptr;
}

}  // namespace

Status make_handle(std::shared_ptr<Object> object, void*& handle) {
  const TableUse use;
  if (table == nullptr) table = new Table;
  if (table->first_free == most_handles) {
    if (table->slots.size() == most_handles)
      return {Errc::limit_exceeded, "65535 handles exist: free those that are not used any more"};
    table->slots.emplace_back();
    table->slots.back().next_free = most_handles;
    table->first_free = table->slots.size() - 1;
  }
  const std::size_t slot = table->first_free;
  Slot& s = table->slots[slot];
  table->first_free = s.next_free;
  s.generation = s.generation == last_generation ? 1 : s.generation + 1;
  s.object = std::move(object);
  ++table->live;
  handle = reinterpret_cast<void*>(value_of(slot));
  return {};
}

std::shared_ptr<Object> find_handle(const void* handle, Kind kind) noexcept {
  const TableUse use;
  const Slot* const s = slot_of(handle, kind);
  return s != nullptr ? s->object : nullptr;
}

facenet_code free_handle(const void* handle, Kind kind) noexcept {
  if (handle == nullptr) return FACENET_OK;
  std::shared_ptr<Object> ends;  // after the lock: an object may hold another, and take long
  {
    const TableUse use;
    Slot* const s = slot_of(handle, kind);
    if (s == nullptr) return FACENET_INVALID_ARGUMENT;
    ends = std::move(s->object);
    s->object = nullptr;
    s->next_free = table->first_free;
    table->first_free = static_cast<std::size_t>(s - table->slots.data());
    --table->live;
  }
  return FACENET_OK;
}

void wipe(void* memory, std::size_t size) noexcept {
  if (memory == nullptr || size == 0) return;
  std::memset(memory, 0, size);
  __asm__ volatile("" : : "r"(memory) : "memory");  // as if it were read
}

}  // namespace facenet_c
