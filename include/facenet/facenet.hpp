// Everything but image decoding (facenet/image_io.hpp). Layer 7.
#pragma once

#include "facenet/distance.hpp"
#include "facenet/embedder.hpp"
