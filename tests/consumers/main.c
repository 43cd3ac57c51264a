// main WEIGHTS PIXELS [RUNS [DETECTOR PHOTO WIDTH HEIGHT]] : embeds a picture through consumer.h and prints what
// tools/constrained_builds.py wants to know. In C, so that a program whose C++ needs no C++ library can be linked
// without one.
#include "consumer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/// The most memory this process had so far, in kB. Not getrusage: its number begins with that of the process that
/// forked us.
static long peak_memory(void) {
  char line[256];
  long kb = -1;
  FILE* f = fopen("/proc/self/status", "r");
  if (f == NULL) return kb;
  while (fgets(line, sizeof line, f) != NULL)
    if (strncmp(line, "VmHWM:", 6) == 0) kb = strtol(line + 6, NULL, 10);
  fclose(f);
  return kb;
}

static double milliseconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static int fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 2;
}

/// A whole file; NULL where it cannot be read.
static unsigned char* bytes_of(const char* path, size_t* size) {
  FILE* f = fopen(path, "rb");
  if (f == NULL || fseek(f, 0, SEEK_END) != 0) return NULL;
  *size = (size_t)ftell(f);
  rewind(f);
  unsigned char* bytes = malloc(*size);
  if (bytes != NULL && fread(bytes, 1, *size, f) != *size) bytes = NULL;
  fclose(f);
  return bytes;
}

int main(int argc, char** argv) {
  enum { side = 160, bytes = side * side * 3, most_runs = 100, most_dim = 4096 };
  static unsigned char pixels[bytes];
  static float out[most_dim], again[most_dim];
  static double times[most_runs];
  if (argc < 3) return fail(argv[0], "usage: WEIGHTS PIXELS [RUNS]");
  FILE* f = fopen(argv[2], "rb");
  if (f == NULL || fread(pixels, 1, bytes, f) != bytes)
    return fail(argv[2], "160 x 160 pixels of three bytes cannot be read");
  fclose(f);
  long runs = argc > 3 ? strtol(argv[3], NULL, 10) : 5;
  if (runs < 1 || runs > most_runs) return fail(argv[3], "from 1 to 100 runs");

  const char* why = consumer_open(argv[1]);
  if (why != NULL) return fail("open", why);
  const int dim = consumer_dim();
  if (dim < 1 || dim > most_dim) return fail("open", "a dimension that makes no sense");
  why = consumer_embed(pixels, out);
  if (why != NULL) return fail("embed", why);
  printf("peak_kb %ld\nembedding", peak_memory());
  for (int i = 0; i < dim; ++i) printf(" %.9g", (double)out[i]);
  for (long i = 0; i < runs; ++i) {
    const double began = milliseconds();
    why = consumer_embed(pixels, again);
    times[i] = milliseconds() - began;
    if (why != NULL) return fail("embed", why);
    if (memcmp(out, again, (size_t)dim * sizeof *out) != 0) return fail("embed", "other bits at another time");
  }
  qsort(times, (size_t)runs, sizeof *times, ascending);
  printf("\nms %.3f\n", times[runs / 2]);
  if (argc > 7) {
    size_t size = 0, photo_size = 0;
    int faces = -1;
    const unsigned char *weights = bytes_of(argv[4], &size), *photo = bytes_of(argv[5], &photo_size);
    const int width = (int)strtol(argv[6], NULL, 10), height = (int)strtol(argv[7], NULL, 10);
    if (weights == NULL || photo == NULL || photo_size != (size_t)width * (size_t)height * 3)
      return fail(argv[5], "no such photo");
    why = consumer_faces(weights, size, photo, width, height, out, &faces);
    if (why != NULL) return fail("faces", why);
    printf("faces %d\n", faces);
  }
  const char* note = consumer_close();
  if (strncmp(note, "error: ", 7) == 0) return fail("close", note + 7);
  printf("note %s\n", note);
  return 0;
}
