// Everything but image decoding (facenet/image_io.hpp). Layer 7.
#pragma once

#include "facenet/align.hpp"
#include "facenet/cluster.hpp"
#include "facenet/detector.hpp"
#include "facenet/embedder.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"
#include "facenet/selftest.hpp"
#include "facenet/triplet.hpp"
