// Who is in the pictures of an archive, where photographs are looked at.
#include <memory>

#include "command/cli/sub_command.hpp"
#include "command/engine/archive_tags.hpp"

namespace command {

SubCommand tag_command() {
  const auto o = std::make_shared<ArchiveTags>();
  return {
      "tag", "Write who is in an archive's pictures into XMP sidecars",
      "digiKam, Lightroom and others read names and faces from PHOTO.jpg.xmp (--sidecar stem: PHOTO.xmp): regions as "
      "the\n"
      "Metadata Working Group has them, and keywords. Persons without a name are left out. The pictures are never "
      "written. What\n"
      "else stands in a sidecar stays, and a region of another program is never replaced. --undo takes out what "
      "'tag' wrote.\n\n"
      "Examples:\n"
      "  facenet tag photographs/ --gallery family.gallery --dry-run\n"
      "  facenet tag photographs/ --gallery family.gallery\n"
      "  facenet tag photographs/ --gallery family.gallery --undo\n\n",
      [o](OptionSet& options) {
        options.positional("DIR", o->folders, "Folders that 'facenet people' has looked at").required();
        options.option("-g,--gallery", "FILE", o->gallery, "The gallery of 'facenet people'").required();
        options.option("--sidecar", "WORD", o->sidecar, "full: PHOTO.jpg.xmp (default); stem: PHOTO.xmp")
            .one_of({"full", "stem"});
        options.flag("-n,--dry-run", o->dry_run, "Write nothing, print what would be written");
        options.flag("--undo", o->undo, "Take out what earlier calls wrote");
      },
      [o](bool json) {
        o->json = json;
        return tag_archive(*o);
      }};
}

}  // namespace command
