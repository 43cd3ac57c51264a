#define FACENET_TILES template
#include "tiles.hpp"
