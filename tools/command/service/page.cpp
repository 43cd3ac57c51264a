#include "command/service/page.hpp"

#include <string>

#include "command/service/embedded_files.hpp"

namespace command::service {

namespace {

struct PageFile {
  const char *path, *name, *type;
};

constexpr PageFile files[] = {{"/", "index.html", "text/html; charset=utf-8"},
                              {"/app.js", "app.js", "text/javascript; charset=utf-8"},
                              {"/style.css", "style.css", "text/css; charset=utf-8"},  // of examples/web
                              {"/page.css", "page.css", "text/css; charset=utf-8"},    // what that lacks
                              {"/icon.svg", "icon.svg", "image/svg+xml"}};

// Nothing but these files is run or shown, no other page may frame this one, and a form cannot send its fields away.
constexpr const char* policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

}  // namespace

std::vector<Route> page_routes() {
  std::vector<Route> routes;
  for (const PageFile& file : files) {
    Route route;
    route.method = "GET";
    route.pattern = file.path;
    route.right = Right::none;  // the page holds no data: what it asks for needs a key
    route.immediate = true;
    route.handler = [&file](const Request&) {
      Response r;
      r.type = file.type;
      r.body = std::string(embedded_file(file.name));
      r.headers = {{"Content-Security-Policy", policy},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "no-referrer"},
                   {"Cross-Origin-Opener-Policy", "same-origin"},
                   {"Cache-Control", "no-cache"}};
      return r;
    };
    routes.push_back(std::move(route));
  }
  return routes;
}

}  // namespace command::service
