// Pieces of HTML pages that need no other file and no script.
#pragma once

#include <string>

#include "facenet/embedder.hpp"
#include "command/engine/faces.hpp"

namespace command {

/// Text of others for between tags and inside quoted attributes: escaped() as on a terminal, then as HTML.
std::string escape(const std::string& text);

/// "1 face", "2 faces"
std::string count(std::size_t number, const std::string& what);

/// printf's %.*g.
std::string number(double value, int digits = 4);

/// <img> of a face as the embedder sees it, cut out of its picture again; a grey square where that cannot be read.
std::string face_image(const std::string& picture, const facenet::Face& face, bool aligned,
                       const facenet::ModelInfo& model, const std::string& alt);

/// The whole page. `body` goes in as it is.
std::string page(const std::string& title, const std::string& lead, const std::string& body,
                 const facenet::ModelInfo& model);

}  // namespace command
