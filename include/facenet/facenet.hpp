// Everything but image decoding (facenet/image_io.hpp), training (facenet/triplet.hpp) and facenet/dispatch.hpp.
#pragma once
#include "facenet/base/macros_push.inc"

#include "facenet/align.hpp"
#include "facenet/cluster.hpp"
#include "facenet/detector.hpp"
#include "facenet/embedder.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"
#include "facenet/selftest.hpp"

#include "facenet/base/macros_pop.inc"
