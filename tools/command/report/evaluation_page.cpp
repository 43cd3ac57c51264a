#include "command/report/evaluation_page.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

namespace command {

namespace {

// A chart's plane, in units of its viewBox; 390 pixels of screen show its 15 units of text at 12 pixels.
constexpr double width = 460, height = 330, left = 48, right = 10, top = 14, bottom = 46;
constexpr double inner_width = width - left - right, inner_height = height - top - bottom;

std::string print(const char* format, double a, double b = 0, double c = 0, double d = 0) {
  char text[240];
  std::snprintf(text, sizeof text, format, a, b, c, d);
  return text;
}

double across(double part) { return left + part * inner_width; }
double down(double part) { return top + (1 - part) * inner_height; }

std::string label(double x, double y, const char* anchor, const std::string& text, const char* kind = "") {
  return print("<text x=%.1f y=%.1f text-anchor=", x, y) + anchor + (*kind != 0 ? std::string(" class=") + kind : "") +
         ">" + text + "</text>";
}
std::string segment(double x0, double y0, double x1, double y1, const char* kind) {
  return std::string("<line class=") + kind + print(" x1=%.1f y1=%.1f x2=%.1f y2=%.1f />", x0, y0, x1, y1);
}
std::string chart(const std::string& name, const std::string& inside) {
  return print("<svg viewBox=\"0 0 %g %g\" role=img aria-label=\"", width, height) + name + "\">" + inside + "</svg>";
}

// ---- ROC ------------------------------------------------------------------------------------------------------------

/// True accepts over the logarithm of false accepts, from the last power of ten that one false accept lies above.
std::string roc_chart(const EvaluationData& data) {
  const double one = 1 / static_cast<double>(data.at_threshold.impostors);
  const int decades = std::clamp(static_cast<int>(std::ceil(-std::log10(one) - 1e-9)), 1, 8);
  const auto x = [&](double far) { return across(far <= 0 ? 0 : std::clamp(1 + std::log10(far) / decades, 0.0, 1.0)); };
  std::string s;
  for (int i = 0; i <= decades; ++i) {
    const double at = x(std::pow(10, -i));
    s += segment(at, top, at, height - bottom, "grid");
    s += label(at, height - bottom + 19,
               i == 0         ? "end"
               : i == decades ? "start"
                              : "middle",
               i == 0   ? "1"
               : i == 1 ? "0.1"
                        : "10<tspan dy=-5 font-size=11>−" + std::to_string(i) + "</tspan>");
  }
  for (int i = 0; i <= 5; ++i) {
    s += segment(left, down(i / 5.0), width - right, down(i / 5.0), "grid");
    s += label(left - 7, down(i / 5.0) + 5, "end", print("%.1f", i / 5.0));
  }
  // Between two points the rate is that of the first: a step, as it was counted. A thousand steps are more than pixels.
  std::string path;
  double last_x = x(0), last_y = down(0), y = last_y;
  path = print("M%.1f %.1f", last_x, last_y);
  for (const facenet::RocPoint& p : data.roc) {
    const double here = x(p.fpr);
    y = down(p.tpr);
    if (here - last_x < 0.3 && std::fabs(y - last_y) < 0.3) continue;
    path += print("H%.1fV%.1f", here, y);
    last_x = here, last_y = y;
  }
  path += print("H%.1fV%.1f", x(1), down(1));
  s += "<path class=curve d=\"" + path + "\"/>";
  const facenet::ErrorRates& e = data.at_threshold;
  const double px = x(e.far), py = down(1 - e.frr);
  s += print("<circle class=other cx=%.1f cy=%.1f r=5 />", px, py);
  // Below and to the right of a point the curve, which rises, never is.
  const bool room = px + 130 < width - right;
  s += label(room ? px + 8 : width - right, std::min(py + 24, height - bottom - 8), room ? "start" : "end",
             print("threshold %.3g", data.threshold), "key");
  s += label(left + inner_width / 2, height - 6, "middle", "false accept rate");
  return chart("ROC: true accept rate over false accept rate, logarithmic", s);
}

// ---- Histograms -----------------------------------------------------------------------------------------------------

std::string histogram_chart(const EvaluationData& data) {
  constexpr std::size_t bins = 48;
  double high = data.threshold;
  for (const EvaluatedPair& p : data.pairs) high = std::max(high, p.distance);
  high = high > 0 ? high * 1.02 : 1;
  double share[2][bins] = {}, most = 0;
  for (const EvaluatedPair& p : data.pairs) {
    if (!data.counts(p)) continue;
    const auto bin = std::min(bins - 1, static_cast<std::size_t>(p.distance / high * bins));
    share[p.same][bin] += 1 / static_cast<double>(p.same ? data.at_threshold.genuine : data.at_threshold.impostors);
    most = std::max(most, share[p.same][bin]);
  }
  std::string s;
  const double step = std::pow(10, std::floor(std::log10(high))), every = high / step < 2   ? step / 4
                                                                          : high / step < 5 ? step / 2
                                                                                            : step;
  for (double at = 0; at <= high; at += every) {
    s += segment(across(at / high), top, across(at / high), height - bottom, "grid");
    s += label(across(at / high), height - bottom + 19, "middle", print("%.3g", at));
  }
  s += segment(left, down(0), width - right, down(0), "grid");
  for (const bool same : {false, true}) {
    std::string path = print("M%.1f %.1f", across(0), down(0));
    for (std::size_t i = 0; i < bins; ++i)
      path += print("V%.1fH%.1f", down(share[same][i] / most * 0.86), across(static_cast<double>(i + 1) / bins));
    s += std::string("<path class=\"hill ") + (same ? "same" : "other") + "\" d=\"" + path +
         print("V%.1fZ\"/>", down(0));
  }
  const double t = across(data.threshold / high);
  const bool at_right = t < left + inner_width * 0.6;
  s += segment(t, top, t, height - bottom, "limit");
  s += label(t + (at_right ? 7 : -7), top + 12, at_right ? "start" : "end", print("threshold %.3g", data.threshold),
             "key");
  s += label(left - 7, down(0.86) + 5, "end", print("%.0f %%", 100 * most)) + label(left - 7, down(0) + 5, "end", "0");
  s += label(left + inner_width / 2, height - 6, "middle", "Euclidean distance");
  return chart("Share of pairs over their distance, for pairs of one person and of two", s);
}

std::string key(const char* kind, const char* text) {
  return std::string(
             "<svg viewBox=\"0 0 14 14\" style=\"display:inline-block;width:.8em;margin:0 .35em 0 0\" aria-hidden=true>"
             "<rect class=\"hill ") +
         kind + "\" x=1 y=1 width=12 height=12 rx=3 /></svg>" + text;
}

// ---- Pairs ----------------------------------------------------------------------------------------------------------

/// How far on the wrong side of the threshold; below 0 on the right one.
double wrongness(const EvaluatedPair& p, double threshold) {
  return p.same ? p.distance - threshold : threshold - p.distance;
}

std::string worst_pairs(const EvaluationData& data, const facenet::ModelInfo& model, bool aligned) {
  constexpr std::size_t shown = 10;
  std::vector<const EvaluatedPair*> pairs;
  for (const EvaluatedPair& p : data.pairs)
    if (data.counts(p)) pairs.push_back(&p);
  const std::size_t n = std::min(shown, pairs.size());
  std::partial_sort(pairs.begin(), pairs.begin() + static_cast<std::ptrdiff_t>(n), pairs.end(),
                    [&](const EvaluatedPair* a, const EvaluatedPair* b) {
                      const double x = wrongness(*a, data.threshold), y = wrongness(*b, data.threshold);
                      return x != y ? x > y : a < b;
                    });
  std::string s = "<ul class=pairs>";
  for (std::size_t i = 0; i < n; ++i) {
    const EvaluatedPair& p = *pairs[i];
    const EvaluatedPicture &a = data.picture(p.a), &b = data.picture(p.b);
    const auto name = [](const EvaluatedPicture& x) { return std::filesystem::path(x.file).stem().string(); };
    const bool wrong = wrongness(p, data.threshold) > 0;
    s += "<li><div class=two>" + face_image(a.file, a.face, aligned, model, name(a)) +
         face_image(b.file, b.face, aligned, model, name(b)) + "</div><p><strong>" + print("%.3f", p.distance) +
         (p.same  ? wrong ? ", one person refused" : ", one person, accepted"
          : wrong ? ", two persons accepted"
                  : ", two persons, refused") +
         "</strong>" + escape(name(a)) + "<br>" + escape(name(b)) + "</p></li>";
  }
  return s + "</ul>";
}

std::string fact(const std::string& what, const std::string& value, const std::string& how) {
  return "<div><dt>" + what + "</dt><dd>" + value + "<small>" + how + "</small></dd></div>";
}
std::string range(facenet::Interval i) { return print("%.4f to %.4f", i.low, i.high); }

std::string facts(const EvaluationData& data) {
  std::string s = "<dl>";
  if (data.accuracy.folds.size() != 0)
    s += fact("Accuracy", print("%.2f %%", 100 * data.accuracy.mean),
              print("± %.2f over %g folds, each with the threshold of the others", 100 * data.accuracy.deviation,
                    static_cast<double>(data.accuracy.folds.size())));
  if (data.missing(true) + data.missing(false) != 0 && data.accuracy_missing_rejected.folds.size() != 0)
    s += fact("Accuracy, all pairs", print("%.2f %%", 100 * data.accuracy_missing_rejected.mean),
              "a missing face is never accepted");
  s += fact("AUC", print("%.4f", data.auc), "95%: " + range(data.auc_interval));
  s += fact("Equal error rate", print("%.2f %%", 100 * data.eer.rate), print("at distance %.3f", data.eer.threshold));
  const std::size_t missing = data.missing(true) + data.missing(false);
  s += fact("Pairs", std::to_string(data.evaluated()),
            std::to_string(data.at_threshold.genuine) + " of one person, " +
                std::to_string(data.at_threshold.impostors) + " of two; " +
                (missing == 0 ? "none missing" : std::to_string(missing) + " missing"));
  return s + "</dl>";
}

std::string rates_table(const EvaluationData& data) {
  std::string s =
      "<h2>True accepts at a false accept rate</h2><div "
      "class=scroll><table><thead><tr><th>FAR</th><th>TAR</th><th>95%</th>"
      "<th>distance</th></tr></thead><tbody>";
  for (std::size_t i = 0; i < data.tar.size(); ++i) {
    const facenet::TarAtFar& t = data.tar[i];
    s += "<tr><td>" + print("%g", t.far) + "</td><td>" + print("%.4f", t.tar) + "</td><td>" +
         range(data.tar_interval[i]) + "</td><td>" + print("%.4f", t.threshold) +
         (t.measurable ? "" : " <small>(too few pairs)</small>") + "</td></tr>";
  }
  const facenet::ErrorRates& e = data.at_threshold;
  return s + "</tbody></table></div><p class=soft>At the threshold " + print("%.4g", data.threshold) + ": FAR " +
         print("%.4g", e.far) + " (" + print("%.2g to %.2g", e.far_interval.low, e.far_interval.high) + "), FRR " +
         print("%.4g", e.frr) + " (" + print("%.2g to %.2g", e.frr_interval.low, e.frr_interval.high) +
         "). Intervals take pairs for independent; pairs that share a face are not, so the true ones are wider.</p>";
}

std::string missing_note(const EvaluationData& data) {
  const std::size_t missing = data.missing(true) + data.missing(false), equal = data.equal(true) + data.equal(false);
  std::string note;
  if (equal != 0)
    note = "<p class=note>" + count(equal, "pair") + " (" + std::to_string(data.equal(true)) +
           " of one person) left out: both pictures "
           "are the same one, or one of them stands under two persons.</p>";
  if (missing == 0) return note;
  return note + "<p class=note>" + count(missing, "pair") + " of " + std::to_string(data.pairs.size()) +
         " could not be compared (" + std::to_string(data.missing(true)) + " of one person, " +
         std::to_string(data.missing(false)) + " of two): " + count(data.faceless, "picture") + " without a face, " +
         std::to_string(data.broken) + " that failed, " + std::to_string(data.absent) + " not there.</p>";
}

}  // namespace

std::string evaluation_page(const EvaluationData& data, const facenet::ModelInfo& model, bool aligned) {
  std::string body = missing_note(data) + facts(data);
  body += "<div class=charts><div class=card><h2>ROC</h2><p class=soft>True accept rate over false accept rate.</p>" +
          roc_chart(data) + "</div><div class=card><h2>Distances</h2><p class=soft>" +
          key("same", "pairs of one person") + " &nbsp; " + key("other", "of two persons") + "</p>" +
          histogram_chart(data) + "</div></div>";
  body += rates_table(data);
  body +=
      "<h2>The ten worst pairs</h2><p class=soft>Furthest on the wrong side of the threshold, or nearest to it, as the "
      "network "
      "sees them.</p>" +
      worst_pairs(data, model, aligned);
  return page("Evaluation on " + count(data.pairs.size(), "pair"),
              count(data.pictures.size(), "picture") + ", LFW's protocol, by facenet evaluate.", body, model);
}

}  // namespace command
