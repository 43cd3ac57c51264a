// Everything but image decoding (facenet/image_io.hpp). Layer 7.
#pragma once

#include "facenet/cluster.hpp"
#include "facenet/embedder.hpp"
#include "facenet/evaluate.hpp"
#include "facenet/gallery.hpp"
