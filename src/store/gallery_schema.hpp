// The tables of a gallery: schema 2, and how one of schema 1 becomes it. docs/galleries.md explains them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/database.hpp"

namespace command {

constexpr std::int64_t gallery_application_id = 0x464e4554;  // "FNET"
constexpr std::int64_t gallery_schema_version = 2;

/// A table and its columns, in order, but for the checksum of them.
struct GalleryTable {
  const char *name, *columns;
};
constexpr GalleryTable gallery_tables[] = {
    {"meta", "id, model, architecture, embedding_dim, trained, normalise, image_size, crop, margin, detector"},
    {"person", "id, name, named"},
    {"template", "id, uuid, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding"},
    {"picture", "template, bytes"},
    {"decision", "id, template, person, verdict, decided"},
    {"file", "id, path, sha256, bytes, modified, settings, faces, problem, looked"},
};

/// "row_checksum(…)" of a table's columns, each with the table's name before it.
std::string checksum_of(const std::string& table);

/// Inside of a transaction, in a file without tables. Sets application_id and user_version.
void create_gallery_tables(Database& database);
/// Whether the tables and columns of that version are there: a file of another make may hold a view or a computed
/// column of the same name.
bool has_gallery_tables(Database& database, std::int64_t version);
/// The tables and indexes whose definition is not what create_gallery_tables() writes.
std::vector<std::string> changed_definitions(Database& database);
/// Inside of a transaction: every row of schema 1 becomes one of schema 2, with its id.
void migrate_gallery_from_1(Database& database);

}  // namespace command
