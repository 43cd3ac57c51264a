// What main.c asks of each consumer: a program's only part that includes the library, compiled under its constraint.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif
/// Loads the weights, from `path` where the consumer reads files. nullptr, or what went wrong.
const char* consumer_open(const char* path);
/// Embeds 160x160 RGB pixels. nullptr, or what went wrong.
const char* consumer_embed(const unsigned char* rgb, float* out);
int consumer_dim(void);
/// Counts the faces of a picture with a detector's weight file in memory, and asks a gallery. nullptr, or what went
/// wrong.
const char* consumer_faces(const unsigned char* weights, unsigned long long size, const unsigned char* rgb, int width,
                           int height, const float* embedding, int* count);
/// Gives everything back; then what the consumer itself has to say for the table, or to complain about with "error: ".
const char* consumer_close(void);
#ifdef __cplusplus
}
#endif
