// The network as data: names, shapes, counts, and what the builder refuses.
#include <doctest/doctest.h>

#include <cstring>
#include <initializer_list>

#include "facenet/models/dlib_resnet.hpp"
#include "facenet/models/inception_resnet_v1.hpp"
#include "facenet/models/inception_resnet_v2.hpp"
#include "facenet/models/mtcnn.hpp"

using namespace facenet;

namespace {
constexpr Network net = models::inception_resnet_v1();
int find(const Network& n, const char* name) {
  for (int i = 0; i < n.size(); ++i)
    if (n[i].name == name) return i;
  return -1;
}
}  // namespace

static_assert(net.ok());
static_assert(Name("repeat_1") / 4 / "branch1" / 0 == "repeat_1.4.branch1.0");
static_assert(Name("x") / 120 == "x.120");

namespace {
struct Row {
  const char* name;
  Shape out;
};
void check_shapes(const Network& n, std::initializer_list<Row> rows) {
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const int i = find(n, row.name);
    REQUIRE(i > 0);
    CHECK(n[i].out == row.out);
  }
}
}  // namespace

TEST_CASE("Inception-ResNet-v1 is the published one") {
  CHECK(parameters(net) == 23482624);
  CHECK(macs(net) == 1417662304);
  CHECK(count(net, OpKind::conv) == 132);
  CHECK(parameters(models::inception_resnet_v1(128)) == 23482624 - 384 * (1792 + 2));
  check_shapes(net, {{"conv2d_1a", {79, 79, 32}},
                     {"conv2d_2b", {77, 77, 64}},
                     {"maxpool_3a", {38, 38, 64}},
                     {"conv2d_4a", {36, 36, 192}},
                     {"conv2d_4b", {17, 17, 256}},
                     {"repeat_1.4.conv2d", {17, 17, 256}},
                     {"mixed_6a.cat", {8, 8, 896}},
                     {"repeat_2.9.cat", {8, 8, 256}},
                     {"mixed_7a.cat", {3, 3, 1792}},
                     {"block8.branch1.2", {3, 3, 192}},
                     {"last_linear", {1, 1, 512}}});
  CHECK(net[find(net, "block8.conv2d")].act == Act::none);
  CHECK(net[find(net, "block8.conv2d")].scale == 1.0f);
  CHECK(net[find(net, "repeat_3.0.conv2d")].scale == 0.2f);
}

TEST_CASE("Inception-ResNet-v2 is the published one") {
  constexpr Network v2 = models::inception_resnet_v2(128);
  CHECK(count(v2, OpKind::avg_pool) == 1);
  check_shapes(v2, {{"maxpool_5a", {17, 17, 192}},
                    {"mixed_5b.branch3.0", {17, 17, 192}},
                    {"mixed_5b.cat", {17, 17, 320}},
                    {"repeat.9.cat", {17, 17, 128}},
                    {"mixed_6a.cat", {8, 8, 1088}},
                    {"repeat_1.19.branch1.1", {8, 8, 160}},
                    {"mixed_7a.cat", {3, 3, 2080}},
                    {"repeat_2.8.conv2d", {3, 3, 2080}},
                    {"conv2d_7b", {3, 3, 1536}},
                    {"last_linear", {1, 1, 128}}});
  CHECK(v2[find(v2, "block8.conv2d")].act == Act::none);
  CHECK(v2[find(v2, "repeat_2.8.conv2d")].scale == 0.2f);
}

TEST_CASE("dlib's face ResNet is the published one") {
  constexpr Network dlib = models::dlib_resnet();
  check_shapes(dlib, {{"conv32_down", {72, 72, 32}},
                      {"conv32_3.conv2", {35, 35, 32}},
                      {"conv64_down.pool", {17, 17, 64}},
                      {"conv128_down.conv2", {8, 8, 128}},
                      {"conv256_down.conv1", {3, 3, 256}},
                      {"conv256_down.conv2", {4, 4, 256}},
                      {"conv256_down_out.conv2", {2, 2, 256}},
                      {"fc", {1, 1, 128}}});
  CHECK(computed(dlib, dlib[find(dlib, "conv256_down.conv2")]) == Shape{3, 3, 256});
  CHECK(dlib[dlib.size() - 1].name == "fc");
}

TEST_CASE("MTCNN's ceil-mode pools give facenet-pytorch's sizes") {
  constexpr Network r = models::mtcnn_rnet(), o = models::mtcnn_onet();
  CHECK(r[find(r, "mtcnn.rnet.conv3")].out == Shape{3, 3, 64});
  CHECK(o[find(o, "mtcnn.onet.conv4")].out == Shape{3, 3, 128});
  CHECK(o[o.size() - 1].out == Shape{1, 1, 16});
  const Network p = models::mtcnn_pnet(12, 15);
  CHECK(p[p.size() - 1].out == Shape{1, 3, 6});  // ceil((15 - 2) / 2) - 4
}

TEST_CASE("mistakes make ok() false") {
  Network n("x", {4, 4, 8});
  n.residual("r", n.input(), n.conv("a", n.input(), 8, k(3)), 1, relu);  // 4x4 onto 2x2
  CHECK_FALSE(n.ok());
  Network small("x", {2, 2, 8});
  small.conv("a", small.input(), 8, k(3));  // nothing left
  CHECK_FALSE(small.ok());
  Network cat("x", {4, 4, 8});
  cat.concat("c", cat.input(), cat.max_pool("p", cat.input(), k(2)));
  CHECK_FALSE(cat.ok());
  Network more("x", {4, 4, 8});  // a convolution that is larger than the trunk it shall be added to
  more.residual_affine("r", more.input(), more.avg_pool("p", more.input(), k(2)), k(1));
  CHECK_FALSE(more.ok());
  Network less("x", {4, 4, 8});  // a pool that would lose channels
  less.avg_pool("p", less.input(), k(2), 7);
  CHECK_FALSE(less.ok());
}
