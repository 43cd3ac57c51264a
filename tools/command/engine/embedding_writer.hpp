// A row for each embedding, as lines or as a NumPy array with an index.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "command/engine/bulk.hpp"
#include "command/io/tree.hpp"

namespace command {

enum class EmbeddingFormat { text, json, csv, npy };

/// By the end of the file's name; text or JSON lines for any other. False for .parquet; reports how to get one.
bool embedding_format(const std::string& out, bool json, EmbeddingFormat& format);

class EmbeddingWriter {
 public:
  EmbeddingWriter() = default;
  EmbeddingWriter(const EmbeddingWriter&) = delete;
  EmbeddingWriter& operator=(const EmbeddingWriter&) = delete;
  virtual ~EmbeddingWriter() = default;
  /// False when the row could not be written, which has been reported; so below.
  virtual bool add(const std::string& picture, int number, const EmbeddedFace& face) = 0;
  /// A picture that has no row: a line where the format is JSON lines, nothing in the others.
  virtual bool add_failed(const std::string& /*picture*/, const std::string& /*sentence*/) { return true; }
  virtual bool add_faceless(const std::string& /*picture*/) { return true; }
  /// Only now the files take their names.
  virtual bool finish(const std::vector<std::string>& without_face, const std::vector<std::string>& failed,
                      const LeftOut& left_out) = 0;
};

/// Begins `out` ("": stdout); null when it cannot be written, which has been reported. `info` is read with the first
/// row. `aligned`: pictures are face crops already.
std::unique_ptr<EmbeddingWriter> begin_embeddings(const std::string& out, EmbeddingFormat format, bool aligned,
                                                  const facenet::ModelInfo& info);

}  // namespace command
