// The program's own malloc (glibc's, counted), so that what the standard library allocates for somebody counts too.
#include <stddef.h>

long allocations = 0;
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t bytes) { return ++allocations, __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return ++allocations, __libc_calloc(count, bytes); }
void* realloc(void* p, size_t bytes) { return ++allocations, __libc_realloc(p, bytes); }
void* memalign(size_t align, size_t bytes) { return ++allocations, __libc_memalign(align, bytes); }
void* aligned_alloc(size_t align, size_t bytes) { return memalign(align, bytes); }
