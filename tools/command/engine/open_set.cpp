#include "command/engine/open_set.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "command/engine/decision.hpp"

namespace command {

namespace {

constexpr std::size_t most_distances = 20000000;
constexpr double far_away = std::numeric_limits<double>::infinity();

facenet::Interval interval_of(double share, std::size_t trials) {
  return facenet::wilson(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(trials))), trials);
}

}  // namespace

OpenSet::OpenSet(const std::vector<int>& owner) {
  std::map<int, std::size_t> number;
  for (const int person : owner) {
    person_.push_back(number.emplace(person, number.size()).first->second);
    pictures_of_.resize(number.size());
    ++pictures_of_[person_.back()];
  }
  const std::size_t every = owner.size() * persons() / most_distances + 1;
  probes_of_.resize(persons());
  std::vector<std::size_t> seen(persons());
  for (const std::size_t person : person_) {
    const bool looks = seen[person]++ % every == 0;  // so the first of every person does
    probe_.push_back(looks ? owner_.size() : none);
    if (looks) owner_.push_back(person);
    probes_of_[person] += looks;
  }
  nearest_.assign(owner_.size() * persons(), far_away);
}

void OpenSet::pair(std::size_t i, std::size_t k, double distance) {
  if (probe_[i] != none) row(i)[person_[k]] = std::min(row(i)[person_[k]], distance);
  if (probe_[k] != none) row(k)[person_[i]] = std::min(row(k)[person_[i]], distance);
}

double OpenSet::weight(std::size_t probe) const {
  return 1 / static_cast<double>(persons()) / static_cast<double>(probes_of_[owner_[probe]]);
}

double OpenSet::none_drawn(std::size_t wrong, std::size_t n) const {
  double chance = 1;
  for (std::size_t j = 0; j < wrong && chance > 0; ++j) {
    const auto others = static_cast<double>(persons() - 1 - j);
    chance *= std::max(0.0, others - static_cast<double>(n)) / others;
  }
  return chance;
}

double OpenSet::threshold(std::size_t gallery, double fpir) {
  std::vector<Event> events;
  for (std::size_t p = 0; p < owner_.size(); ++p)
    for (std::size_t person = 0; person < persons(); ++person)
      if (person != owner_[p]) events.push_back({nearest_[p * persons() + person], p});
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.distance < b.distance; });

  // Of a gallery that can be drawn `sum` is the FPIR itself, of a larger one the share f of (face, person).
  const double most = (drawn(gallery) ? fpir : chance_of_each(fpir, static_cast<double>(gallery))) * (1 + 1e-12);
  const auto others = static_cast<double>(persons() - 1);
  std::vector<std::size_t> taken(owner_.size());
  std::vector<double> free(owner_.size(), 1);  // how probable it is that nobody of a gallery is taken
  double sum = 0, below = 0;
  for (std::size_t i = 0; i < events.size();) {
    const double distance = events[i].distance;
    for (; i < events.size() && events[i].distance == distance; ++i) {
      const std::size_t p = events[i].probe;
      if (drawn(gallery)) {
        const double left = others - static_cast<double>(taken[p]++);
        const double still = free[p] * std::max(0.0, left - static_cast<double>(gallery)) / left;
        sum += weight(p) * (free[p] - still);
        free[p] = still;
      } else {
        sum += weight(p) / others;
      }
    }
    if (sum > most) {
      const double middle = below + (distance - below) / 2;
      return distance == 0 ? -1 : middle < distance ? middle : below;
    }
    below = distance;
  }
  return below;  // not reached for an FPIR below 1: when all are accepted it is 1
}

OpenSetRates OpenSet::at(double threshold, std::size_t gallery) const {
  const auto others = static_cast<double>(persons() - 1);
  double fpir = 0, share = 0, miss = 0, with_several = 0;
  std::size_t several = 0;
  for (const std::size_t pictures : pictures_of_) several += pictures > 1;
  for (std::size_t p = 0; p < owner_.size(); ++p) {
    const double* const d = &nearest_[p * persons()];
    const double own = d[owner_[p]];
    std::size_t taken = 0, nearer = 0;
    for (std::size_t person = 0; person < persons(); ++person) {
      if (person == owner_[p]) continue;
      taken += d[person] <= threshold;
      nearer += d[person] < own;
    }
    share += weight(p) * static_cast<double>(taken) / others;
    if (drawn(gallery)) fpir += weight(p) * (1 - none_drawn(taken, gallery));
    if (pictures_of_[owner_[p]] < 2) continue;  // there is nothing of theirs to find
    const std::size_t company = gallery - 1;
    const double first = drawn(company)
                             ? none_drawn(nearer, company)
                             : std::pow(1 - static_cast<double>(nearer) / others, static_cast<double>(company));
    with_several += weight(p);
    miss += weight(p) * (own <= threshold ? 1 - first : 1);
  }
  OpenSetRates rates{};
  rates.fnir = with_several > 0 ? miss / with_several : 1;
  rates.fnir_interval = interval_of(rates.fnir, several);
  if (drawn(gallery)) {
    rates.fpir = fpir;
    rates.fpir_interval = interval_of(fpir, persons());
  } else {
    const facenet::Interval f = interval_of(share, persons() * (persons() - 1) / 2);
    const auto n = static_cast<double>(gallery);
    rates.fpir = chance_of_any(share, n);
    rates.fpir_interval = {chance_of_any(f.low, n), chance_of_any(f.high, n)};
  }
  return rates;
}

OpenSetNeeds needs_of(std::size_t gallery, double fpir) {
  OpenSetNeeds needs{};
  needs.pairs = static_cast<std::size_t>(facenet::impostors_needed(chance_of_each(fpir, static_cast<double>(gallery))));
  const double for_pairs = std::ceil(0.5 + std::sqrt(0.25 + 2 * static_cast<double>(needs.pairs)));
  needs.persons =
      std::max(static_cast<std::size_t>(for_pairs), static_cast<std::size_t>(facenet::impostors_needed(fpir)));
  return needs;
}

}  // namespace command
