/* The C interface of the compiled library, libfacenet.so.0: for C, and for every language that can call C.
 *
 * A complete program, which says whether two portraits show one person:
 *
 *   #include <facenet/facenet.h>
 *   #include <stdio.h>
 *
 *   static int fail(const facenet_error *error) {
 *     char text[FACENET_MESSAGE_SIZE];
 *     facenet_error_message(error, text, sizeof text);
 *     fprintf(stderr, "%s\n", text);
 *     return 2;
 *   }
 *
 *   int main(int argc, char **argv) {
 *     facenet_error error = FACENET_ERROR_INIT;
 *     facenet_model_info model = FACENET_MODEL_INFO_INIT;
 *     facenet_detector *detector = NULL;
 *     facenet_embedder *embedder = NULL;
 *     float embedding[2][FACENET_MAX_EMBEDDING];
 *     double distance;
 *     int i;
 *     if (argc != 5) return fprintf(stderr, "usage: verify EMBEDDER DETECTOR A B\n"), 2;
 *     if (facenet_embedder_load(argv[1], NULL, &embedder, &error)) return fail(&error);
 *     if (facenet_detector_load(argv[2], NULL, &detector, &error)) return fail(&error);
 *     if (facenet_embedder_info(embedder, &model, &error)) return fail(&error);
 *     for (i = 0; i < 2; ++i) {
 *       facenet_image *photograph = NULL, *crop = NULL;
 *       facenet_picture pixels, face_pixels;
 *       facenet_face faces[100];
 *       size_t found = 0;
 *       if (facenet_image_read(argv[3 + i], &photograph, &error)) return fail(&error);
 *       if (facenet_image_pixels(photograph, &pixels, &error)) return fail(&error);
 *       if (facenet_detect(detector, &pixels, faces, 100, &found, &error)) return fail(&error);
 *       if (found == 0) return fprintf(stderr, "%s: no face\n", argv[3 + i]), 1;
 *       if (facenet_crop_face(embedder, &pixels, &faces[0], &crop, &error)) return fail(&error);
 *       if (facenet_image_pixels(crop, &face_pixels, &error)) return fail(&error);
 *       if (facenet_embed(embedder, &face_pixels, 1, embedding[i], FACENET_MAX_EMBEDDING, &error)) return fail(&error);
 *       facenet_image_free(crop);
 *       facenet_image_free(photograph);
 *     }
 *     if (facenet_distance(FACENET_EUCLIDEAN, embedding[0], embedding[1], (size_t)model.embedding_dim, &distance,
 *                          &error))
 *       return fail(&error);
 *     printf("%.4f %s\n", distance, distance <= model.threshold ? "same" : "different");
 *     facenet_wipe(embedding, sizeof embedding);
 *     facenet_embedder_free(embedder);
 *     facenet_detector_free(detector);
 *     return 0;
 *   }
 *
 * It is compiled with `cc verify.c $(pkg-config --cflags --libs facenet-c)`.
 *
 * What holds for every function:
 *
 * Errors      A function returns a code, FACENET_OK (0) or what went wrong, and describes it in `error`, which may be
 *             null. Every function that has an `error` may return FACENET_INVALID_ARGUMENT (a null pointer, a handle
 *             that was freed, a number that nothing accepts), FACENET_OUT_OF_MEMORY and FACENET_INTERNAL, and every
 *             one that makes a handle FACENET_LIMIT_EXCEEDED (too many handles). The other codes are named at each.
 *             Nothing is printed, nothing ends the process, and no C++ exception leaves the library.
 * Handles     facenet_embedder *, facenet_detector *, facenet_image *, facenet_gallery * and facenet_cancel * are names
 *             of objects, not addresses: read nothing through them. A handle that was freed, or was never one, or is
 *             one of another kind, is FACENET_INVALID_ARGUMENT; null is too, except to the functions that free, which
 *             do nothing then. After any error the handle that a function was to make is null. 65535 can exist at once.
 * Structures  Those that begin with struct_size may grow at their end. Set it to sizeof the structure, by the macro
 *             that is named like the structure; other members that are 0 or null mean the default. A library that is
 *             newer takes what an older program lacks as 0, and writes no further than struct_size. One that is older
 *             takes a newer program's structure if what it does not know is 0, and else returns FACENET_UNSUPPORTED.
 *             The others never change within libfacenet.so.0.
 * Buffers     An output comes with the number of its elements. One that is too small is FACENET_INVALID_ARGUMENT.
 * Text        is UTF-8 that ends with a zero. Text that a structure holds is cut to its array.
 * Threads     Every function may be called from any number of threads. Calls with one handle wait for each other,
 *             so a thread that shall not wait takes a handle of its own: facenet_embedder_fork, facenet_detector_fork.
 *             A handle may be freed while another thread is in a call with it: that call ends as if it were not.
 *             A thread that is in a call must not be ended by pthread_cancel(): its handle would stay taken for ever.
 * Callbacks   are called in the thread of the call. Meanwhile the call's handle is taken, and no other one is. With it
 *             a callback gets FACENET_INVALID_ARGUMENT, and other threads wait. With others it may call; but two
 *             callbacks that each call with the other one's handle wait for ever. A callback must return: no
 *             exception, longjmp() or pthread_exit() may leave it. It may fork(), but the child must not return from
 *             it.
 * fork()      A child may use the embedders and detectors that its parent made, also where another thread of the
 *             parent's was using them. Every call with a gallery that was being used then is FACENET_INVALID_ARGUMENT:
 *             the child opens its own. fork() waits, 0.2 s at most, until no thread reads or writes a gallery file.
 *             Where one still does (its callback is slow, or another process has the file), SQLite's locks are unknown
 *             in the child: every gallery file is FACENET_INVALID_ARGUMENT there, and the child has to exec(). The
 *             threads of a library that was built with OpenMP stay with the parent: there the child computes alone.
 * Unloading   dlclose() is allowed once every handle was freed and no call is running.
 *
 * The library takes the best instruction set of this CPU; $FACENET_FORCE_ISA (sse4, avx2, avxvnni, avx512, avx512vnni)
 * overrules it, for tests. docs/abi.md says what may change from one version to the next.
 */
#ifndef FACENET_FACENET_H
#define FACENET_FACENET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(_WIN32)
#  define FACENET_API __attribute__((visibility("default")))
#else
#  define FACENET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

/** What a function returns: FACENET_OK, or why it did nothing. Later versions may add codes. */
typedef int32_t facenet_code;
enum {
  FACENET_OK = 0,
  FACENET_INVALID_ARGUMENT = 1, /* the caller passed what the function never accepts */
  FACENET_OUT_OF_MEMORY = 2,    /* an allocation failed, or the system has no thread left */
  FACENET_IO_ERROR = 3,         /* the operating system could not open, read or write */
  FACENET_NOT_FOUND = 4,        /* a file, a person or a template that must exist does not */
  FACENET_TRUNCATED = 5,        /* the data ends before it should */
  FACENET_CORRUPT = 6,          /* a checksum or a rule of the format is broken */
  FACENET_UNSUPPORTED = 7,      /* well-formed, but of a kind this library does not read or this CPU cannot do */
  FACENET_LIMIT_EXCEEDED = 8,   /* larger than a documented limit */
  FACENET_WEIGHTS_MISMATCH = 9, /* a weight file, or a gallery, that belongs to another model */
  FACENET_CANCELLED = 10,       /* facenet_cancel_set was called, or the progress callback returned 0 */
  FACENET_INTERNAL = 11         /* a mistake of this library's: please report it */
};

/** What went wrong: `sentence` says why and what to do, `place` in which file, tensor or argument. The caller owns it;
 * nothing in it is allocated. A function that succeeds sets code to 0 and the texts to "". */
typedef struct facenet_error {
  uint32_t struct_size; /* sizeof(facenet_error) */
  facenet_code code;
  int64_t offset;     /* byte in the file or buffer where it was noticed; -1: none */
  char sentence[512]; /* without a full stop */
  char place[384];    /* "" where there is none */
} facenet_error;
#define FACENET_ERROR_INIT \
  { \
    (uint32_t)sizeof(facenet_error), 0, -1, {0}, { 0 } \
  }

/** Room for any message of facenet_error_message. */
#define FACENET_MESSAGE_SIZE 1024

/** The name of a code: "ok", "invalid_argument", …; "unknown" for one that this version does not know. It is never
 * null, and lives until the library is unloaded. */
FACENET_API const char* facenet_code_name(facenet_code code);

/** Writes "place: sentence (byte 7)" into out[size], cut to size with its final zero, and returns the length of the
 * whole message. FACENET_MESSAGE_SIZE bytes are always enough. A null or unset error gives "", a null `out` only the
 * length. */
FACENET_API size_t facenet_error_message(const facenet_error* error, char* out, size_t size);

/* ---- The library ------------------------------------------------------------------------------------------------- */

/** "0.1.0": the version of the library that is loaded. Lives until it is unloaded. */
FACENET_API const char* facenet_version(void);

/** The instruction set that is used on this CPU ("avx2", "neon64", …) in out[size]. Errors: FACENET_UNSUPPORTED (the
 * CPU has none of the library's, or FACENET_FORCE_ISA names one that it lacks). */
FACENET_API facenet_code facenet_isa(char* out, size_t size, facenet_error* error);

/** Overwrites buffer[size] with zeros, in a way that no compiler leaves out: for embeddings and pictures of people that
 * shall not stay in memory. Null does nothing. */
FACENET_API void facenet_wipe(void* buffer, size_t size);

/** The SHA-256 of bytes[size] as 64 lower-case hex digits and a zero in out[out_size], so 65 bytes: galleries know
 * pictures by it. `bytes` may be null where size is 0. */
FACENET_API facenet_code facenet_sha256(const void* bytes, size_t size, char* out, size_t out_size,
                                        facenet_error* error);

/* ---- Cancelling -------------------------------------------------------------------------------------------------- */

/** A flag by which one thread ends what another one is doing. The options of an embedder, a detector and clustering
 * take it, and keep it alive. */
typedef struct facenet_cancel facenet_cancel;

/** Makes a flag that is not set. Free it with facenet_cancel_free. */
FACENET_API facenet_code facenet_cancel_make(facenet_cancel** cancel, facenet_error* error);

/** Sets the flag (set = 1) or clears it (0). What runs with it returns FACENET_CANCELLED soon (an embedding within a
 * layer, a detection within a tile, both far below a millisecond's work; clustering from a face to the next), and so
 * does every later call until the flag is cleared. From any thread; it does not wait, but is not for signal handlers.
 */
FACENET_API facenet_code facenet_cancel_set(facenet_cancel* cancel, int32_t set, facenet_error* error);

/** Frees a flag. FACENET_INVALID_ARGUMENT where it is none, or no more. */
FACENET_API facenet_code facenet_cancel_free(facenet_cancel* cancel);

/** Is told how many of `total` pictures are done, in the thread that called, after each batch. Returns 1 to go on, 0 to
 * cancel. See "Callbacks" above. */
typedef int32_t (*facenet_progress)(void* user, uint64_t done, uint64_t total);

/* ---- Pictures ---------------------------------------------------------------------------------------------------- */

/** The bytes of a pixel, in their order. */
enum {
  FACENET_RGB = 1,
  FACENET_BGR = 2,
  FACENET_RGBA = 3, /* not premultiplied; put over white */
  FACENET_BGRA = 4,
  FACENET_GREY = 5 /* one byte, repeated */
};

/** The longest side of a picture, in pixels. */
#define FACENET_MAX_SIDE 16384

/** Pixels of the caller's, or of a facenet_image. Row y begins at pixels + y * stride, from the top down. Functions
 * that take one read it during the call alone. */
typedef struct facenet_picture {
  const uint8_t* pixels;
  size_t size;           /* bytes from `pixels` on that may be read: (height - 1) * stride + width * bytes a pixel */
  int32_t width, height; /* pixels, 1 to FACENET_MAX_SIDE */
  size_t stride;         /* bytes from a row to the next; 0: rows without a gap */
  int32_t format;        /* FACENET_RGB … FACENET_GREY */
  int32_t reserved;      /* 0 */
} facenet_picture;

/** A picture that the library owns, in FACENET_RGB or, cut from a BGR one, FACENET_BGR. */
typedef struct facenet_image facenet_image;

/** Decodes the bytes of a JPEG or PNG file, upright (EXIF's orientation is applied), alpha over white, 16 bits cut
 * to 8. The bytes may be freed afterwards; free the image with facenet_image_free. Errors: FACENET_TRUNCATED,
 * FACENET_CORRUPT, FACENET_UNSUPPORTED (another format), FACENET_LIMIT_EXCEEDED, with the byte at fault. */
FACENET_API facenet_code facenet_image_decode(const void* bytes, size_t size, facenet_image** image,
                                              facenet_error* error);

/** The same for a file. Errors beside: FACENET_NOT_FOUND, FACENET_IO_ERROR, all with the file's name as the place. */
FACENET_API facenet_code facenet_image_read(const char* path, facenet_image** image, facenet_error* error);

/** Where the pixels of an image are. They are valid until the image is freed. */
FACENET_API facenet_code facenet_image_pixels(facenet_image* image, facenet_picture* picture, facenet_error* error);

/** Overwrites an image's pixels with zeros and frees it; the pointers of facenet_image_pixels are invalid then. */
FACENET_API facenet_code facenet_image_free(facenet_image* image);

/* ---- Faces ------------------------------------------------------------------------------------------------------- */

/** A face in a picture, in pixels of it, from the left and from the top. */
typedef struct facenet_face {
  float box[4];          /* x1, y1, x2, y2; may reach past the picture */
  float score;           /* 0 … 1 */
  float landmarks[5][2]; /* x, y of, as seen: left eye, right eye, nose, left and right corner of the mouth */
} facenet_face;

enum {
  FACENET_LARGEST = 1,                /* by area of the box */
  FACENET_PROBABILITY = 2,            /* by score */
  FACENET_LARGEST_OVER_THRESHOLD = 3, /* by area, only those with a score above 0.9 */
  FACENET_CENTRE_WEIGHTED = 4         /* by area, less what lies away from the middle */
};

typedef struct facenet_detector facenet_detector;

/** How to look for faces; what is 0 is the default. */
typedef struct facenet_detector_options {
  uint32_t struct_size;   /* sizeof(facenet_detector_options) */
  int32_t threads;        /* 1 to 256; default: the CPUs that this process may use */
  int32_t min_face;       /* pixels, the smallest face to look for; default 20 */
  int32_t max_faces;      /* at most so many, the first by `selection`; default: all */
  int32_t selection;      /* in which order: FACENET_LARGEST (default: boxes by area), … */
  float thresholds[3];    /* scores for the three stages' candidates, above 0 to 1; default 0.6, 0.7, 0.7 */
  double factor;          /* from a level of the pyramid to the next, above 0 and below 1; default 0.709 */
  facenet_cancel* cancel; /* ends a detection; default: nothing does */
} facenet_detector_options;
#define FACENET_DETECTOR_OPTIONS_INIT \
  { (uint32_t)sizeof(facenet_detector_options), 0, 0, 0, 0, {0, 0, 0}, 0, NULL }

/** Loads a detector's weights (MTCNN, facenet-convert-weights --mtcnn). `options` may be null. Free it with
 * facenet_detector_free. Errors: FACENET_NOT_FOUND, FACENET_IO_ERROR, FACENET_TRUNCATED, FACENET_CORRUPT,
 * FACENET_UNSUPPORTED, FACENET_LIMIT_EXCEEDED, FACENET_WEIGHTS_MISMATCH, with file, tensor and byte. */
FACENET_API facenet_code facenet_detector_load(const char* path, const facenet_detector_options* options,
                                               facenet_detector** detector, facenet_error* error);

/** The same from the bytes of a weight file, which may be freed afterwards. */
FACENET_API facenet_code facenet_detector_load_memory(const void* bytes, size_t size,
                                                      const facenet_detector_options* options,
                                                      facenet_detector** detector, facenet_error* error);

/** Another detector over the same weights with options of its own, for another thread. The two are freed apart, in any
 * order. */
FACENET_API facenet_code facenet_detector_fork(facenet_detector* detector, const facenet_detector_options* options,
                                               facenet_detector** fork, facenet_error* error);

/** 16 hex digits that stand for the detector's weights, and a zero, in out[size], so 17 bytes. */
FACENET_API facenet_code facenet_detector_digest(facenet_detector* detector, char* out, size_t size,
                                                 facenet_error* error);

/** Finds the faces of a picture: faces[capacity], *found of them; none is no error. Where there are more than capacity,
 * it returns FACENET_INVALID_ARGUMENT with *found their number, and facenet_detector_faces gives them. `faces` may be
 * null where capacity is 0. Errors: FACENET_LIMIT_EXCEEDED, FACENET_CANCELLED. */
FACENET_API facenet_code facenet_detect(facenet_detector* detector, const facenet_picture* picture, facenet_face* faces,
                                        size_t capacity, size_t* found, facenet_error* error);

/** The faces of the last picture of facenet_detect again, without looking for them; none where that one failed. No
 * other errors than every function's. */
FACENET_API facenet_code facenet_detector_faces(facenet_detector* detector, facenet_face* faces, size_t capacity,
                                                size_t* found, facenet_error* error);

/** Frees a detector. FACENET_INVALID_ARGUMENT where it is none, or no more. */
FACENET_API facenet_code facenet_detector_free(facenet_detector* detector);

/* ---- Embeddings -------------------------------------------------------------------------------------------------- */

/** Floats of the longest embedding that a weight file may declare. */
#define FACENET_MAX_EMBEDDING 16384

enum { FACENET_ARITHMETIC_FLOAT = 1, FACENET_ARITHMETIC_INT8 = 2 };
enum {
  FACENET_WEIGHTS_FLOAT = 1,
  FACENET_WEIGHTS_HALF = 2, /* half the memory; embeddings differ by some 1e-3 */
  FACENET_WEIGHTS_INT8 = 3  /* a quarter: only files of --dtype i8 */
};

typedef struct facenet_embedder facenet_embedder;

/** How to compute embeddings; what is 0 is the default. */
typedef struct facenet_embedder_options {
  uint32_t struct_size;      /* sizeof(facenet_embedder_options) */
  int32_t threads;           /* 1 to 256; default: the CPUs that this process may use */
  int32_t batch;             /* pictures that are computed together, 1 to 1024; default 1. Memory grows with it */
  int32_t arithmetic;        /* default FACENET_ARITHMETIC_FLOAT; INT8: only files that were calibrated for it */
  int32_t weights;           /* how weights are kept; default FACENET_WEIGHTS_FLOAT */
  int32_t reserved;          /* 0 */
  facenet_cancel* cancel;    /* ends an embedding; default: nothing does */
  facenet_progress progress; /* is told of pictures that are done; default: nobody is */
  void* progress_user;       /* its first argument */
} facenet_embedder_options;
#define FACENET_EMBEDDER_OPTIONS_INIT \
  { (uint32_t)sizeof(facenet_embedder_options), 0, 0, 0, 0, 0, NULL, NULL, NULL }

/** What a weight file says of its model. */
typedef struct facenet_model_info {
  uint32_t struct_size;       /* sizeof(facenet_model_info) */
  int32_t embedding_dim;      /* floats of one embedding */
  int32_t image_size;         /* pixels of a side of the square crops that it takes */
  int32_t trained;            /* 0: distances between its embeddings mean nothing */
  int32_t assumed;            /* 1: a plain state_dict, whose preprocessing is assumed to be the model's usual one */
  int32_t bgr;                /* 1: facenet_embed_nhwc takes blue first */
  char architecture[48];      /* "inception_resnet_v1", … */
  char digest[24];            /* 16 hex digits that stand for the model: equal digests, comparable embeddings */
  char normalise[8];          /* "l2": embeddings have length 1; "none" */
  char scaling[16];           /* how pixels become numbers: "fixed", "prewhiten", "unit", "mean_255" */
  char crop[16];              /* "box" or "five_point" */
  double margin;              /* of the crop: pixels of the output for box, faces for five_point */
  double threshold;           /* the Euclidean distance up to which two faces are one person's */
  char threshold_source[128]; /* what measured it; "": it is the model's usual one */
  char dataset[64];           /* what it was trained on */
  char source[128];           /* where the checkpoint comes from */
  char licence[128];
} facenet_model_info;
#define FACENET_MODEL_INFO_INIT \
  { \
    (uint32_t)sizeof(facenet_model_info), 0, 0, 0, 0, 0, {0}, {0}, {0}, {0}, {0}, 0, 0, {0}, {0}, {0}, { 0 } \
  }

/** Loads an embedder's weights. `options` may be null. Free it with facenet_embedder_free. Errors: as
 * facenet_detector_load; FACENET_UNSUPPORTED also where the options do not fit the file. */
FACENET_API facenet_code facenet_embedder_load(const char* path, const facenet_embedder_options* options,
                                               facenet_embedder** embedder, facenet_error* error);

/** The same from the bytes of a weight file, which may be freed afterwards: with FACENET_WEIGHTS_INT8 the library keeps
 * a copy. */
FACENET_API facenet_code facenet_embedder_load_memory(const void* bytes, size_t size,
                                                      const facenet_embedder_options* options,
                                                      facenet_embedder** embedder, facenet_error* error);

/** Another embedder over the same weights with threads, batch, cancel and progress of its own, for another thread;
 * arithmetic and weights must be 0 or what they were. The two are freed apart, in any order. */
FACENET_API facenet_code facenet_embedder_fork(facenet_embedder* embedder, const facenet_embedder_options* options,
                                               facenet_embedder** fork, facenet_error* error);

/** What the weight file says. `info` is the caller's, with its struct_size set. */
FACENET_API facenet_code facenet_embedder_info(facenet_embedder* embedder, facenet_model_info* info,
                                               facenet_error* error);

/** Embeds count face crops into out[count][embedding_dim], of which out_size floats are there. A crop of another size
 * than the model's is resized whole (bilinear, as Pillow). The same bits for any number of threads, any batch and any
 * place in it. Errors: FACENET_LIMIT_EXCEEDED, FACENET_CANCELLED, and FACENET_CORRUPT for an embedding that means
 * nothing; the place says which picture, and none of `out` means anything then. */
FACENET_API facenet_code facenet_embed(facenet_embedder* embedder, const facenet_picture* faces, size_t count,
                                       float* out, size_t out_size, facenet_error* error);

/** Embeds what was standardised already: pixels[count][image_size][image_size][3], pixels_size floats in all, in the
 * model's order of channels. out as facenet_embed. Errors beside: FACENET_UNSUPPORTED with FACENET_ARITHMETIC_INT8. */
FACENET_API facenet_code facenet_embed_nhwc(facenet_embedder* embedder, const float* pixels, size_t pixels_size,
                                            float* out, size_t out_size, facenet_error* error);

/** Frees an embedder. FACENET_INVALID_ARGUMENT where it is none, or no more. */
FACENET_API facenet_code facenet_embedder_free(facenet_embedder* embedder);

/* ---- Crops ------------------------------------------------------------------------------------------------------- */

/** Cuts a face out of a picture as the embedder's weights were trained: image_size x image_size pixels, the box with
 * the model's margin or the five points in their places. Free the crop with facenet_image_free. Error:
 * FACENET_LIMIT_EXCEEDED (the picture's size). */
FACENET_API facenet_code facenet_crop_face(facenet_embedder* embedder, const facenet_picture* picture,
                                           const facenet_face* face, facenet_image** crop, facenet_error* error);

/** Cuts out a box (x1, y1, x2, y2) with `margin` pixels of the output around it, resized to size x size: as
 * facenet-pytorch's extract_face, to the bit. margin is 0 … size - 1. Error: FACENET_LIMIT_EXCEEDED. */
FACENET_API facenet_code facenet_crop_box(const facenet_picture* picture, const float box[4], int32_t size,
                                          int32_t margin, facenet_image** crop, facenet_error* error);

/** Turns and scales the picture so that five landmarks (x, y each, in the order of facenet_face) come nearest to
 * InsightFace's places in size x size pixels. Error: FACENET_LIMIT_EXCEEDED. */
FACENET_API facenet_code facenet_align(const facenet_picture* picture, const float landmarks[10], int32_t size,
                                       facenet_image** crop, facenet_error* error);

/* ---- Distances --------------------------------------------------------------------------------------------------- */

enum {
  FACENET_EUCLIDEAN = 1, /* 0 … 2 between embeddings of length 1 */
  FACENET_COSINE = 2     /* 1 - cosine of the angle, 0 … 2 */
};

/** The distance between a[dim] and b[dim], computed in double; exactly 0 for equal ones. metric: FACENET_EUCLIDEAN or
 * FACENET_COSINE. Refuses embeddings that are zero or not finite. */
FACENET_API facenet_code facenet_distance(int32_t metric, const float* a, const float* b, size_t dim, double* distance,
                                          facenet_error* error);

/** The cosine of the angle between a[dim] and b[dim], -1 … 1. Refuses embeddings that are zero or not finite. */
FACENET_API facenet_code facenet_similarity(const float* a, const float* b, size_t dim, double* similarity,
                                            facenet_error* error);

/* ---- Galleries --------------------------------------------------------------------------------------------------- */

/** Persons, and the templates (embeddings of their faces) that identify them: in memory, or in an SQLite file that the
 * command `facenet` reads and writes too. Every change of a file is on the disk when its function returns. A file that
 * was moved or removed while it was open is left: the next call opens the one that has its name then. */
typedef struct facenet_gallery facenet_gallery;

enum {
  FACENET_GALLERY_READ = 1,   /* the file must be there, and stays as it is */
  FACENET_GALLERY_CHANGE = 2, /* the file must be there */
  FACENET_GALLERY_CREATE = 3  /* the file is made with the first template */
};

/** How a gallery searches; what is 0 is the default. */
typedef struct facenet_gallery_options {
  uint32_t struct_size; /* sizeof(facenet_gallery_options) */
  int32_t threads;      /* of a search, 1 to 256; default: the CPUs that this process may use */
  int32_t metric;       /* default FACENET_EUCLIDEAN */
  int32_t reserved;     /* 0 */
} facenet_gallery_options;
#define FACENET_GALLERY_OPTIONS_INIT \
  { (uint32_t)sizeof(facenet_gallery_options), 0, 0, 0 }

/** A face that stands for a person. For facenet_gallery_add `id` means nothing, and what is 0 or null is the default.
 */
typedef struct facenet_template {
  uint32_t struct_size; /* sizeof(facenet_template) */
  int32_t face;         /* which face of its picture, from 0 */
  uint64_t id;          /* given by the gallery, never twice in one file */
  const char* name;     /* the person's: 1 to 255 bytes without control characters */
  const char* image;    /* the picture's name, for people; default "-" */
  const char* sha256;   /* of the picture's file, 64 lower-case hex digits; default: of the embedding's bytes */
  const char* enrolled; /* UTC, such as 2026-11-28T07:18:32Z; default: now */
  double box[4];        /* x1, y1, x2, y2 in the picture */
  double score;         /* the detector's */
  const float* embedding;
  size_t embedding_size; /* floats: the model's embedding_dim */
} facenet_template;
#define FACENET_TEMPLATE_INIT \
  { (uint32_t)sizeof(facenet_template), 0, 0, NULL, NULL, NULL, NULL, {0, 0, 0, 0}, 0, NULL, 0 }

enum {
  FACENET_ADDED = 1,
  FACENET_ALREADY_THERE = 2, /* this person has a template of the same picture */
  FACENET_ANOTHER_PERSON = 3 /* this very face of the picture is enrolled under another name */
};

/** What a gallery says of itself. The model's members are "" and 0 until the first template is added. They stay when
 * all are removed: no other model's are taken then. */
typedef struct facenet_gallery_info {
  uint32_t struct_size; /* sizeof(facenet_gallery_info) */
  int32_t embedding_dim;
  uint64_t persons, templates;
  int32_t trained;
  int32_t image_size;
  char digest[24];       /* of the embedder's weights */
  char detector[24];     /* of the detector's weights; "": pictures were face crops */
  char architecture[48]; /* of the embedder */
} facenet_gallery_info;
#define FACENET_GALLERY_INFO_INIT \
  { \
    (uint32_t)sizeof(facenet_gallery_info), 0, 0, 0, 0, 0, {0}, {0}, { 0 } \
  }

/** One answer of a search. */
typedef struct facenet_match {
  uint64_t id, person; /* the template's and its person's */
  double distance;     /* of the gallery's metric */
  double similarity;   /* cosine */
  char name[256];      /* the person's */
} facenet_match;

/** Opens a gallery file. mode: FACENET_GALLERY_READ, … `options` may be null. Free it with facenet_gallery_free.
 * Errors: FACENET_NOT_FOUND, FACENET_IO_ERROR (also for a file that is no gallery, is damaged, or was made by a newer
 * version; the sentence says which). */
FACENET_API facenet_code facenet_gallery_open(const char* path, int32_t mode, const facenet_gallery_options* options,
                                              facenet_gallery** gallery, facenet_error* error);

/** Makes an empty gallery in memory. `options` may be null. */
FACENET_API facenet_code facenet_gallery_make(const facenet_gallery_options* options, facenet_gallery** gallery,
                                              facenet_error* error);

/** Adds a template, and the person where the name is new. The first template decides the gallery's model: `embedder` is
 * what made the embedding, `detector` what found the face (null: the picture was a crop). *added (may be null) is
 * FACENET_ADDED, …; *id (may be null) the template's, 0 for FACENET_ANOTHER_PERSON. Errors: FACENET_WEIGHTS_MISMATCH
 * (an embedder of another model), FACENET_IO_ERROR. After an error nothing was added. */
FACENET_API facenet_code facenet_gallery_add(facenet_gallery* gallery, facenet_embedder* embedder,
                                             facenet_detector* detector, const facenet_template* face, uint64_t* id,
                                             int32_t* added, facenet_error* error);

/** Removes a person with all templates; *templates (may be null) is how many, 0 where nothing was removed. What was
 * removed leaves the file with it (zeros in its place). Errors: FACENET_NOT_FOUND, FACENET_IO_ERROR. Where the person
 * was removed, but another process kept the file from being overwritten, it is FACENET_IO_ERROR with *templates above
 * 0 and a sentence that begins with "the change was made". */
FACENET_API facenet_code facenet_gallery_remove_person(facenet_gallery* gallery, const char* name, uint64_t* templates,
                                                       facenet_error* error);

/** Removes one template; a person without any goes too. Errors: FACENET_NOT_FOUND, FACENET_IO_ERROR ("the change was
 * made", as facenet_gallery_remove_person; a second call is FACENET_NOT_FOUND then). */
FACENET_API facenet_code facenet_gallery_remove_template(facenet_gallery* gallery, uint64_t id, facenet_error* error);

/** Gives a person another name. Errors: FACENET_NOT_FOUND, FACENET_INVALID_ARGUMENT (the name is somebody's, or none),
 * FACENET_IO_ERROR ("the change was made", as facenet_gallery_remove_template). */
FACENET_API facenet_code facenet_gallery_rename(facenet_gallery* gallery, const char* from, const char* to,
                                                facenet_error* error);

/** What the gallery is made of. `info` is the caller's, with its struct_size set. Error: FACENET_IO_ERROR. */
FACENET_API facenet_code facenet_gallery_get_info(facenet_gallery* gallery, facenet_gallery_info* info,
                                                  facenet_error* error);

/** Is called for a person. `name` holds during the call. Returns 1 to go on, 0 to end, which is no error. See
 * "Callbacks" above: the gallery's handle is taken meanwhile. Its file is not locked. */
typedef int32_t (*facenet_person_visit)(void* user, uint64_t id, const char* name, uint64_t templates);

/** Calls visit for each person, in the order in which they were added. Error: FACENET_IO_ERROR. */
FACENET_API facenet_code facenet_gallery_persons(facenet_gallery* gallery, facenet_person_visit visit, void* user,
                                                 facenet_error* error);

/** Is called for a template, which holds during the call. Returns 1 to go on, 0 to end, after which nothing more is
 * read. As facenet_person_visit, but the gallery's file is locked for reading meanwhile: who changes it, with another
 * handle or in another process, waits, and gives up after 10 s. A callback that changes it by another handle waits for
 * itself, and gets FACENET_IO_ERROR. */
typedef int32_t (*facenet_template_visit)(void* user, const facenet_template* face);

/** Calls visit for each template, by person and by age, with its embedding; name: of that person alone, or null.
 * Errors: FACENET_NOT_FOUND, FACENET_IO_ERROR. */
FACENET_API facenet_code facenet_gallery_templates(facenet_gallery* gallery, const char* name,
                                                   facenet_template_visit visit, void* user, facenet_error* error);

/** The k nearest templates of each query: queries[n][embedding_dim], queries_size floats in all; matches[n][k], of
 * which matches_size are there; found[n] says how many of the k there are. Exact: ordered by the distance in double,
 * then by id. A file is read, as it is at one moment, when it has changed since the last search. Errors:
 * FACENET_IO_ERROR, FACENET_LIMIT_EXCEEDED (2^30 templates), FACENET_WEIGHTS_MISMATCH (embedder, which may be null, is
 * of another model than the gallery). */
FACENET_API facenet_code facenet_gallery_search(facenet_gallery* gallery, facenet_embedder* embedder,
                                                const float* queries, size_t queries_size, size_t k,
                                                facenet_match* matches, size_t matches_size, size_t* found,
                                                size_t found_size, facenet_error* error);

/** The k nearest persons of each query, each by the nearest of their templates, those farther than `threshold` left
 * out: found[i] is 0 for an unknown face. The rest as facenet_gallery_search. */
FACENET_API facenet_code facenet_gallery_identify(facenet_gallery* gallery, facenet_embedder* embedder,
                                                  const float* queries, size_t queries_size, size_t k, double threshold,
                                                  facenet_match* matches, size_t matches_size, size_t* found,
                                                  size_t found_size, facenet_error* error);

/** Closes a gallery; one in memory is gone. FACENET_INVALID_ARGUMENT where it is none, or no more. */
FACENET_API facenet_code facenet_gallery_free(facenet_gallery* gallery);

/* ---- Clustering -------------------------------------------------------------------------------------------------- */

enum { FACENET_CHINESE_WHISPERS = 1, FACENET_DBSCAN = 2, FACENET_AVERAGE_LINK = 3 };

/** How faces are grouped; what is 0 is the default. */
typedef struct facenet_cluster_options {
  uint32_t struct_size; /* sizeof(facenet_cluster_options) */
  int32_t algorithm;    /* default FACENET_CHINESE_WHISPERS */
  int32_t metric;       /* default FACENET_EUCLIDEAN */
  int32_t threads;      /* 1 to 256; default: the CPUs that this process may use */
  int32_t iterations;   /* of Chinese whispers; default 100, as dlib */
  int32_t min_samples;  /* of DBSCAN; default 2 */
  double threshold;     /* the distance up to which two faces are neighbours; default 1.1. Take the model's */
  uint64_t seed;        /* of Chinese whispers; default 1 */
  facenet_cancel* cancel;
} facenet_cluster_options;
#define FACENET_CLUSTER_OPTIONS_INIT \
  { (uint32_t)sizeof(facenet_cluster_options), 0, 0, 0, 0, 0, 0, 0, NULL }

/** Groups embeddings[n][dim], embeddings_size floats in all, by person: labels[n] count from 0 in order of appearance,
 * -1 is DBSCAN's noise; labels_size of them are there. *clusters (may be null) is how many there are. `options` may be
 * null. The same labels for any number of threads. Errors: FACENET_LIMIT_EXCEEDED (131,072 faces, average link 32,768),
 * FACENET_CANCELLED; the labels mean nothing then. */
FACENET_API facenet_code facenet_cluster(const float* embeddings, size_t embeddings_size, size_t dim,
                                         const facenet_cluster_options* options, int32_t* labels, size_t labels_size,
                                         size_t* clusters, facenet_error* error);

/* ---- Evaluation -------------------------------------------------------------------------------------------------- */

/** What to measure; what is 0 is the default. */
typedef struct facenet_evaluate_options {
  uint32_t struct_size; /* sizeof(facenet_evaluate_options) */
  int32_t folds;        /* of the accuracy, 2 to 1000 runs of equal length; default 10. More than pairs: an error */
  int32_t replicates;   /* of the bootstrap, 1 to 1,000,000; default: no intervals */
  int32_t reserved;     /* 0 */
  double far;           /* the false accept rate that tar is for; default 0.001 */
  uint64_t seed;        /* of the bootstrap */
} facenet_evaluate_options;
#define FACENET_EVALUATE_OPTIONS_INIT \
  { (uint32_t)sizeof(facenet_evaluate_options), 0, 0, 0, 0, 0 }

/** How well distances tell persons apart. Intervals are of 95%; 0 to 0 where no replicates were wanted. */
typedef struct facenet_evaluation {
  uint32_t struct_size; /* sizeof(facenet_evaluation) */
  int32_t measurable;   /* 0: one false accept is more than that far already, so tar says little */
  uint64_t genuine, impostors;
  double accuracy, accuracy_deviation; /* of the folds, each with the grid's threshold that is best for the others */
  double auc, auc_interval[2];         /* area under the ROC */
  double eer, eer_threshold, eer_interval[2];
  double far, tar, tar_threshold, tar_interval[2]; /* tar: the share of genuine pairs accepted at that far */
} facenet_evaluation;
#define FACENET_EVALUATION_INIT \
  { \
    (uint32_t)sizeof(facenet_evaluation), 0, 0, 0, 0, 0, 0, {0, 0}, 0, 0, {0, 0}, 0, 0, 0, { 0, 0 } \
  }

/** Measures from distances[count] and same[count] (1: a pair of one person's, 0: of two persons'), folds in the order
 * of the pairs: LFW's protocol where the pairs are LFW's. Distances are finite and 0 or more; the sentence of the error
 * says which is not. Accuracy tries the grid of davidsandberg/facenet, squared distances below 0, 0.01, … 3.99: that is
 * for Euclidean distances of embeddings of length 1. Every other number takes any distances. `options` may be null.
 * Error: FACENET_LIMIT_EXCEEDED (2^32 pairs). */
FACENET_API facenet_code facenet_evaluate(const double* distances, const uint8_t* same, size_t count,
                                          const facenet_evaluate_options* options, facenet_evaluation* evaluation,
                                          facenet_error* error);

/** The largest threshold at which at most far (above 0, below 1) of the impostor pairs impostors[count] are accepted.
 * Distances as for facenet_evaluate. Error: FACENET_LIMIT_EXCEEDED (fewer than 3 / far pairs, which claim no such
 * rate).
 */
FACENET_API facenet_code facenet_choose_threshold(const double* impostors, size_t count, double far, double* threshold,
                                                  facenet_error* error);

#ifdef __cplusplus
}
#endif

#endif
