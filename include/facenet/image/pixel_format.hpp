// Words for how pixels become numbers, shared by pictures and weight files.
#pragma once

#include "facenet/base/preprocessing.hpp"

FACENET_DATA_BEGIN

/// The longest side of a picture that any function takes or makes.
constexpr int max_image_side = 16384;

FACENET_DATA_END
