// The program's own malloc (glibc's, counted), so that what the standard library allocates for somebody counts too.
#include <cstddef>

extern "C" {
long allocations = 0;
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) { return ++allocations, __libc_malloc(bytes); }
void* calloc(std::size_t count, std::size_t bytes) { return ++allocations, __libc_calloc(count, bytes); }
void* realloc(void* p, std::size_t bytes) { return ++allocations, __libc_realloc(p, bytes); }
void* memalign(std::size_t align, std::size_t bytes) { return ++allocations, __libc_memalign(align, bytes); }
void* aligned_alloc(std::size_t align, std::size_t bytes) { return memalign(align, bytes); }
}
