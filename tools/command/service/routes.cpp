#include "command/service/routes.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "command/service/handlers.hpp"
#include "command/service/openapi.hpp"
#include "command/service/page.hpp"

namespace command::service {

namespace {

/// Checks the query by the table, runs the call, and notes it in the log of the page.
Response run(Handlers& handlers, const Call& call, const Request& request) {
  const auto begin = std::chrono::steady_clock::now();
  LoggedRequest entry;
  entry.time = time_now();
  entry.method = call.method;
  entry.route = call.pattern;
  const auto note = [&](int status) {
    entry.status = status;
    entry.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (call.id != "log") handlers.log.add(entry);
  };
  try {
    const std::optional<Request> apart = with_parameters_apart(call, request);
    const Request& checked = apart ? *apart : request;
    check_query(call, checked);
    Response response = call.handler(checked);
    note(response.status);
    return response;
  } catch (const HttpError& failure) {
    note(failure.status);
    throw;
  } catch (...) {
    note(500);
    throw;
  }
}

/// A text as a label's value of Prometheus' format.
std::string label_value(const std::string& text) {
  std::string value;
  for (const char c : text) {
    if (c == '"' || c == '\\') value += '\\';
    value += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  }
  return value;
}

}  // namespace

std::vector<Route> make_routes(Service& service) {
  const auto handlers = std::make_shared<Handlers>(service);
  std::vector<Call> calls = rest_calls(*handlers);
  for (Call& call : v1_calls(*handlers)) calls.push_back(std::move(call));
  const auto document = std::make_shared<const std::string>(openapi_document(calls));

  std::vector<Route> routes = page_routes();
  Route openapi;
  openapi.method = "GET";
  openapi.pattern = "/openapi.json";
  openapi.right = Right::none;
  openapi.immediate = true;
  openapi.handler = [document](const Request&) {
    Response r;
    r.body = *document;
    return r;
  };
  routes.push_back(std::move(openapi));
  for (Call& call : calls) {
    Route route;
    route.method = call.method;
    route.pattern = call.pattern;
    route.right = call.right;
    route.most_body = call.most_body;
    route.key_parameter = call.key_parameter;
    const auto row = std::make_shared<const Call>(std::move(call));
    route.handler = [row, handlers](const Request& request) { return run(*handlers, *row, request); };
    routes.push_back(std::move(route));
  }
  const auto gauge = [&](const char* name, const char* help, std::size_t (LiveGallery::*value)() const) {
    for (const auto& each : handlers->galleries) {
      const LiveGallery* const gallery = each.get();
      service.metrics.add_gauge(
          name, help, [=] { return static_cast<double>((gallery->*value)()); },
          "gallery=\"" + label_value(gallery->name()) + "\"");
    }
  };
  gauge("facenet_gallery_templates", "Templates in memory.", &LiveGallery::size);
  gauge("facenet_gallery_persons", "Persons in memory.", &LiveGallery::persons_count);
  return routes;
}

}  // namespace command::service
