// The object users hold, over a whole weight file: what it says of the model, and memory that runs out anywhere.
#include <atomic>
#include <cfenv>
#include <cmath>
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "weights_builder.hpp"

#include "facenet/embedder.hpp"
#include "facenet/plan/from_values.hpp"

using namespace facenet;

namespace {

/// A file of dlib's network, 5.6 MB; each layer's weights are scaled to an average of its inputs.
builder::File dlib() {
  builder::File file = builder::converted(models::dlib_resnet(), "I8");
  for (std::size_t i = 1; i < file.tensors.size(); ++i) {
    builder::Tensor& scale = file.tensors[i - 1];  // it comes right before its weight
    if (scale.name.find(".weight_scale") == std::string::npos) continue;
    const auto outputs = scale.shape[0], inputs = static_cast<std::int64_t>(file.tensors[i].bytes.size()) / outputs;
    const std::vector<float> values(static_cast<std::size_t>(outputs), 1.0f / static_cast<float>(63 * inputs));
    scale = builder::f32(scale.name, {outputs}, values);
  }
  for (auto [key, value] : builder::Pairs{{"architecture", "dlib_resnet"},
                                          {"embedding_dim", "128"},
                                          {"normalise", "none"},
                                          {"image_size", "150"},
                                          {"scaling", "mean_255"}})
    file.meta(key) = value;
  return file;
}
std::string dlib_file() { return dlib().bytes(); }
/// With scales for integer arithmetic.
std::string integer_file() {
  builder::File file = dlib();
  file.meta("format") = "2";
  file.meta("arithmetic") = "int8";
  file.meta("calibration_sha256") = std::string(64, 'c');
  const auto n = std::make_unique<Network>(models::dlib_resnet());
  for (int i = 0; i < n->size(); ++i)
    if ((*n)[i].kind == OpKind::conv)
      file.tensors.push_back(builder::f32((*n)[i].name.text + std::string(".input_scale"), {1},
                                          {(*n)[i].inputs[0] == 0 ? 1.0f / 255 : 0.02f}));
  return file.bytes();
}
/// The same with a last layer that gives `bias` in every component, whatever the picture.
std::string dead_file(float bias, const char* normalise) {
  builder::File file = dlib();
  file.meta("normalise") = normalise;
  for (builder::Tensor& t : file.tensors) {
    if (t.name.compare(0, 3, "fc.") != 0) continue;
    if (t.name == "fc.bias") t = builder::f32(t.name, t.shape, std::vector<float>(128, bias));
    if (t.name == "fc.weight") t.bytes.assign(t.bytes.size(), 0);
  }
  return file.bytes();
}
Span<const std::uint8_t> span(const std::string& s) {
  return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()};
}
EmbedderOptions one_thread() {
  EmbedderOptions options;
  options.threads = 1;
  return options;
}

}  // namespace

TEST_CASE("every model of the table can be built, and is found by its name alone") {
  for (const models::Entry& entry : models::all()) {
    CAPTURE(entry.architecture);
    CHECK(models::find(entry.architecture) == &entry);
    for (bool normalise : {false, true}) {
      const auto n = std::make_unique<Network>(entry.build(128, normalise, 1));
      CHECK(n->ok());
      CHECK(n->architecture() == entry.architecture);
      CHECK((*n)[n->size() - 1].out == Shape{1, 1, 128});
      CHECK(((*n)[n->size() - 1].kind == OpKind::l2_normalise) == normalise);
    }
    CHECK(entry.threshold > 0);
    const auto whole = std::make_unique<Network>(entry.build(64, true, 1)),
               half = std::make_unique<Network>(entry.build(64, true, 0.5));
    CHECK(half->ok());
    REQUIRE(half->size() == whole->size());
    for (int i = 1; i < half->size(); ++i) {
      const bool embedding = (*whole)[i].kind == OpKind::linear || (*whole)[i].kind == OpKind::l2_normalise;
      CHECK((*half)[i].out.c * (embedding ? 1 : 2) == (*whole)[i].out.c);
    }
    for (double width : {0.0, -1.0, 1.0 / 3, 1.0 / 64, 1e9, std::nan("")})
      CHECK_FALSE(std::make_unique<Network>(entry.build(64, true, width))->ok());
  }
  CHECK(models::find("inception_resnet") == nullptr);
  CHECK(models::find("") == nullptr);
}

TEST_CASE("the file's metadata chooses the model") {
  std::string file = dlib_file();
  auto embedder = Embedder::load(span(file), one_thread());
  REQUIRE(embedder.ok());
  CHECK(embedder->dim() == 128);
  CHECK(embedder->info().image_size == 150);
  CHECK(embedder->info().normalise == Normalise::none);
  CHECK(embedder->info().threshold == 0.6);
  CHECK(std::string(embedder->info().threshold_source).empty());
  // Of which nothing but the header changes.
  const std::size_t length = facenet::detail::load_le<std::uint64_t>(file.data());
  const std::string header = builder::replaced(file.substr(8, length), "\"licence\"",
                                               "\"threshold\":\"0.553\",\"threshold_source\":\"a test\",\"licence\"");
  const std::string measured = builder::File::assemble(header, file.substr(8 + length));
  auto other = Embedder::load(span(measured), one_thread());
  REQUIRE(other.ok());
  CHECK(other->info().threshold == 0.553);
  CHECK(std::string(other->info().threshold_source) == "a test");
  CHECK(std::string(other->info().digest) == embedder->info().digest);  // galleries stay comparable
  file = builder::replaced(file, "dlib_resnet", "dlib_resnot");
  EmbedderOptions trusting = one_thread();
  trusting.read.verify_hashes = false;
  CHECK(Embedder::load(span(file), trusting).status().code() == Errc::unsupported);
}

TEST_CASE(
    "a failing allocation anywhere from the file to the embedding is an error, leaks nothing, and the next call "
    "works") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(31 * 17 * 3, 100);  // another size than the model's: resizing allocates too
  const ImageView view(pixels.data(), 31, 17, 31 * 3, ChannelOrder::rgb);
  std::vector<float> want(128), got(128);
  int failures = 0;
  for (long k = -1;; ++k) {  // -1: none fails
    const long before = failing_malloc::blocks_alive;
    failing_malloc::allocations_left = k;
    Errc code;
    {
      auto embedder = Embedder::load(span(file), one_thread());
      code = embedder.status().code();
      if (embedder.ok()) code = embedder->embed(view, k < 0 ? want : got).code();
    }
    failing_malloc::allocations_left = -1;
    CHECK(failing_malloc::blocks_alive == before);
    if (k < 0) REQUIRE(code == Errc::ok);
    if (k >= 0 && code == Errc::ok) break;
    if (k >= 0) CHECK(code == Errc::out_of_memory);
    failures += k >= 0;
  }
  CHECK(failures > 20);
  CHECK(want[0] > 0);
  CHECK(got == want);
}

namespace {

/// Memory that begins at a cache line.
struct Block {
  explicit Block(std::size_t bytes) : raw(bytes + cache_line) {
    at = reinterpret_cast<unsigned char*>(round_up(reinterpret_cast<std::uintptr_t>(raw.data()), cache_line));
  }
  std::vector<unsigned char> raw;
  unsigned char* at;
};

}  // namespace

TEST_CASE("an arena of required_bytes() is filled exactly, malloc is never called, and one byte less is an error") {
  const std::string file = dlib_file();
  std::vector<std::uint8_t> pixels(150 * 150 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31 / 7);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb);
  std::vector<float> want(128);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(face, want).ok());
  std::vector<float> small_want(128);
  const ImageView small(pixels.data(), 149, 150, 450, ChannelOrder::rgb);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(small, small_want).ok());

  for (const bool int8 : {false, true})
    for (const int batch : {1, 3}) {
      CAPTURE(int8);
      CAPTURE(batch);
      EmbedderOptions options;
      options.int8_weights = int8;
      options.batch = batch;
      options.threads = batch == 3 ? 2 : 1;  // each thread has scratch of its own
      const auto need = Embedder::required_bytes(span(file), options);
      REQUIRE(need.ok());
      Block memory(*need);
      Arena arena(memory.at, *need);
      options.arena = &arena;
      failing_malloc::allocations_left = 0;                            // from here on malloc fails
      CHECK(*Embedder::required_bytes(span(file), options) == *need);  // its tables are made in the arena
      CHECK(arena.used() == 0);
      {
        std::vector<float> got(128);
        auto embedder = Embedder::load(span(file), options);
        REQUIRE(embedder.ok());
        CHECK(arena.peak() == *need);
        CHECK(embedder->workspace().threads() == Team::size_of(options.threads));
        CHECK(embedder->embed(face, got).ok());
        CHECK(got == want);
        CHECK(embedder->fork(1, 1).status().code() == Errc::out_of_memory);
        CHECK(embedder->embed(small, got).ok());  // resizing takes nothing
        CHECK(got == small_want);
        CHECK(embedder->embed(face, got).ok());
        CHECK(got == want);
      }
      CHECK(arena.used() == 0);
      Arena less(memory.at, *need - 1);
      options.arena = &less;
      CHECK(Embedder::load(span(file), options).status().code() == Errc::out_of_memory);
      CHECK(less.used() == 0);
      failing_malloc::allocations_left = -1;
    }
}

TEST_CASE("an arena with room to spare: pictures of other sizes, forks, another embedder when the first is gone") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(331 * 217 * 3, 90);
  const ImageView view(pixels.data(), 331, 217, 331 * 3, ChannelOrder::rgb);
  EmbedderOptions options;
  options.int8_weights = true;
  std::vector<float> want(128), got(128);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(view, want).ok());
  const std::size_t bytes = 3 * *Embedder::required_bytes(span(file), options);
  Block memory(bytes);
  Arena arena(memory.at, bytes);
  options.arena = &arena;
  failing_malloc::allocations_left = 0;
  for (int round = 0; round < 3; ++round) {
    auto embedder = Embedder::load(span(file), options);
    REQUIRE(embedder.ok());
    auto other = embedder->fork(1, 1);
    REQUIRE(other.ok());
    { const Embedder first = std::move(*embedder); }
    CHECK(other->embed(view, got).ok());
    CHECK(got == want);
  }
  failing_malloc::allocations_left = -1;
  CHECK(arena.used() == 0);
}

TEST_CASE("int8 weights stay where they are, need an int8 file, and exclude half precision") {
  const std::string file = dlib_file();
  EmbedderOptions options = one_thread();
  options.int8_weights = true;
  const auto embedder = Embedder::load(span(file), options);
  REQUIRE(embedder.ok());
  CHECK(embedder->plan().weight_bytes() == 0);
  options.half_weights = true;
  CHECK(Embedder::load(span(file), options).status().code() == Errc::invalid_argument);
  CHECK(Embedder::required_bytes(span(file), options).status().code() == Errc::invalid_argument);
  CHECK(Embedder::required_bytes(Span<const std::uint8_t>()).status().code() == Errc::truncated);
}

TEST_CASE("integer arithmetic: a file with scales, the same bits in forks, batches and arenas, and pictures as bytes") {
  const std::string file = integer_file();
  std::vector<std::uint8_t> pixels(150 * 150 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31 / 7);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb),
      small(pixels.data(), 149, 140, 450, ChannelOrder::bgr);
  EmbedderOptions options = one_thread();
  auto floats = Embedder::load(span(file), options);  // the same file in float
  REQUIRE(floats.ok());
  options.arithmetic = Arithmetic::int8;
  options.batch = 2;
  CHECK(Embedder::load(span(dlib_file()), options).status().code() == Errc::unsupported);
  auto embedder = Embedder::load(span(file), options);
  REQUIRE(embedder.ok());
  CHECK(embedder->plan().takes_bytes());
  CHECK(std::string(embedder->info().digest) == floats->info().digest);  // their embeddings are comparable
  CHECK(embedder->plan().weight_bytes() < 7u << 20);
  std::vector<float> want(256), got(256);
  CHECK(embedder->embed_nhwc(std::vector<float>(150 * 150 * 3), got).code() == Errc::unsupported);
  const ImageView both[] = {face, small};
  REQUIRE(embedder->embed(both, want).ok());
  auto fork = embedder->fork(3, 1);
  REQUIRE(fork.ok());
  CHECK(fork->embed(both, got).ok());
  CHECK(got == want);

  options.half_weights = true;
  CHECK(Embedder::load(span(file), options).status().code() == Errc::invalid_argument);
  options.half_weights = false;
  const auto need = Embedder::required_bytes(span(file), options);
  REQUIRE(need.ok());
  Block memory(*need);
  Arena arena(memory.at, *need);
  options.arena = &arena;
  failing_malloc::allocations_left = 0;
  {
    auto in_arena = Embedder::load(span(file), options);
    REQUIRE(in_arena.ok());
    CHECK(arena.peak() == *need);
    CHECK(in_arena->embed(both, Span<float>(got)).ok());
    CHECK(got == want);
  }
  CHECK(arena.used() == 0);
  Arena less(memory.at, *need - 1);
  options.arena = &less;
  CHECK(Embedder::load(span(file), options).status().code() == Errc::out_of_memory);
  failing_malloc::allocations_left = -1;
}

TEST_CASE("an embedding that is zero, too short or not finite is refused, by every way in, and the picture is named") {
  struct Case {
    float bias;
    const char* normalise;
    bool fine;
  };
  // 128 components of 1e-25 are 1e-13 each when they have been divided by l2_normalise's epsilon.
  const Case cases[] = {{0, "none", false},    {0, "l2", false},     {1e-13f, "none", false}, {1e-25f, "l2", false},
                        {8e-14f, "l2", false}, {1e-11f, "l2", true}, {0.01f, "none", true},   {1e16f, "none", false}};
  const std::vector<std::uint8_t> pixels(150 * 150 * 3, 100);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb);
  const std::vector<ImageView> faces(3, face);
  const std::vector<float> ready(3 * pixels.size(), 0.25f);
  for (const Case& c : cases) {
    CAPTURE(c.bias);
    CAPTURE(c.normalise);
    EmbedderOptions options = one_thread();
    options.batch = 2;
    const std::string file = dead_file(c.bias, c.normalise);
    auto embedder = Embedder::load(span(file), options);
    REQUIRE(embedder.ok());
    std::vector<float> out(3 * 128);
    const Errc want = c.fine ? Errc::ok : Errc::corrupt;
    CHECK(embedder->embed(face, out).code() == want);
    CHECK(embedder->embed(faces, out).code() == want);
    const Status status = embedder->embed_nhwc(ready, out);
    CHECK(status.code() == want);
    CHECK(std::string(status.place()) == (c.fine ? "" : "picture 1 of 3"));
  }
}

TEST_CASE("pixels that no standardisation gives are refused, and the picture is named") {
  const std::string file = dlib_file();
  auto embedder = Embedder::load(span(file), one_thread());
  REQUIRE(embedder.ok());
  const std::size_t size = 150 * 150 * 3;
  std::vector<float> out(3 * 128);
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY, 1e30f, -2e6f}) {
    std::vector<float> pixels(3 * size, 0.5f);
    pixels[size + 77] = bad;
    const Status status = embedder->embed_nhwc(pixels, out);
    CHECK(status.code() == Errc::invalid_argument);
    CHECK(std::string(status.place()) == "picture 2 of 3");
    const std::vector<float> all(size, bad);
    CHECK(embedder->embed_nhwc(all, out).code() == Errc::invalid_argument);
  }
}

TEST_CASE("outputs carry their size: one float too few, null, and null inputs are errors") {
  const std::string file = dlib_file();
  auto embedder = Embedder::load(span(file), one_thread());
  REQUIRE(embedder.ok());
  const std::vector<std::uint8_t> pixels(150 * 150 * 3, 100);
  const ImageView faces[] = {{pixels.data(), 150, 150, 450, ChannelOrder::rgb},
                             {pixels.data(), 150, 150, 450, ChannelOrder::rgb}};
  const std::vector<float> ready(2 * pixels.size(), 0.25f);
  std::vector<float> out(256, 7.0f);
  for (const int room : {-1, 0, 1, 127, 255}) {
    CAPTURE(room);
    CHECK(embedder->embed(faces, {out.data(), room}).code() == Errc::invalid_argument);
    CHECK(embedder->embed_nhwc(ready, {out.data(), room}).code() == Errc::invalid_argument);
    if (room < 128) CHECK(embedder->embed(faces[0], {out.data(), room}).code() == Errc::invalid_argument);
  }
  for (const float x : out) CHECK(x == 7.0f);
  CHECK(embedder->embed(faces[0], {nullptr, 128}).code() == Errc::invalid_argument);
  CHECK(embedder->embed(Span<const ImageView>(nullptr, 1), out).code() == Errc::invalid_argument);
  CHECK(embedder->embed_nhwc({nullptr, ready.size() / 2}, out).code() == Errc::invalid_argument);
  CHECK(embedder->embed_nhwc({ready.data(), ready.size() - 1}, out).code() ==
        Errc::invalid_argument);  // a part of a picture
  CHECK(embedder->embed_nhwc({ready.data(), 150}, out).code() == Errc::invalid_argument);
  CHECK(embedder->embed_nhwc({ready.data(), 0}, out).code() == Errc::invalid_argument);
  CHECK(embedder->embed(Span<const ImageView>(faces, SIZE_MAX), out).code() == Errc::invalid_argument);
  CHECK(embedder->embed(faces, out).ok());
  PlanInput in;
  in.nhwc = ready.data();
  CHECK(embedder->plan().run(embedder->workspace(), &in, 1, {out.data(), 127}).code() == Errc::invalid_argument);
  CHECK(embedder->plan().run(embedder->workspace(), nullptr, 1, out).code() == Errc::invalid_argument);
  in.nhwc = nullptr;
  CHECK(embedder->plan().run(embedder->workspace(), &in, 1, out).code() == Errc::invalid_argument);
  CHECK(Embedder::load(static_cast<const char*>(nullptr)).status().code() == Errc::invalid_argument);
  CHECK(Embedder::load(Span<const std::uint8_t>(nullptr, 100)).status().code() == Errc::invalid_argument);
}

TEST_CASE("an embedder that was never loaded or was moved from, its plan and its workspace: defined, and an error") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(150 * 150 * 3, 100);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb);
  const std::vector<float> ready(pixels.size(), 0.25f);
  std::vector<float> out(128);
  const auto empty = [&](Embedder& e) {
    CHECK(e.dim() == 0);
    CHECK(e.info().embedding_dim == 0);
    CHECK(std::string(e.info().architecture) == "");
    CHECK(e.plan().steps().empty());
    CHECK(e.plan().network().size() == 0);
    CHECK(e.plan().output_size() == 0);
    CHECK(e.workspace().batch() == 0);
    CHECK(e.workspace().threads() == 0);
    for (const Status& s : {e.embed(face, out), e.embed_nhwc(ready, out), e.fork(1, 1).status(),
                            e.fork_bytes(1, 1).status(), e.plan().workspace(1, 1).status()})
      CHECK(s.code() == Errc::invalid_argument);
    // Each door says so itself, before what is behind it would.
    for (const Status& s :
         {e.embed(face, out), e.embed_nhwc(ready, out), e.fork(1, 1).status(), e.fork_bytes(1, 1).status()})
      CHECK(std::string(s.text()) == "this embedder was never loaded, or was moved from");
  };
  Embedder never;
  empty(never);
  auto loaded = Embedder::load(span(file), one_thread());
  REQUIRE(loaded.ok());
  Embedder moved = std::move(*loaded);
  empty(*loaded);
  auto other = Embedder::load(span(file), one_thread());
  *other = std::move(moved);  // what `other` had is gone, not in `moved`
  empty(moved);
  CHECK(other->embed(face, out).ok());

  const Plan& plan = other->plan();
  auto made = plan.workspace(1, 1);
  REQUIRE(made.ok());
  Workspace taken = std::move(*made);
  PlanInput in;
  in.nhwc = ready.data();
  for (Workspace* w : {&*made, &never.workspace()}) {
    CHECK(std::string(plan.run(*w, &in, 1, out).text()) == "the workspace was never made, or was moved from");
    plan.run_step(*w, 0, &in);
    CHECK(plan.view(*w, 0).data == nullptr);
  }
  CHECK(std::string(never.plan().run(taken, &in, 1, out).text()) == "the plan was never compiled, or was moved from");
  auto foreign =
      compile_with(models::dlib_resnet(64, false, 0.5), {}, [](int, Span<float>, Span<float>) {})->workspace(1, 1);
  CHECK(plan.run(*foreign, &in, 1, out).code() == Errc::invalid_argument);
}

TEST_CASE("forks in one arena, each used and destroyed by a thread, give the same bits; what they took comes back") {
  const std::string file = dlib_file();
  std::vector<std::uint8_t> pixels(331 * 217 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31 / 7);
  EmbedderOptions options;
  options.int8_weights = true;
  std::vector<float> want(128);
  const ImageView view(pixels.data(), 331, 217, 331 * 3, ChannelOrder::rgb);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(view, want).ok());
  constexpr int threads = 4;
  const std::size_t need = *Embedder::required_bytes(span(file), options);
  auto measured = Embedder::load(span(file), options);
  const std::size_t each = *measured->fork_bytes(1, 1);
  Block memory(need + threads * each), own(each);
  Arena arena(memory.at, need + threads * each), apart(own.at, each);
  options.arena = &arena;
  failing_malloc::allocations_left = 0;
  {
    auto embedder = Embedder::load(span(file), options);
    REQUIRE(embedder.ok());
    const std::size_t before = arena.used();
    for (int round = 0; round < 50; ++round) {
      auto one = embedder->fork(1, 1), two = embedder->fork(1, 1);
      REQUIRE(two.ok());
      CHECK(arena.used() == before + 2 * each);
      *one = Embedder();  // before the other, of which it is no part
    }
    CHECK(arena.used() == before);
    {
      auto alone = embedder->fork(1, 1, &apart);
      REQUIRE(alone.ok());
      CHECK(apart.used() == each);
      CHECK(arena.used() == before);
      CHECK(embedder->fork(1, 1, &apart).status().code() == Errc::out_of_memory);
    }
    CHECK(apart.used() == 0);
    std::atomic<int> refused{0}, failed{0}, wrong{0};
    const auto use = [&](Result<Embedder>& fork) {
      std::vector<float> got(128);
      if (!fork.ok())
        ++refused;
      else if (!fork->embed(view, got).ok())
        ++failed;
      else if (got != want)
        ++wrong;
    };
    for (int round = 0; round < 2; ++round) {
      std::vector<std::thread> team;
      for (int i = 0; i < threads; ++i)
        team.emplace_back([&, fork = embedder->fork(1, 1)]() mutable {
          use(fork);
          fork = Embedder();
          auto again = embedder->fork(1, 1);
          use(again);
        });
      for (std::thread& t : team) t.join();
    }
    CHECK(refused == 0);
    CHECK(failed == 0);
    CHECK(wrong == 0);
    CHECK(arena.used() == before);
  }
  failing_malloc::allocations_left = -1;
  CHECK(arena.used() == 0);
}

TEST_CASE("the same bits and no signal whatever the caller's rounding mode and traps, from the file to the embedding") {
  builder::File made = dlib();
  made.meta("scaling") = "prewhiten";
  const std::string file = made.bytes();
  std::vector<std::uint8_t> pixels(331 * 217 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 31 / 7);
  const ImageView view(pixels.data(), 331, 217, 331 * 3, ChannelOrder::rgb);
  std::vector<float> want(128), got(128), table(3 * 256);
  const auto embed = [&](std::vector<float>& to) {
    auto embedder = Embedder::load(span(file), one_thread());
    return embedder.ok() ? embedder->embed(view, to) : embedder.status();
  };
  REQUIRE(embed(want).ok());
  const auto standard = standardisation(view, Scaling::prewhiten);
#if defined(__SSE2__) || defined(__aarch64__)
  for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    const Status status = embed(got);
    const auto same = standardisation(view, Scaling::prewhiten);
    const int kept = std::fegetround();
    std::fesetround(FE_TONEAREST);
    CHECK(status.ok());
    CHECK(kept == mode);
    CHECK(got == want);
    CHECK(std::memcmp(&same, &standard, sizeof same) == 0);
  }
#endif
#if defined(__GLIBC__) && defined(__SSE2__)
  const std::vector<float> bad(150 * 150 * 3, std::nanf(""));
  auto embedder = Embedder::load(span(file), one_thread());
  feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INEXACT);
  const Status refused = embedder->embed_nhwc(bad, got);
  const Status fine = embed(got);
  const int on = fegetexcept();
  fedisableexcept(FE_ALL_EXCEPT);
  CHECK(refused.code() == Errc::invalid_argument);
  CHECK(fine.ok());
  CHECK(on == (FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INEXACT));
  CHECK(got == want);
#endif
}

TEST_CASE("a flag that is set ends an embedding at the next step, on any number of threads; the next one is whole") {
  const std::string file = dlib_file();
  const std::vector<std::uint8_t> pixels(150 * 150 * 3, 100);
  const ImageView face(pixels.data(), 150, 150, 450, ChannelOrder::rgb);
  std::vector<float> want(128), got(128);
  REQUIRE(Embedder::load(span(file), one_thread())->embed(face, want).ok());
  std::atomic<bool> flag{true};
  for (const int threads : {1, 3}) {
    EmbedderOptions options;
    options.threads = threads;
    options.cancel = &flag;
    auto embedder = Embedder::load(span(file), options);
    REQUIRE(embedder.ok());
    PlanInput in;
    const std::vector<float> ready(pixels.size(), 0.25f);
    in.nhwc = ready.data();
    flag = false;
    int done = 0;
    const Status status = embedder->plan().run(embedder->workspace(), &in, 1, got, [&](int) {
      if (++done == 5) flag = true;
    });
    CHECK(status.code() == Errc::cancelled);
    CHECK(done == 6);  // the step after the one in which it was set
    CHECK(std::string(name(status.code())) == "cancelled");
    CHECK(embedder->embed(face, got).code() == Errc::cancelled);
    flag = false;
    CHECK(embedder->embed(face, got).ok());
    CHECK(got == want);
    flag = true;
    embedder->cancel_when(nullptr);
    CHECK(embedder->embed(face, got).ok());
    CHECK(embedder->fork(1, 1)->embed(face, got).ok());
  }
}
