// A gallery as JSON: what the command prints of it, and the lines that carry it elsewhere.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "command/io/json.hpp"
#include "store/gallery_store.hpp"

namespace command {

Json as_json(const GalleryModel& model);
/// Without its embedding.
Json as_json(const Template& face);

/// The lines of an exported gallery, without their ends: the model's, a template's, and one of a person without any.
std::string export_head(const GalleryModel& model);
std::string export_line(const Template& face);
std::string export_line(const Person& person);

/// The lines of an exported gallery, all read before the first is used and each checked completely. What is wrong is a
/// DatabaseError that names the line.
class GalleryLines {
 public:
  /// "": standard input.
  explicit GalleryLines(const std::string& file);
  /// From memory, which must outlive it. `shown`: what sentences call it.
  GalleryLines(std::string_view lines, std::string shown);

  const GalleryModel& model() const { return model_; }
  std::vector<Template> templates();
  /// Those that have no templates; and the line of the template that was read as number `at`.
  const std::vector<std::string>& persons() const { return persons_; }
  std::size_t line_of(std::size_t at) const { return lines_[at]; }
  [[noreturn]] void refuse(std::size_t number, const std::string& why) const;

 private:
  struct Close {
    void operator()(std::FILE* file) const {
      if (file != stdin) std::fclose(file);
    }
  };

  /// False after the last.
  bool next(Template& t);
  void read_head();
  /// One line as an object; false at the end.
  bool parse(Json& j);
  const Json& member(const Json& j, const char* key) const;
  std::string text(const Json& j, const char* key) const;
  std::int64_t integer(const Json& j, const char* key, std::int64_t least) const;
  double number(const Json& value, const char* key) const;
  std::vector<float> numbers(const Json& j, const char* key, std::size_t count) const;
  [[noreturn]] void refuse(const std::string& why) const { refuse(number_, why); }
  [[noreturn]] void refuse_key(const char* key) const;
  [[noreturn]] void refuse_file(const std::string& why) const;

  std::string shown_;
  std::unique_ptr<std::FILE, Close> file_;
  std::size_t number_ = 0;
  GalleryModel model_;
  std::vector<std::string> persons_;
  std::vector<std::size_t> lines_;
};

}  // namespace command
