#include "command/engine/embedding_writer.hpp"

#include <cstdio>
#include <filesystem>

#include "facenet/base/hash.hpp"
#include "command/io/json.hpp"
#include "command/io/output.hpp"

namespace command {

namespace {

std::string digits(float value) {
  char text[24];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

bool ends_with(const std::string& text, const char* end) {
  const std::string e = end;
  return text.size() > e.size() && text.compare(text.size() - e.size(), e.size(), e) == 0;
}

/// RFC 4180: quotes where a comma, a quote, the end of a line or a space at an end is inside. A reader gets the name as
/// it is, byte for byte, so it is not escaped().
std::string csv_field(const std::string& text) {
  const bool bare = text.find_first_of(",\"\r\n\t") == std::string::npos && !text.empty() && text.front() != ' ' &&
                    text.back() != ' ';
  if (bare) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

/// What JSON lines and the index say of a face, before and after the embedding.
Json place(const std::string& picture, int number, const EmbeddedFace& face, bool aligned) {
  Json j;
  j["image"] = picture;
  j["face"] = number;
  j.update(face_json(face.face, face.quality, aligned));
  return j;
}

class LineWriter : public EmbeddingWriter {
 public:
  LineWriter(EmbeddingFormat format, bool aligned, const facenet::ModelInfo& info)
      : format_(format), aligned_(aligned), info_(info) {}
  bool open(const std::string& path) { return out_.open(path); }

  bool add(const std::string& picture, int number, const EmbeddedFace& face) override {
    if (format_ == EmbeddingFormat::csv) return head() && out_.verbatim(as_csv(picture, number, face));
    return format_ == EmbeddingFormat::json ? out_.line(as_json(picture, number, face))
                                            : out_.row(as_fields(picture, number, face));
  }
  bool add_failed(const std::string& picture, const std::string& sentence) override {
    return format_ != EmbeddingFormat::json || out_.line(line(failed_picture(picture, sentence)));
  }
  bool add_faceless(const std::string& picture) override {
    return format_ != EmbeddingFormat::json || out_.line(line(faceless_picture(picture)));
  }
  bool finish(const std::vector<std::string>&, const std::vector<std::string>&, const LeftOut&) override {
    return head() && out_.finish();
  }

 private:
  /// CSV's first line; there too where no picture has a face.
  bool head() {
    if (format_ != EmbeddingFormat::csv || headed_) return true;
    headed_ = true;
    std::string names = "image,face,x0,y0,x1,y1,score,model";
    for (int i = 0; i < info_.embedding_dim; ++i) names += ",e" + std::to_string(i);
    return out_.line(names);
  }
  std::string as_csv(const std::string& picture, int number, const EmbeddedFace& face) const {
    std::string row = csv_field(picture) + "," + std::to_string(number);
    const facenet::Box& b = face.face.box;
    for (const float v : {b.x0, b.y0, b.x1, b.y1, face.face.score}) row += "," + digits(v);
    row += std::string(",") + info_.digest;
    for (const float v : face.embedding) row += "," + digits(v);
    return row;
  }
  std::string as_json(const std::string& picture, int number, const EmbeddedFace& face) const {
    Json j = place(picture, number, face, aligned_);
    j["embedding"] = face.embedding;
    j["model"] = info_.digest;
    j["trained"] = info_.trained;
    return line(j);
  }
  /// Name, number of the face, the embedding's numbers separated by spaces.
  static std::vector<std::string> as_fields(const std::string& picture, int number, const EmbeddedFace& face) {
    std::string numbers;
    for (std::size_t i = 0; i < face.embedding.size(); ++i) numbers += (i == 0 ? "" : " ") + digits(face.embedding[i]);
    return {picture, std::to_string(number), numbers};
  }

  EmbeddingFormat format_;
  bool aligned_;
  const facenet::ModelInfo& info_;
  Output out_;
  bool headed_ = false;
};

/// X.npy (float32, rows x dim), X.index.jsonl (a line for each row) and X.model.json (what made them). The array takes
/// its name last, and X.model.json holds its hash: files of two runs do not pass for one.
class NumpyWriter : public EmbeddingWriter {
 public:
  NumpyWriter(bool aligned, const facenet::ModelInfo& info) : aligned_(aligned), info_(info) {}

  bool open(const std::string& path) {
    path_ = path;
    base_ = path.substr(0, path.size() - 4);
    const int error = file_.open(path);
    if (error != 0) return say_unwritable(path, error);
    return index_.open(base_ + ".index.jsonl") && put(header());  // a place for the number of rows
  }

  bool add(const std::string& picture, int number, const EmbeddedFace& face) override {
    Json j = place(picture, number, face, aligned_);
    j["model"] = info_.digest;
    const std::size_t bytes = face.embedding.size() * sizeof(float);
    hash_.update(face.embedding.data(), bytes);
    ++rows_;
    return put(std::string(reinterpret_cast<const char*>(face.embedding.data()), bytes)) && index_.line(line(j));
  }

  bool finish(const std::vector<std::string>& without_face, const std::vector<std::string>& failed,
              const LeftOut& left_out) override {
    char hash[17];
    facenet::to_hex(hash_.digest(), hash);
    Json j;
    j["format"] = "facenet-embeddings";
    j["version"] = 1;
    j["model"] = info_.digest;
    j["architecture"] = info_.architecture;
    j["trained"] = info_.trained;
    j["dim"] = info_.embedding_dim;
    j["normalise"] = info_.normalise == facenet::Normalise::l2 ? "l2" : "none";
    j["threshold"] = static_cast<float>(info_.threshold);
    if (info_.threshold_source[0] != 0) j["threshold_source"] = info_.threshold_source;
    j["rows"] = rows_;
    j["data_xxh64"] = hash;
    j["index"] = std::filesystem::path(base_ + ".index.jsonl").filename().string();
    j["without_face"] = without_face;
    j["failed"] = failed;
    j["left_out"] = left_out.json();
    if (failed_ || !index_.finish()) return false;
    const std::string first = header();
    int error = file_.write_at(0, first.data(), first.size());
    if (error != 0) return say_unwritable(path_, error);
    error = write_file(base_ + ".model.json", line(j) + "\n");
    if (error != 0) return say_unwritable(base_ + ".model.json", error);
    error = file_.commit();
    return error == 0 || say_unwritable(path_, error);
  }

 private:
  /// NumPy's format 1.0, padded to 128 bytes, which hold any number of rows.
  std::string header() const {
    constexpr std::size_t bytes = 128;
    std::string text("\x93NUMPY\x01\x00\x76\x00", 10);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    const char* type = ">f4";
#else
    const char* type = "<f4";
#endif
    text += std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (" + std::to_string(rows_) + ", " +
            std::to_string(info_.embedding_dim) + "), }";
    text.resize(bytes - 1, ' ');
    return text + '\n';
  }
  bool put(const std::string& bytes) {
    if (failed_) return false;
    const int error = file_.write(bytes.data(), bytes.size());
    failed_ = error != 0 && !say_unwritable(path_, error);
    return !failed_;
  }

  bool aligned_;
  const facenet::ModelInfo& info_;
  std::string path_, base_;
  NewFile file_;
  Output index_;
  facenet::Xxh64 hash_;
  std::uint64_t rows_ = 0;
  bool failed_ = false;
};

}  // namespace

bool embedding_format(const std::string& out, bool json, EmbeddingFormat& format) {
  format = json || ends_with(out, ".jsonl") ? EmbeddingFormat::json : EmbeddingFormat::text;
  if (ends_with(out, ".csv")) format = EmbeddingFormat::csv;
  if (ends_with(out, ".npy")) format = EmbeddingFormat::npy;
  if (!ends_with(out, ".parquet")) return true;
  say(out + ": Parquet is made in a second step; write X.npy, then run tools/npy_to_parquet.py X.npy.");
  return false;
}

std::unique_ptr<EmbeddingWriter> begin_embeddings(const std::string& out, EmbeddingFormat format, bool aligned,
                                                  const facenet::ModelInfo& info) {
  if (format == EmbeddingFormat::npy) {
    auto rows = std::make_unique<NumpyWriter>(aligned, info);
    return rows->open(out) ? std::move(rows) : nullptr;
  }
  auto rows = std::make_unique<LineWriter>(format, aligned, info);
  return rows->open(out) ? std::move(rows) : nullptr;
}

}  // namespace command
