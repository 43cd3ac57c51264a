#include "command/report/page.hpp"

#include <cstdio>

#include "command/engine/pictures.hpp"
#include "command/engine/png.hpp"
#include "command/io/escape.hpp"

namespace command {

namespace {

constexpr int shown_side = 160, quality = 88;

constexpr const char* style = R"(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#14181f;--soft:#5b6472;--rule:#dfe3ea;--same:#1f6feb;--other:#c2410c;
--warn-page:#fff4d6;--warn-ink:#6b4700;--warn-rule:#e8c66a;--shade:0 1px 2px #0f172a14,0 8px 24px #0f172a0f}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--ink:#e8ebf0;--soft:#9aa4b2;--rule:#2a303a;--same:#7ab0ff;
--other:#fb923c;--warn-page:#33280d;--warn-ink:#f7d98a;--warn-rule:#6d5516;--shade:0 1px 2px #0008}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:72rem;margin:auto;padding:clamp(1rem,4vw,3rem)}
h1{font-size:clamp(1.6rem,5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.6rem 0 .3rem;letter-spacing:-.01em}
p{margin:.3rem 0;max-width:44rem}.soft,figcaption,dt,small{color:var(--soft)}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.note{border:1px solid var(--warn-rule);background:var(--warn-page);color:var(--warn-ink);border-radius:12px;padding:.8rem 1rem;
margin:1.2rem 0;max-width:none}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:1rem;margin:1.2rem 0 0}
dl div,.card{background:var(--card);border-radius:14px;box-shadow:var(--shade);padding:.9rem 1rem}
dt{font-size:.85rem}dd{margin:.1rem 0 0;font-size:1.35rem;font-weight:600;letter-spacing:-.01em}
dd small{display:block;font-size:.85rem;font-weight:400;letter-spacing:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem;margin:1.2rem 0 0}
.charts h2{margin:0}figure{margin:0}svg{display:block;width:100%;height:auto;margin:.6rem 0 0}
svg text{font:15px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule);fill:none}.curve{stroke:var(--same);stroke-width:2.5;fill:none;stroke-linejoin:round}
.same{fill:var(--same);stroke:var(--same)}.other{fill:var(--other);stroke:var(--other)}.hill{fill-opacity:.28;stroke-width:2}
.limit{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}svg .key{fill:var(--ink)}
.pairs,.faces{display:grid;gap:1rem;margin:1rem 0 0;padding:0;list-style:none}
.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,18rem),1fr))}
.pairs li{background:var(--card);border-radius:14px;box-shadow:var(--shade);overflow:hidden}
.pairs .two{display:grid;grid-template-columns:1fr 1fr;gap:2px}
img,.lost{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:cover;background:var(--rule)}
.pairs p{padding:.55rem .8rem .75rem;font-size:.85rem;line-height:1.4;margin:0;overflow-wrap:anywhere}.pairs strong{display:block;font-size:1rem}
.faces{grid-template-columns:repeat(auto-fill,minmax(5.5rem,1fr));gap:.6rem}
.faces img,.faces .lost{border-radius:10px}.faces small{display:block;font-size:.75rem;line-height:1.3;overflow-wrap:anywhere;margin-top:.2rem}
.scroll{overflow-x:auto;margin:1rem 0 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-size:.85rem;color:var(--soft);font-weight:600}
footer{margin:3rem 0 0;font-size:.85rem;color:var(--soft)}
@media print{.card,dl div,.pairs li{box-shadow:none;border:1px solid var(--rule)}}
)";

std::string base64(const std::string& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t k) { return k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0u; };
    const unsigned v = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    for (int shift = 18; shift >= 0; shift -= 6) out += digits[v >> shift & 63];
  }
  for (std::size_t i = 0; i < (3 - bytes.size() % 3) % 3; ++i) out[out.size() - 1 - i] = '=';
  return out;
}

facenet::Result<facenet::Image> cut_again(const std::string& picture, const facenet::Face& face, bool aligned,
                                          const facenet::ModelInfo& model) {
  Picture whole;
  FACENET_TRY(read_picture(picture, whole));
  facenet::Result<facenet::Image> pixels =
      aligned ? facenet::Result<facenet::Image>(std::move(static_cast<facenet::Image&>(whole)))
              : crop_given(whole, face, model);
  if (!pixels.ok()) return pixels;
  return facenet::resize_bilinear(*pixels, shown_side, shown_side);
}

}  // namespace

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : escaped(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string count(std::size_t number, const std::string& what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

std::string number(double value, int digits) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

std::string face_image(const std::string& picture, const facenet::Face& face, bool aligned,
                       const facenet::ModelInfo& model, const std::string& alt) {
  const auto pixels = cut_again(picture, face, aligned, model);
  if (!pixels.ok()) return "<span class=lost role=img aria-label=\"" + escape(alt) + ", no longer there\"></span>";
  return "<img src=\"data:image/jpeg;base64," + base64(jpeg(*pixels, quality)) +
         "\" width=" + std::to_string(shown_side) + " height=" + std::to_string(shown_side) + " alt=\"" + escape(alt) +
         "\">";
}

std::string page(const std::string& title, const std::string& lead, const std::string& body,
                 const facenet::ModelInfo& model) {
  const std::string warning = model.trained ? ""
                                            : "<p class=note><strong>The weights are untrained.</strong> They are "
                                              "random numbers: distances between their "
                                              "embeddings, and all that follows here, mean nothing about identity.</p>";
  return "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
         "content=\"width=device-width,initial-scale=1\">"
         "<title>" +
         escape(title) + "</title><style>" + style + "</style></head><body><main>\n<header><h1>" + escape(title) +
         "</h1><p class=soft>" + escape(lead) + "</p></header>\n" + warning + body + "\n<footer>" +
         escape(model.architecture) + ", model <code>" + model.digest + "</code>, facenet " + facenet::version +
         ". Pictures are inside this page; nothing is loaded from elsewhere.</footer>\n</main></body></html>\n";
}

}  // namespace command
