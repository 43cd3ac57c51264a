#include "command/io/xmp.hpp"

#if defined(FACENET_EXPAT)
#  include <expat.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <utility>

namespace command {

#if !defined(FACENET_EXPAT)

bool can_read_xmp() { return false; }
std::optional<std::string> with_regions(const std::string&, const XmpRegions&, std::string& wrong) {
  wrong = "this facenet was built without Expat, and reads no XMP";
  return {};
}
std::optional<std::string> without_regions(const std::string& old, std::string& wrong) {
  return with_regions(old, {}, wrong);
}

#else

namespace {

constexpr std::size_t most_bytes = 64 << 20, most_depth = 200;
constexpr char between = ' ';  // of a namespace and a name, as Expat joins them

#  define RDF "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
#  define MWG "http://www.metadataworkinggroup.com/schemas/regions/"
#  define DC "http://purl.org/dc/elements/1.1/"
#  define DIGIKAM "http://www.digikam.org/ns/1.0/"
#  define LIGHTROOM "http://ns.adobe.com/lightroom/1.0/"
#  define AREA "http://ns.adobe.com/xmp/sType/Area#"
#  define DIMENSIONS "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
#  define OURS "urn:facenet:xmp:1"

/// An element and where it stands in the text.
struct Node {
  std::string name;  // "namespace name"
  std::vector<std::pair<std::string, std::string> > attributes;
  std::string text;
  std::size_t from = 0, inner = 0, inner_end = 0, end = 0;  // <a>…</a>: its bytes, and those of what is in it
  std::size_t parent = 0;
  std::vector<std::size_t> children;
};

class Document {
 public:
  /// False for what is no XML of this kind; `wrong` says why.
  bool parse(const std::string& text, std::string& wrong) {
    if (text.size() > most_bytes) return wrong = "it has more than 64 MiB", false;
    if (text.rfind("\xfe\xff", 0) == 0 || text.rfind("\xff\xfe", 0) == 0) return wrong = "it is not UTF-8", false;
    const std::unique_ptr<XML_ParserStruct, void (*)(XML_Parser)> parser(XML_ParserCreateNS("UTF-8", between),
                                                                         XML_ParserFree);
    if (!parser) return wrong = "there is not enough memory", false;
    parser_ = parser.get();
    XML_SetUserData(parser_, this);
    XML_SetElementHandler(parser_, on_start, on_end);
    XML_SetCharacterDataHandler(parser_, on_text);
    XML_SetStartDoctypeDeclHandler(parser_, on_doctype);  // no entities, so no bombs of them
    nodes.push_back({});
    const XML_Status status = XML_Parse(parser_, text.data(), static_cast<int>(text.size()), XML_TRUE);
    if (status == XML_STATUS_OK) return true;
    wrong = refused_.empty() ? std::string("line ") + std::to_string(XML_GetCurrentLineNumber(parser_)) + ": " +
                                   XML_ErrorString(XML_GetErrorCode(parser_))
                             : refused_;
    return false;
  }

  /// The first with that name in or below `node`, in the order of the text; 0 where there is none.
  std::size_t find(std::size_t node, const std::string& name) const {
    for (std::size_t i = node + 1; i < nodes.size() && (node == 0 || nodes[i].from < nodes[node].end); ++i)
      if (nodes[i].name == name) return i;
    return 0;
  }
  std::vector<std::size_t> all(std::size_t node, const std::string& name) const {
    std::vector<std::size_t> found;
    for (std::size_t i = node + 1; i < nodes.size() && (node == 0 || nodes[i].from < nodes[node].end); ++i)
      if (nodes[i].name == name) found.push_back(i);
    return found;
  }
  /// A property of a struct, as an attribute or as an element.
  std::string value(std::size_t node, const std::string& name) const {
    for (const auto& [key, text] : nodes[node].attributes)
      if (key == name) return text;
    const std::size_t child = find(node, name);
    if (child != 0) return nodes[child].text;
    for (std::size_t i = node + 1; i < nodes.size() && nodes[i].from < nodes[node].end; ++i)
      for (const auto& [key, text] : nodes[i].attributes)
        if (key == name) return text;
    return {};
  }

  std::vector<Node> nodes;  // the first is the text itself

 private:
  static Document& of(void* self) { return *static_cast<Document*>(self); }
  std::size_t at() const { return static_cast<std::size_t>(XML_GetCurrentByteIndex(parser_)); }
  std::size_t after() const { return at() + static_cast<std::size_t>(XML_GetCurrentByteCount(parser_)); }
  static void XMLCALL on_start(void* self, const XML_Char* name, const XML_Char** attributes) {
    Document& d = of(self);
    Node node;
    node.name = name;
    for (; *attributes != nullptr; attributes += 2) node.attributes.emplace_back(attributes[0], attributes[1]);
    node.from = d.at();
    node.inner = d.after();
    node.parent = d.open_.empty() ? 0 : d.open_.back();
    d.nodes[node.parent].children.push_back(d.nodes.size());
    d.open_.push_back(d.nodes.size());
    d.nodes.push_back(std::move(node));
    if (d.open_.size() > most_depth) d.refuse("its elements are nested too deep");
  }
  static void XMLCALL on_end(void* self, const XML_Char*) {
    Document& d = of(self);
    Node& node = d.nodes[d.open_.back()];
    node.inner_end = d.at();
    node.end = d.after();
    d.open_.pop_back();
  }
  static void XMLCALL on_text(void* self, const XML_Char* text, int size) {
    Document& d = of(self);
    if (!d.open_.empty()) d.nodes[d.open_.back()].text.append(text, static_cast<std::size_t>(size));
  }
  static void XMLCALL on_doctype(void* self, const XML_Char*, const XML_Char*, const XML_Char*, int) {
    of(self).refuse("it has a document type, which no XMP has");
  }
  void refuse(const char* why) {
    refused_ = why;
    XML_StopParser(parser_, XML_FALSE);
  }

  XML_Parser parser_ = nullptr;
  std::vector<std::size_t> open_;
  std::string refused_;
};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6f", value);
  return text;
}

constexpr const char* new_sidecar =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<x:xmpmeta xmlns:x=\"adobe:ns:meta/\" x:xmptk=\"facenet\">\n "
    "<rdf:RDF xmlns:rdf=\"" RDF "\">\n </rdf:RDF>\n</x:xmpmeta>\n";

/// An element of the list of regions, with its own namespaces: wherever it stands, it means the same.
std::string region(const XmpFace& f) {
  return "<rdf:li xmlns:rdf=\"" RDF "\" xmlns:mwg-rs=\"" MWG "\" xmlns:stArea=\"" AREA "\" xmlns:facenet=\"" OURS
         "\" rdf:parseType=\"Resource\"><mwg-rs:Name>" +
         escaped(f.name) + "</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type><mwg-rs:Area stArea:x=\"" + number(f.x) +
         "\" stArea:y=\"" + number(f.y) + "\" stArea:w=\"" + number(f.w) + "\" stArea:h=\"" + number(f.h) +
         "\" stArea:unit=\"normalized\"/><mwg-rs:Extensions rdf:parseType=\"Resource\"><facenet:Face>" + f.uuid +
         "</facenet:Face></mwg-rs:Extensions></rdf:li>";
}

std::string item(const std::string& text) { return "<rdf:li xmlns:rdf=\"" RDF "\">" + escaped(text) + "</rdf:li>"; }

/// A list of words that photograph programs read, and how a person is called there.
struct Keywords {
  const char *name, *tag, *prefix, *uri, *list;
  char separator;  // of "People" and the name; 0: the name alone
};
constexpr Keywords keywords[] = {
    {DC " subject", "dc:subject", "dc", DC, "Bag", 0},
    {DIGIKAM " TagsList", "digiKam:TagsList", "digiKam", DIGIKAM, "Seq", '/'},
    {LIGHTROOM " hierarchicalSubject", "lr:hierarchicalSubject", "lr", LIGHTROOM, "Bag", '|'},
};
std::string called(const Keywords& k, const std::string& name) {
  if (k.separator == 0) return name;
  // A name with the separator in it would be two levels.
  return name.find_first_of("/|") != std::string::npos ? "" : std::string("People") + k.separator + name;
}

/// A change of a text: these bytes become those. None overlap.
struct Edit {
  std::size_t from, end;
  std::string text;
};
std::string applied(const std::string& text, std::vector<Edit> edits) {
  std::stable_sort(edits.begin(), edits.end(), [](const Edit& a, const Edit& b) { return a.from < b.from; });
  std::string out;
  std::size_t at = 0;
  for (const Edit& e : edits) {
    if (e.from < at) continue;  // inside of what goes
    out += text.substr(at, e.from - at) + e.text;
    at = e.end;
  }
  return out + text.substr(at);
}

constexpr const char* bag_names[] = {RDF " Bag", RDF " Seq", RDF " Alt"};
std::size_t list_of(const Document& d, std::size_t property) {
  for (const std::size_t child : d.nodes[property].children)
    for (const char* name : bag_names)
      if (d.nodes[child].name == name) return child;
  return 0;
}
std::size_t list_of_regions(const Document& d) {
  const std::size_t regions = d.find(0, MWG " RegionList");
  return regions == 0 ? 0 : list_of(d, regions);
}

bool is_ours(const Document& d, std::size_t item) { return d.find(item, OURS " Face") != 0; }

/// Whether nothing stands in the description but what we wrote.
bool all_ours(const Document& d, std::size_t description) {
  for (const auto& [key, text] : d.nodes[description].attributes)
    if (key != RDF " about") return false;
  for (const std::size_t child : d.nodes[description].children) {
    const Node& n = d.nodes[child];
    if (n.name == MWG " Regions") {
      for (const std::size_t li : d.all(child, RDF " li"))
        if (!is_ours(d, li)) return false;
      continue;
    }
    const bool keyword =
        std::any_of(std::begin(keywords), std::end(keywords), [&](const Keywords& k) { return n.name == k.name; });
    if (!keyword && n.name.rfind(OURS, 0) != 0) return false;
  }
  return true;
}

std::optional<std::string> cleaned(const std::string& old, std::string& wrong) {
  Document d;
  if (!d.parse(old, wrong)) return {};
  std::vector<Edit> edits;
  const auto remove = [&](std::size_t node) { edits.push_back({d.nodes[node].from, d.nodes[node].end, ""}); };
  // What we added to lists is named in our own description: another program may have made one list of all since.
  std::set<std::string> added;
  for (const std::size_t list : d.all(0, OURS " Added"))
    for (const std::size_t li : d.all(list, RDF " li")) added.insert(d.nodes[li].text);
  std::set<std::size_t> whole;
  for (const std::size_t mark : d.all(0, OURS " Version")) {
    const std::size_t description = d.nodes[mark].parent;
    if (all_ours(d, description)) {
      whole.insert(description);
      remove(description);
    } else {
      for (const std::size_t child : d.nodes[description].children)
        if (d.nodes[child].name.rfind(OURS, 0) == 0) remove(child);
    }
  }
  const std::size_t regions = list_of_regions(d);
  if (regions != 0)
    for (const std::size_t li : d.nodes[regions].children)
      if (is_ours(d, li)) remove(li);
  for (const Keywords& k : keywords)
    for (const std::size_t property : d.all(0, k.name)) {
      const std::vector<std::size_t> items = d.all(property, RDF " li");
      const auto ours = [&](std::size_t li) { return added.count(std::string(k.tag) + " " + d.nodes[li].text) != 0; };
      if (!items.empty() && std::all_of(items.begin(), items.end(), ours)) {
        remove(property);
        continue;
      }
      for (const std::size_t li : items)
        if (ours(li)) remove(li);
    }
  const std::string clean = applied(old, edits);
  return clean == new_sidecar ? std::string() : clean;
}

struct Rectangle {
  double x, y, w, h;
};
double overlap(const Rectangle& a, const Rectangle& b) {
  const auto common = [](double c1, double s1, double c2, double s2) {
    return std::max(0.0, std::min(c1 + s1 / 2, c2 + s2 / 2) - std::max(c1 - s1 / 2, c2 - s2 / 2));
  };
  const double both = common(a.x, a.w, b.x, b.w) * common(a.y, a.h, b.y, b.h);
  const double either = a.w * a.h + b.w * b.h - both;
  return either > 0 ? both / either : 0;
}

}  // namespace

bool can_read_xmp() { return true; }

std::optional<std::string> without_regions(const std::string& old, std::string& wrong) {
  return old.empty() ? std::optional<std::string>(old) : cleaned(old, wrong);
}

std::optional<std::string> with_regions(const std::string& old, const XmpRegions& regions, std::string& wrong) {
  std::optional<std::string> clean = without_regions(old, wrong);
  if (!clean || regions.faces.empty()) return clean;
  if (clean->empty()) *clean = new_sidecar;
  Document d;
  if (!d.parse(*clean, wrong)) return {};
  const std::size_t rdf = d.find(0, RDF " RDF");
  const auto is_empty_tag = [&](std::size_t node) { return d.nodes[node].inner_end == d.nodes[node].end; };
  if (rdf == 0 || is_empty_tag(rdf)) return wrong = "there is no XMP in it", std::nullopt;

  std::vector<Edit> edits;
  std::string items, block;
  const std::size_t there = d.find(0, MWG " Regions"), list = list_of_regions(d);
  if (there != 0 && (list == 0 || is_empty_tag(list)))
    return wrong = "its list of regions is written in a way that is not known here", std::nullopt;
  std::vector<Rectangle> others;
  if (list != 0)
    for (const std::size_t li : d.nodes[list].children) {
      const auto share = [&](const char* name) { return std::strtod(d.value(li, name).c_str(), nullptr); };
      others.push_back({share(AREA " x"), share(AREA " y"), share(AREA " w"), share(AREA " h")});
    }
  std::set<std::string> names;
  for (const XmpFace& f : regions.faces) {
    constexpr double same = 0.4;
    const bool covered = std::any_of(others.begin(), others.end(), [&](const Rectangle& other) {
      return overlap({f.x, f.y, f.w, f.h}, other) >= same;
    });
    if (covered) continue;
    items += region(f);
    names.insert(f.name);
  }
  if (items.empty()) return clean;
  if (list != 0)
    edits.push_back({d.nodes[list].inner_end, d.nodes[list].inner_end, items});
  else
    block += "<mwg-rs:Regions rdf:parseType=\"Resource\"><mwg-rs:AppliedToDimensions stDim:w=\"" +
             std::to_string(regions.width) + "\" stDim:h=\"" + std::to_string(regions.height) +
             "\" stDim:unit=\"pixel\"/><mwg-rs:RegionList><rdf:Bag>" + items +
             "</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>";
  std::string added;
  for (const Keywords& k : keywords) {
    const std::size_t property = d.find(0, k.name), words = property == 0 ? 0 : list_of(d, property);
    if (property != 0 && (words == 0 || is_empty_tag(words))) continue;  // left as it is
    std::set<std::string> known;
    if (words != 0)
      for (const std::size_t li : d.nodes[words].children) known.insert(d.nodes[li].text);
    std::string fresh;
    for (const std::string& name : names) {
      const std::string word = called(k, name);
      if (word.empty() || known.count(word) != 0) continue;
      fresh += item(word);
      added += item(std::string(k.tag) + " " + word);
    }
    if (fresh.empty()) continue;
    if (words != 0)
      edits.push_back({d.nodes[words].inner_end, d.nodes[words].inner_end, fresh});
    else
      block += std::string("<") + k.tag + "><rdf:" + k.list + ">" + fresh + "</rdf:" + k.list + "></" + k.tag + ">";
  }
  if (!added.empty()) block += "<facenet:Added><rdf:Bag>" + added + "</rdf:Bag></facenet:Added>";
  std::string spaces;
  for (const Keywords& k : keywords) spaces += std::string(" xmlns:") + k.prefix + "=\"" + k.uri + "\"";
  const std::string description = "<rdf:Description xmlns:rdf=\"" RDF "\" rdf:about=\"\" xmlns:mwg-rs=\"" MWG
                                  "\" xmlns:stDim=\"" DIMENSIONS "\" xmlns:facenet=\"" OURS "\"" +
                                  spaces + "><facenet:Version>1</facenet:Version>" + block + "</rdf:Description>";
  edits.push_back({d.nodes[rdf].inner_end, d.nodes[rdf].inner_end, description});
  return applied(*clean, edits);
}

#endif

}  // namespace command
