/* Says who is in a photograph: identify EMBEDDER DETECTOR GALLERY PHOTOGRAPH [NAME]
 *
 * Prints a line for each face: its box, and the nearest person of the gallery within the model's threshold. With NAME
 * the first face is added to the gallery, an SQLite file that `facenet gallery list` reads too.
 *
 *   cc identify.c $(pkg-config --cflags --libs facenet-c) -o identify
 */
#include <facenet/facenet.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program with what went wrong. */
static void check(facenet_code code, const facenet_error* error) {
  char text[FACENET_MESSAGE_SIZE];
  if (code == FACENET_OK) return;
  facenet_error_message(error, text, sizeof text);
  fprintf(stderr, "identify: %s.\n", text);
  exit(2);
}

int main(int argc, char** argv) {
  facenet_error error = FACENET_ERROR_INIT;
  facenet_model_info model = FACENET_MODEL_INFO_INIT;
  facenet_embedder* embedder = NULL;
  facenet_detector* detector = NULL;
  facenet_gallery* gallery = NULL;
  facenet_image* photograph = NULL;
  facenet_picture pixels;
  facenet_face faces[100];
  float* embedding;
  size_t found = 0, dim, i;

  if (argc != 5 && argc != 6) {
    fprintf(stderr, "usage: identify EMBEDDER DETECTOR GALLERY PHOTOGRAPH [NAME]\n");
    return 2;
  }
  check(facenet_embedder_load(argv[1], NULL, &embedder, &error), &error);
  check(facenet_detector_load(argv[2], NULL, &detector, &error), &error);
  check(facenet_gallery_open(argv[3], FACENET_GALLERY_CREATE, NULL, &gallery, &error), &error);
  check(facenet_image_read(argv[4], &photograph, &error), &error);
  check(facenet_image_pixels(photograph, &pixels, &error), &error);
  check(facenet_embedder_info(embedder, &model, &error), &error);
  check(facenet_detect(detector, &pixels, faces, 100, &found, &error), &error);
  dim = (size_t)model.embedding_dim;
  embedding = malloc(dim * sizeof *embedding);
  if (embedding == NULL) return 2;

  for (i = 0; i < found; ++i) {
    facenet_image* crop = NULL;
    facenet_picture crop_pixels;
    facenet_match match;
    size_t matches = 0;
    check(facenet_crop_face(embedder, &pixels, &faces[i], &crop, &error), &error);
    check(facenet_image_pixels(crop, &crop_pixels, &error), &error);
    check(facenet_embed(embedder, &crop_pixels, 1, embedding, dim, &error), &error);
    facenet_image_free(crop);
    if (argc == 6 && i == 0) {
      facenet_template face = FACENET_TEMPLATE_INIT;
      int32_t added = 0;
      face.name = argv[5];
      face.image = argv[4];
      face.embedding = embedding;
      face.embedding_size = dim;
      face.box[0] = faces[i].box[0];
      face.box[1] = faces[i].box[1];
      face.box[2] = faces[i].box[2];
      face.box[3] = faces[i].box[3];
      face.score = faces[i].score;
      check(facenet_gallery_add(gallery, embedder, detector, &face, NULL, &added, &error), &error);
      printf("%s\n", added == FACENET_ADDED           ? "added"
                     : added == FACENET_ALREADY_THERE ? "is there already"
                                                      : "is enrolled under another name");
    }
    check(
        facenet_gallery_identify(gallery, embedder, embedding, dim, 1, model.threshold, &match, 1, &matches, 1, &error),
        &error);
    printf("%.0f %.0f %.0f %.0f ", faces[i].box[0], faces[i].box[1], faces[i].box[2], faces[i].box[3]);
    if (matches == 0)
      printf("unknown\n");
    else
      printf("%s %.4f\n", match.name, match.distance);
  }

  facenet_wipe(embedding, dim * sizeof *embedding);
  free(embedding);
  facenet_image_free(photograph);
  facenet_gallery_free(gallery);
  facenet_detector_free(detector);
  facenet_embedder_free(embedder);
  return found == 0;
}
