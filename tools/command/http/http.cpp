#include "command/http/http.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace command::service {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// `plus`: a plus sign is a blank, as forms write it.
bool percent_decode(std::string_view text, bool plus, std::string& decoded) {
  decoded.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return false;
      const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (plus && c == '+') {
      c = ' ';
    }
    if (c == 0) return false;
    decoded.push_back(c);
  }
  return true;
}

/// Calls take(piece) for what stands between separators; false where it does.
template <class Take>
bool split(std::string_view text, char separator, const Take& take) {
  for (std::size_t at = 0;;) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    if (!take(text.substr(at, end - at))) return false;
    if (end == text.size()) return true;
    at = end + 1;
  }
}

std::vector<std::string> pieces(const std::string& pattern) {
  std::vector<std::string> all;
  split(std::string_view(pattern).substr(1), '/', [&](std::string_view piece) {
    if (!piece.empty()) all.emplace_back(piece);
    return true;
  });
  return all;
}

bool is_parameter(const std::string& piece) { return piece.front() == '{'; }

bool fits(const std::vector<std::string>& pattern, const std::vector<std::string>& segments) {
  if (pattern.size() != segments.size()) return false;
  for (std::size_t i = 0; i < pattern.size(); ++i)
    if (!is_parameter(pattern[i]) && pattern[i] != segments[i]) return false;
  return true;
}

/// Whether `a` says more of the path than `b`; both fit it.
bool is_closer(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (is_parameter(a[i]) != is_parameter(b[i])) return is_parameter(b[i]);
  return false;
}

}  // namespace

Response error(int status, const std::string& message, int code) {
  nlohmann::ordered_json j;
  j["message"] = message;
  j["code"] = code < 0 ? status : code;
  Response response;
  response.status = status;
  response.body = j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return response;
}

const std::string& header(const Request& request, const char* name) {
  static const std::string none;
  const auto at = request.headers.find(name);
  return at == request.headers.end() ? none : at->second;
}

bool parse_target(std::string_view target, Request& request) {
  request.path.clear();
  request.segments.clear();
  request.query.clear();
  if (target.empty() || target.front() != '/') return false;
  target = target.substr(0, target.find('#'));
  const std::size_t question = target.find('?');
  const std::string_view path = target.substr(0, question);
  std::string text, value;
  if (!percent_decode(path, false, request.path)) return false;
  const bool path_fits = split(path.substr(1), '/', [&](std::string_view piece) {
    if (request.segments.size() == most_fields || !percent_decode(piece, false, text)) return false;
    request.segments.push_back(text);
    return true;
  });
  if (!path_fits) return false;
  if (request.segments.back().empty()) request.segments.pop_back();
  if (question == std::string_view::npos || question + 1 == target.size()) return true;
  std::size_t fields = 0;
  return split(target.substr(question + 1), '&', [&](std::string_view field) {
    if (field.empty()) return true;
    const std::size_t equals = std::min(field.find('='), field.size());
    if (++fields > most_fields || !percent_decode(field.substr(0, equals), true, text)) return false;
    if (!percent_decode(field.substr(std::min(equals + 1, field.size())), true, value)) return false;
    request.query[text] = value;
    return true;
  });
}

Router::Router(std::vector<Route> routes) : routes_(std::move(routes)) {
  for (const Route& route : routes_) patterns_.push_back(pieces(route.pattern));
}

Router::Match Router::find(Request& request) const {
  Match match;
  std::size_t best = routes_.size();
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    if (!fits(patterns_[i], request.segments)) continue;
    if (routes_[i].method != request.method) {
      if (match.allowed.find(routes_[i].method) == std::string::npos)
        match.allowed += (match.allowed.empty() ? "" : ", ") + routes_[i].method;
    } else if (best == routes_.size() || is_closer(patterns_[i], patterns_[best])) {
      best = i;
    }
  }
  request.parameters.clear();
  if (best == routes_.size()) return match;
  match.route = &routes_[best];
  const std::vector<std::string>& pattern = patterns_[best];
  for (std::size_t i = 0; i < pattern.size(); ++i)
    if (is_parameter(pattern[i])) request.parameters[pattern[i].substr(1, pattern[i].size() - 2)] = request.segments[i];
  return match;
}

}  // namespace command::service
