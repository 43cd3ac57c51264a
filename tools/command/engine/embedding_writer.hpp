// A row for each embedding, as lines or as a NumPy array with an index.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bulk.hpp"

namespace command {

enum class RowFormat { text, json, csv, npy };

/// By the end of the file's name; text or JSON lines for any other. False for .parquet, with the way to get one said.
bool row_format(const std::string& out, bool json, RowFormat& format);

class Rows {
 public:
  Rows() = default;
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  virtual ~Rows() = default;
  /// False when the row could not be written, which has been said; so below.
  virtual bool add(const std::string& picture, int number, const EmbeddedFace& face) = 0;
  /// Only now the files take their names.
  virtual bool finish(const std::vector<std::string>& without_face, const std::vector<std::string>& failed) = 0;
};

/// Begins `out` ("": stdout); null when it cannot be written, which has been said. `info` is read with the first row.
std::unique_ptr<Rows> begin_rows(const std::string& out, RowFormat format, const facenet::ModelInfo& info);

}  // namespace command
