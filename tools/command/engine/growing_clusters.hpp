// The persons of an archive that grows: each new face joins one of them or begins a new one, and what was sorted stays
// sorted unless the new faces say otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "facenet/gallery.hpp"

namespace command {

struct GrowingOptions {
  double threshold = 1.1;  // the distance up to which two faces are neighbours
  double margin = 0;       // two named persons less than this apart for a face: it gets neither's name
  bool collages = false;   // faces of one picture may be one person's
  int threads = 0;         // 0: as many as there are CPUs
};

/// Chinese whispers (cluster.hpp) that begins with the persons there are, and looks at new faces and at those around
/// them only. A face takes the person that most of its nearest neighbours have, up to `most_neighbours` of them; of
/// several the one with the smallest number. Whom that leaves with another person than a neighbour's, that neighbour is
/// looked at again, until nothing changes. What somebody decided is a rule, not a vote:
/// - a face that is settled stays, and so does each face of a person who has a name;
/// - a face never takes a person it was said not to be;
/// - two faces of one picture are never one person's; the nearer one has the person;
/// - a face between two named persons, nearer than the margin, takes neither.
/// The result depends on the order in which faces came, but not on the number of threads. For one thread at a time.
class GrowingClusters {
 public:
  using Slot = std::uint32_t;   // a face
  using Person = std::int64_t;  // above 0 those of a gallery, below 0 new ones
  static constexpr int most_neighbours = 128;

  /// Errors: invalid_argument, out_of_memory.
  static facenet::Result<GrowingClusters> make(int dim, const GrowingOptions& options);

  /// A person whom somebody has named: takes faces, and gives none away.
  void set_named(Person person) { named_.insert(person); }
  /// A face of `person`; 0: nobody's yet, settle() decides. `picture` is equal for faces of one picture. `settled`: it
  /// was said whose it is. Errors: as facenet::Gallery::add().
  facenet::Status add(Person person, std::uint64_t picture, bool settled, facenet::Span<const float> embedding,
                      Slot& slot);
  /// The face is not that person.
  void refuse(Slot slot, Person person) { refused_.insert({slot, person}); }
  /// Another picture of the same face.
  facenet::Status renew(Slot slot, std::uint64_t picture, facenet::Span<const float> embedding);
  void remove(Slot slot);

  /// Finds persons for these faces, and looks again at others where that calls for it. Every face whose person changed
  /// is in `moved`, once. Errors: out_of_memory.
  facenet::Status settle(const std::vector<Slot>& faces, std::vector<Slot>& moved);
  Person person(Slot slot) const { return faces_[slot].person; }
  /// New persons have got numbers.
  void renumber(const std::map<Person, Person>& numbers);
  /// False where it was removed.
  bool embedding(Slot slot, facenet::Span<float> into) const { return index_.get(slot, into).ok(); }
  std::size_t size() const { return index_.size(); }

 private:
  struct Face {
    Person person;
    std::uint64_t picture;
    bool settled, fresh;  // fresh: of this settle()
    bool there;
  };
  struct Neighbour {
    Slot slot;
    float distance;
  };
  struct Neighbours {
    std::vector<Neighbour> list;  // the nearest first
    bool cut_short = false;       // there may be more within reach
  };

  bool movable(Slot slot) const;
  facenet::Status find_neighbours(const std::vector<Slot>& faces);
  const Neighbours& neighbours(Slot slot) const { return near_.at(slot); }
  /// Two named persons stand within the margin of the face.
  bool between_names(Slot slot);
  /// The face of the same picture that has this person, or `slot` itself where none has.
  Slot rival(Slot slot, Person person) const;
  facenet::Status distance_to(Slot slot, Person person, float& distance);
  facenet::Status choose(Slot slot, Person& person, Slot& evicted);
  void give(Slot slot, Person person, std::vector<Slot>& moved);

  GrowingOptions options_;
  facenet::Gallery index_;  // its ids are slots
  std::vector<Face> faces_;
  std::unordered_map<std::uint64_t, std::vector<Slot>> pictures_;
  std::set<Person> named_;
  std::set<std::pair<Slot, Person>> refused_;
  std::unordered_map<Slot, Neighbours> near_;  // during settle()
  std::set<Slot> moved_;                       // during settle()
  Person next_ = -1;
};

}  // namespace command
