// The galleries, the detector and the embedder as a service over HTTP: docs/service.md.
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "command/cli/sub_command.hpp"
#include "command/io/output.hpp"
#if defined(FACENET_SERVE)
#  include "command/engine/model.hpp"
#  include "command/http/http_server.hpp"
#  include "command/service/routes.hpp"
#endif

namespace command {

namespace {

constexpr int most_seconds = 86400;

struct Options {
  ModelOptions model;
  FaceOptions faces;
  std::vector<std::string> galleries, listen, cors;
  std::string threshold, keys, certificate, key, access_log = "-";
  bool keep_pictures = false, half_gallery = false;
  int queue = 256, connections = 16000, body_mib = 16, buffered_mib = 512, megapixels = 50, rate = 1000;
  int header_seconds = 10, body_seconds = 60, idle_seconds = 75, drain_seconds = 30;
};

#if defined(FACENET_SERVE)

constexpr const char* default_gallery = "facenet.gallery";
constexpr const char* default_address = "127.0.0.1:8000";

service::ServerOptions server_options(const Options& o, int workers) {
  service::ServerOptions s;
  s.listen = o.listen;
  s.certificate = o.certificate;
  s.key = o.key;
  s.keys = o.keys;
  s.cors = o.cors;
  s.access_log = o.access_log;
  s.workers = workers;
  s.queue = o.queue;
  s.connections = o.connections;
  s.most_body = static_cast<std::size_t>(o.body_mib) << 20;
  s.most_buffered = static_cast<std::size_t>(o.buffered_mib) << 20;
  s.header_seconds = o.header_seconds;
  s.body_seconds = o.body_seconds;
  s.idle_seconds = o.idle_seconds;
  s.drain_seconds = o.drain_seconds;
  s.rate = o.rate;
  return s;
}

int serve(Options& o) {
  if (o.buffered_mib < o.body_mib) {
    say("--max-buffered is less than --max-body, so that no body could be taken; raise it.");
    return failed;
  }
  if (o.galleries.empty()) o.galleries = {default_gallery};
  const std::vector<int> inherited = service::inherited_sockets();
  if (o.listen.empty() && inherited.empty()) o.listen = {default_address};
  if (o.model.threads == 0) o.model.threads = facenet::default_threads();
  service::Metrics metrics;
  service::HttpServer server(server_options(o, o.model.threads), metrics, [](const std::string& text) { say(text); });
  // Before anything is loaded: a mistake is known at once, and clients that come meanwhile wait.
  if (const std::string wrong = server.open(inherited); !wrong.empty()) {
    say(wrong);
    return failed;
  }
  service::PoolLimits limits;
  limits.workers = o.model.threads;
  limits.most_pixels = std::int64_t{o.megapixels} * 1'000'000;
  if (o.faces.max_faces > 0) limits.most_faces = o.faces.max_faces;
  service::EnginePool engine;
  if (!engine.load(o.model, o.faces, limits, &metrics)) return failed;
  warn_untrained(engine.info());
  metrics.add_gauge(
      "facenet_model_info", "The embedder and the detector, by their weights' digests.", [] { return 1.0; },
      "architecture=\"" + std::string(engine.info().architecture) + "\",digest=\"" + engine.info().digest +
          "\",detector=\"" + engine.detector() + "\"");
  service::Service all{engine, metrics, {}};
  all.options.galleries = o.galleries;
  all.options.threshold = o.threshold;
  all.options.keep_pictures = o.keep_pictures;
  all.options.half_gallery = o.half_gallery;
  std::vector<service::Route> routes = service::make_routes(all);
  for (const std::string& address : server.addresses()) note("serving on " + address + ".");
  if (server.run(std::move(routes))) return done;
  say("what was under way at the end was not finished within --drain seconds.");
  std::_Exit(failed);  // threads are at work on it
}

#else

int serve(Options&) {
  say("this facenet was built without the service; build it where Boost's headers and OpenSSL are, with "
      "-DFACENET_SERVE=ON.");
  return failed;
}

#endif

}  // namespace

SubCommand serve_command() {
  const auto o = std::make_shared<Options>();
  return {
      "serve", "Answer over HTTP: detect, embed, verify, identify, enroll",
      "Serves galleries over HTTP until SIGTERM, with the calls of CompreFace's API (/api/v1) and its own (/v1, which\n"
      "/openapi.json describes), a page at /, and /health, /ready and /metrics. It listens on 127.0.0.1 unless it is\n"
      "told otherwise, and elsewhere only with keys. A file of keys has a line for each, KEY RIGHT[,RIGHT...] with "
      "the\n"
      "rights read, enroll and admin, and mode 0600. SIGHUP reads keys and certificate again.\n\n"
      "Examples:\n"
      "  facenet serve --gallery staff.gallery\n"
      "  facenet serve --gallery staff.gallery --listen 0.0.0.0:8000 --keys keys --cert chain.pem --key key.pem\n"
      "  facenet serve --listen unix:/run/facenet/socket --access-log none\n"
      "  curl -F file=@door.jpg http://127.0.0.1:8000/v1/identify\n\n",
      [o](OptionSet& options) {
        options.option(
            "-g,--gallery", "FILE", o->galleries,
            "Galleries, made where they are not there; /api/v1 speaks to the first (default facenet.gallery)");
        options.option("-l,--listen", "ADDRESS", o->listen,
                       "Listen on HOST:PORT, [V6]:PORT or unix:FILE (default 127.0.0.1:8000, or systemd's sockets)");
        options.option("--keys", "FILE", o->keys, "Ask for one of the keys in FILE");
        options.option("--cert", "FILE", o->certificate, "Speak TLS with this chain of certificates, in PEM");
        options.option("--key", "FILE", o->key, "The private key of --cert, in PEM");
        options.option("--cors", "ORIGIN", o->cors, "Let pages of this origin call, such as https://door.example");
        options.threshold(o->threshold);
        options.flag("--keep-pictures", o->keep_pictures, "Store the pictures that persons are enrolled with");
        options.flag("--half-gallery", o->half_gallery, "Keep embeddings in memory as half floats");
        options.option("--access-log", "FILE", o->access_log,
                       "Where a line of JSON for each request goes: FILE, - for standard output (default), or none");
        options.option("--queue", "N", o->queue, "Let N requests wait for a thread (default 256); answer 503 beyond")
            .whole_number(1, 100000);
        options.option("--max-body", "MIB", o->body_mib, "Take bodies of up to MIB mebibytes (default 16)")
            .whole_number(1, 1024);
        options
            .option("--max-buffered", "MIB", o->buffered_mib,
                    "Hold bodies of up to MIB mebibytes together (default 512)")
            .whole_number(1, 1 << 20);
        options.option("--max-pixels", "M", o->megapixels, "Take pictures of up to M million pixels (default 50)")
            .whole_number(1, 64);
        options.option("--max-connections", "N", o->connections, "Hold up to N connections (default 16000)")
            .whole_number(1, 1000000);
        options.option("--rate", "N", o->rate, "Take N requests a second from each key (default 1000), 0: any number")
            .whole_number(0, 1000000);
        options.option("--header-seconds", "S", o->header_seconds, "Time to send a request's header (default 10)")
            .whole_number(1, most_seconds);
        options.option("--body-seconds", "S", o->body_seconds, "Time to send a request's body (default 60)")
            .whole_number(1, most_seconds);
        options.option("--idle-seconds", "S", o->idle_seconds, "Time between two requests (default 75)")
            .whole_number(1, most_seconds);
        options.option("--drain", "S", o->drain_seconds, "Time for what is under way at SIGTERM (default 30)")
            .whole_number(0, most_seconds);
        options.faces(o->faces);
        options.model(o->model);
      },
      [o](bool) { return serve(*o); }};
}

}  // namespace command
