// What `facenet watch` decides without an engine: where a JPEG ends, which face goes on with which track, who it is.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "command/watch/jpeg_stream.hpp"
#include "command/watch/raw_video.hpp"
#include "command/watch/visits.hpp"

using namespace command;

namespace {

using Bytes = std::vector<std::uint8_t>;

/// Headers, a thumbnail's file inside of a segment, coded data with stuffed FFs and restart markers, two scans.
Bytes jpeg(std::uint8_t tag, std::size_t coded = 40) {
  Bytes b{0xFF, 0xD8, 0xFF, 0xE1, 0, 8, 0xFF, 0xD8, 0xFF, 0xD9, tag, 0, 0xFF, 0xFF, 0xDB, 0, 3, 1};
  for (int scan = 0; scan < 2; ++scan) {
    b.insert(b.end(), {0xFF, 0xDA, 0, 4, tag, 1});
    for (std::size_t i = 0; i < coded; ++i) b.push_back(static_cast<std::uint8_t>(i % 200));
    b.insert(b.end(), {0xFF, 0, 7, 0xFF, 0xD3, 9, 0xFF, 0});
  }
  b.insert(b.end(), {0xFF, 0xD9});
  return b;
}

Bytes joined(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& p : parts) all.insert(all.end(), p.begin(), p.end());
  return all;
}

/// What comes out when the bytes come `step` at a time.
std::vector<Bytes> split(JpegStream& stream, const Bytes& bytes, std::size_t step) {
  std::vector<Bytes> files;
  Bytes file;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    stream.feed(bytes.data() + at, std::min(step, bytes.size() - at));
    while (stream.next(file)) files.push_back(file);
  }
  return files;
}

Bytes text(const std::string& s) { return Bytes(s.begin(), s.end()); }

}  // namespace

TEST_CASE("JPEG files one behind the other come apart, in pieces of any size, whatever lies between") {
  const Bytes a = jpeg(1), b = jpeg(2, 1000), c = jpeg(3);
  const Bytes boundary = text("\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n");
  const Bytes stream = joined({boundary, a, b, boundary, c, boundary});
  for (const std::size_t step : {1u, 2u, 3u, 7u, 64u, 100000u}) {
    JpegStream s;
    CHECK(split(s, stream, step) == std::vector<Bytes>{a, b, c});
    CHECK(s.dropped() == 0);
    CHECK_FALSE(s.finish());
    CHECK(s.passed_over() == 3 * boundary.size());
  }
}

TEST_CASE("a damaged file is dropped and the next one found") {
  const Bytes a = jpeg(1), b = jpeg(2);
  Bytes cut = jpeg(9);
  cut.resize(cut.size() - 10);  // within the coded data
  Bytes bad_length = jpeg(9);
  bad_length[5] = 1;
  Bytes no_marker = jpeg(9);
  no_marker[2] = 0x42;
  for (const Bytes& damaged : {cut, bad_length, no_marker}) {
    for (const std::size_t step : {1u, 5u, 100000u}) {
      JpegStream s;
      CHECK(split(s, joined({a, damaged, b}), step) == std::vector<Bytes>{a, b});
      CHECK(s.dropped() >= 1);
    }
  }
  JpegStream s;
  CHECK(split(s, joined({a, cut}), 4) == std::vector<Bytes>{a});
  CHECK(s.finish());
  CHECK(s.dropped() == 1);
}

TEST_CASE("a file has a limit, and memory with it") {
  const Bytes small = jpeg(1), endless = jpeg(2, 20000);
  JpegStream s(1000);
  CHECK(split(s, joined({small, endless, small}), 100) == std::vector<Bytes>{small, small});
  CHECK(s.dropped() == 1);
  JpegStream never(1000);
  const Bytes head{0xFF, 0xD8, 0xFF, 0xDA, 0, 2};
  never.feed(head.data(), head.size());
  const Bytes coded(100, 5);
  Bytes file;
  for (int i = 0; i < 1000; ++i) {
    never.feed(coded.data(), coded.size());
    REQUIRE_FALSE(never.next(file));
    REQUIRE(never.held() <= 1000 + 2 * coded.size());
  }
}

TEST_CASE("noise gives no more than was in it, and what comes out begins and ends as a file") {
  std::mt19937 random(5);
  const std::uint8_t likely[] = {0xFF, 0xD8, 0xD9, 0xDA, 0, 4, 0xC4};
  for (int n = 0; n < 300; ++n) {
    Bytes noise(600);
    for (std::uint8_t& byte : noise)
      byte = random() % 2 != 0 ? likely[random() % 7] : static_cast<std::uint8_t>(random());
    JpegStream s(200);
    std::size_t out = 0;
    for (const Bytes& f : split(s, noise, 1 + random() % 50)) {
      REQUIRE(f.size() >= 4);
      REQUIRE((f[0] == 0xFF && f[1] == 0xD8 && f[f.size() - 2] == 0xFF && f.back() == 0xD9));
      REQUIRE(f.size() <= 200);
      out += f.size();
    }
    s.finish();
    REQUIRE(out + s.passed_over() == noise.size());
  }
}

TEST_CASE("raw formats: what is read, and colours") {
  RawFormat f;
  REQUIRE(parse_raw_format("6x4:nv12", f));
  CHECK(f.bytes() == 36);
  for (const char* bad : {"", "6x4", "0x4:rgb24", "6x4:rgb", "6x99999:gray", "5x4:yuv420p", "6x4:rgb24 ", "-6x4:gray",
                          "x4:gray", "6x:gray"})
    CHECK_FALSE(parse_raw_format(bad, f));
  REQUIRE(parse_raw_format("2x2:yuv420p", f));
  std::uint8_t rgb[12];
  // BT.601, limited range: white, black, and the red of (255, 0, 0), which is Y 81, U 90, V 240.
  const std::uint8_t white[] = {235, 16, 235, 16, 128, 128}, red[] = {81, 81, 81, 81, 90, 240};
  raw_to_rgb(f, white, rgb);
  CHECK((rgb[0] == 255 && rgb[1] == 255 && rgb[2] == 255 && rgb[3] == 0 && rgb[5] == 0));
  raw_to_rgb(f, red, rgb);
  CHECK((rgb[0] >= 253 && rgb[1] <= 2 && rgb[2] <= 2));
  REQUIRE(parse_raw_format("2x2:nv12", f));
  std::uint8_t same[12];
  raw_to_rgb(f, red, same);
  CHECK(std::equal(rgb, rgb + 12, same));
  REQUIRE(parse_raw_format("1x1:bgr24", f));
  const std::uint8_t bgr[] = {1, 2, 3};
  raw_to_rgb(f, bgr, rgb);
  CHECK((rgb[0] == 3 && rgb[1] == 2 && rgb[2] == 1));
}

// ---- tracks
// -----------------------------------------------------------------------------------------------------------

namespace {

TrackBox square(float x, float y, float side = 80) { return {x, y, x + side, y + side}; }

/// Matches, and begins a track for what is new.
std::vector<std::uint64_t> follow(Tracker& t, double s, const std::vector<TrackBox>& boxes) {
  std::vector<std::uint64_t> ids;
  t.match(s, boxes, ids);
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] == Tracker::none) ids[i] = t.begin(s, boxes[i]);
  return ids;
}

}  // namespace

TEST_CASE("a walker keeps the track: 60 pixels a frame, which no two boxes in a row share much of") {
  Tracker t;
  for (int i = 0; i < 20; ++i)
    CHECK(follow(t, i * 0.1, {square(60.0f * static_cast<float>(i), 100)}) == std::vector<std::uint64_t>{1});
}

TEST_CASE("two who cross keep theirs by where they are going") {
  Tracker t;
  for (int i = 0; i < 21; ++i) {
    const auto x = 20.0f * static_cast<float>(i);
    const auto ids = follow(t, i * 0.1, {square(x, 100), square(400 - x, 130)});
    CHECK(ids == std::vector<std::uint64_t>{1, 2});
  }
}

TEST_CASE("a face that jumps or changes its size at once is another one") {
  Tracker t;
  CHECK(follow(t, 0, {square(0, 0)}) == std::vector<std::uint64_t>{1});
  CHECK(follow(t, 0.1, {square(300, 0)}) == std::vector<std::uint64_t>{2});
  CHECK(follow(t, 0.2, {square(330, 60, 20)}) == std::vector<std::uint64_t>{3});
}

TEST_CASE("lost, revived, ended, and never too many") {
  TrackerOptions o;
  o.most_tracks = 2;
  o.lost_s = 1;
  Tracker t(o);
  std::vector<std::uint64_t> ids;
  CHECK(follow(t, 0, {square(0, 0), square(500, 0), square(900, 0)}) ==
        std::vector<std::uint64_t>{1, 2, Tracker::none});
  t.match(0.5, {square(0, 0)}, ids);
  t.lost(0.5, ids);
  CHECK(ids == std::vector<std::uint64_t>{2});
  CHECK(t.revive(2, 0.6, square(50, 500)));
  CHECK_FALSE(t.revive(2, 0.6, square(50, 500)));
  CHECK_FALSE(t.revive(7, 0.7, square(50, 500)));
  t.expire(1.55, ids);
  CHECK(ids == std::vector<std::uint64_t>{1});
  t.expire(1.65, ids);
  CHECK(ids == std::vector<std::uint64_t>{2});
  CHECK(t.size() == 0);
}

TEST_CASE("where faces can be compared, who stands there a second later may be somebody else") {
  TrackerOptions o;
  o.overlap_s = 0.5;
  Tracker t(o);
  CHECK(follow(t, 0, {square(0, 0)}) == std::vector<std::uint64_t>{1});
  CHECK(follow(t, 0.5, {square(0, 0)}) == std::vector<std::uint64_t>{1});
  std::vector<std::uint64_t> ids;
  t.match(1.1, {square(0, 0)}, ids);
  CHECK(ids == std::vector<std::uint64_t>{Tracker::none});
  t.lost(1.1, ids);
  CHECK(ids == std::vector<std::uint64_t>{1});  // whose face it may be
  CHECK(t.revive(1, 1.1, square(0, 0)));
}

TEST_CASE("overlap is intersection over union") {
  CHECK(overlap(square(0, 0, 10), square(5, 0, 10)) == doctest::Approx(1.0 / 3));
  CHECK(overlap(square(0, 0, 10), square(10, 0, 10)) == 0);
  CHECK(overlap({5, 5, 5, 5}, {5, 5, 5, 5}) == 0);
}

// ---- votes
// ------------------------------------------------------------------------------------------------------------

namespace {

Ballot ballot(std::uint64_t person, double distance, double runner_up = 2, double area = 6400) {
  Ballot b;
  b.person = person;
  b.distance = distance;
  b.runner_up = runner_up;
  b.area = area;
  return b;
}

Standing count(const std::vector<Ballot>& ballots) {
  Consensus c;  // threshold 1, margin 0.05, 3 votes, more than half, twice the next one's weight
  for (const Ballot& b : ballots) c.add(b);
  return c.standing();
}

}  // namespace

TEST_CASE("who is named, and when nobody is") {
  CHECK_FALSE(count({}).named);
  CHECK_FALSE(count({ballot(1, 0.5), ballot(1, 0.5)}).named);  // a vote is missing
  const Standing three = count({ballot(1, 0.5), ballot(1, 0.25), ballot(1, 0.5)});
  CHECK(three.named);
  CHECK((three.person == 1 && three.votes == 3 && three.frames == 3));
  CHECK(three.weight == doctest::Approx(0.5 + 0.75 + 0.5));
  CHECK(three.distance == 0.25);
  // Frames that say nobody, or that two persons are as near: they count, and are no votes.
  CHECK_FALSE(
      count({ballot(1, 0.5), ballot(1, 0.5), ballot(1, 0.5), ballot(1, 1.2), ballot(1, 1.2), ballot(1, 1.0)}).named);
  CHECK_FALSE(count({ballot(1, 0.5, 0.52), ballot(1, 0.5, 0.52), ballot(1, 0.5, 0.54)}).named);
  CHECK(count({ballot(1, 0.5, 0.56), ballot(1, 0.5, 0.56), ballot(1, 0.5, 0.56)}).named);
  // A tie, and a lead that is not enough: 3 x 0.5 against 2 x 0.5.
  CHECK_FALSE(count({ballot(1, 0.5), ballot(2, 0.5), ballot(1, 0.5), ballot(2, 0.5), ballot(1, 0.5)}).named);
  const Standing led = count({ballot(1, 0.2), ballot(2, 0.9), ballot(1, 0.2), ballot(2, 0.9), ballot(1, 0.2)});
  CHECK(led.named);
  CHECK(led.runner_up == doctest::Approx(0.2));
  // Small faces weigh less: 1000 of 4000 square pixels.
  CHECK(count({ballot(1, 0.5, 2, 1000)}).weight == doctest::Approx(0.125));
  CHECK_FALSE(count({ballot(1, 0.5, 2, 0), ballot(1, 0.5, 2, 0), ballot(1, 0.5, 2, 0)}).named);
  CHECK_FALSE(count({Ballot{}, Ballot{}, Ballot{}}).named);  // an empty gallery
}

TEST_CASE("at the end the mean of all frames decides where the votes did not") {
  const auto last = [](const std::vector<Ballot>& ballots) {
    Consensus c;
    for (const Ballot& b : ballots) c.add(b);
    return c.last_standing();
  };
  const Ballot far = ballot(1, 1.1), near = ballot(1, 0.5), other = ballot(2, 0.5), tie = ballot(1, 0.5, 0.52);
  CHECK_FALSE(count({far, far, near}).named);
  const Standing named = last({far, far, near});
  CHECK((named.named && named.person == 1 && named.votes == 1 && named.frames == 3));
  CHECK_FALSE(last({far, near}).named);             // too few frames
  CHECK_FALSE(last({near, near, far, far}).named);  // the mean of all is nobody's
  CHECK_FALSE(last({far, near, tie}).named);
  CHECK_FALSE(last({other, far, near}).named);  // no lead
  CHECK(last({other, near, near, near, near}).person == 1);
  CHECK(last({near, near, near}).named);
  CHECK_FALSE(last({}).named);
  CHECK_FALSE(last({Ballot{}, Ballot{}, Ballot{}}).named);
}

// ---- visits
// -----------------------------------------------------------------------------------------------------------

namespace {

using Kind = VisitEvent::Kind;

std::vector<Kind> kinds(const std::vector<VisitEvent>& events) {
  std::vector<Kind> all;
  for (const VisitEvent& e : events) all.push_back(e.kind);
  return all;
}

}  // namespace

TEST_CASE("a visit: arrival, one decision, leaving") {
  VisitOptions o;
  o.each_frames = 1;
  Visits v(o, {});
  std::vector<VisitEvent> events;
  for (std::uint64_t frame = 0; frame < 8; ++frame) {
    const double s = 0.1 * static_cast<double>(frame);
    v.seen(5, s, frame, square(0, 0), events);
    const double quality = frame == 3 ? 0.9 : 0.5;
    if (v.wants(5, frame, quality)) v.vote(5, s, frame, ballot(7, 0.5), events);
  }
  v.gone(5, events);
  REQUIRE(kinds(events) == std::vector<Kind>{Kind::arrival, Kind::decision, Kind::leaving});
  CHECK(events[0].frame == 1);  // the second frame with the face
  CHECK(events[1].frame == 2);  // the third vote
  CHECK((events[1].standing.named && events[1].standing.person == 7));
  CHECK((events[2].standing.named && events[2].best_frame == 3 && events[2].frames == 8));
  CHECK(events[2].arrived == 0);
  CHECK(v.ballots(5) == 0);  // it is forgotten
}

TEST_CASE("nobody's face is unknown once it was looked up often enough, or leaves") {
  VisitOptions o;
  o.each_frames = 1;
  o.most_frames = 4;
  for (const std::uint64_t frames : {2u, 10u}) {
    Visits v(o, {});
    std::vector<VisitEvent> events;
    for (std::uint64_t f = 0; f < frames; ++f) {
      v.seen(1, 0, f, square(0, 0), events);
      if (v.wants(1, f, 0.5)) v.vote(1, 0, f, ballot(7, 1.5), events);
    }
    v.gone(1, events);
    REQUIRE(kinds(events) == std::vector<Kind>{Kind::arrival, Kind::decision, Kind::leaving});
    CHECK_FALSE(events[1].standing.named);
    CHECK(events[1].standing.frames == static_cast<int>(std::min<std::uint64_t>(frames, 4)));
  }
}

TEST_CASE(
    "a face that was far at first is named by the mean of its frames, when it leaves or was looked up often enough") {
  VisitOptions o;
  o.each_frames = 1;
  o.most_frames = 6;
  for (const std::uint64_t frames : {5u, 10u}) {
    Visits v(o, {});
    std::vector<VisitEvent> events;
    for (std::uint64_t f = 0; f < frames; ++f) {
      v.seen(1, 0, f, square(0, 0), events);
      if (v.wants(1, f, 0.5)) v.vote(1, 0, f, ballot(7, f < 4 ? 1.5 : 0.5), events);
    }
    v.gone(1, events);
    REQUIRE(kinds(events) == std::vector<Kind>{Kind::arrival, Kind::decision, Kind::leaving});
    CHECK((events[1].standing.named && events[1].standing.person == 7 && events[2].standing.named));
  }
}

TEST_CASE("a false alarm is no visit") {
  Visits v({}, {});
  std::vector<VisitEvent> events;
  v.seen(1, 0, 0, square(0, 0), events);
  v.gone(1, events);
  CHECK(events.empty());
  CHECK((v.passed() == 1 && v.arrived() == 0));
}

TEST_CASE("which frames are worth an embedding") {
  VisitOptions o;
  o.each_frames = 5;
  Visits v(o, {});
  std::vector<VisitEvent> events;
  v.seen(1, 0, 0, square(0, 0), events);
  CHECK_FALSE(v.wants(1, 0, 0.01));  // below the gate
  REQUIRE(v.wants(1, 0, 0.2));       // the first
  v.vote(1, 0, 0, ballot(7, 0.5), events);
  CHECK_FALSE(v.wants(1, 1, 0.21));  // hardly better
  REQUIRE(v.wants(1, 2, 0.4));       // better
  v.vote(1, 0, 2, ballot(7, 0.5), events);
  CHECK_FALSE(v.wants(1, 6, 0.3));
  CHECK(v.wants(1, 7, 0.3));  // five frames later
  CHECK_FALSE(v.wants(2, 7, 0.9));
  VisitOptions none;
  none.decides = false;
  Visits w(none, {});
  w.seen(1, 0, 0, square(0, 0), events);
  CHECK_FALSE(w.wants(1, 0, 0.9));
}

TEST_CASE("a gallery that changed: votes for the old one do not count") {
  VisitOptions o;
  o.each_frames = 1;
  Visits v(o, {});
  std::vector<VisitEvent> events;
  v.seen(1, 0, 0, square(0, 0), events);
  v.vote(1, 0, 0, ballot(7, 0.5), events);
  v.vote(1, 0, 0, ballot(7, 0.5), events);
  v.forget_ballots({});
  CHECK(v.ballots(1) == 0);
  v.vote(1, 0, 0, ballot(8, 0.5), events);
  v.gone(1, events);
  CHECK(events.empty());
}

TEST_CASE("a visit's face is the mean of its frames', in which better ones weigh more") {
  MeanFace plain;
  CHECK(plain.add({1, 0}, 0.5, false) == std::vector<float>{1, 0});
  const auto mean = plain.add({0, 1}, 1.5, false);
  CHECK(mean[0] == doctest::Approx(0.25));
  CHECK(mean[1] == doctest::Approx(0.75));
  MeanFace unit;
  unit.add({1, 0}, 1, true);
  const auto direction = unit.add({0, 1}, 1, true);
  CHECK(direction[0] == doctest::Approx(std::sqrt(0.5)));
  CHECK(direction[1] == doctest::Approx(std::sqrt(0.5)));
}
