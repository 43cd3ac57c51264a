// Pages to look at the people of an archive: a folder of static files that a browser opens without a server.
#pragma once

#include <string>

namespace command {

struct ArchivePages {
  std::string gallery, folder;
  int threads = 0;
  bool json = false;
};

/// Thumbnails that are there are left; what is of no face any more is removed. Returns an ExitStatus.
int write_archive_pages(const ArchivePages& options);

}  // namespace command
