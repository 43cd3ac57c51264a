// Every header of ours as the user's own code, with the strictest warnings as errors; xsimd and stb are the system's.
// tools/constrained_builds.py makes all_headers.hpp of what is in include/facenet.
#include "all_headers.hpp"
