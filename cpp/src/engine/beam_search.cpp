#include "engine/beam_search.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/sampler.h"

namespace vila {
namespace {

struct Beam {
  std::vector<std::int32_t> ids;
  double sum = 0;  // of log probabilities
};

struct Candidate {
  double sum;
  std::size_t beam;
  std::int32_t id;
};

// The num_beams best finished answers.
class Finished {
 public:
  explicit Finished(std::size_t limit) : limit_(limit) {}

  void add(std::vector<std::int32_t> ids, double sum, std::size_t length, bool ended) {
    results_.push_back({std::move(ids), ended, sum / static_cast<double>(length)});
    std::stable_sort(results_.begin(), results_.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    if (results_.size() > limit_) results_.pop_back();
  }
  /// No running beam of this best sum can still beat the worst kept answer.
  [[nodiscard]] bool done(double best_sum, std::size_t length) const {
    return results_.size() >= limit_ && results_.back().score >= best_sum / static_cast<double>(length);
  }
  [[nodiscard]] const BeamSearchResult& best() const { return results_.front(); }

 private:
  std::size_t limit_;
  std::vector<BeamSearchResult> results_;
};

// The 2 * num_beams best continuations of all beams, best first; ties go to the lower beam and id.
std::vector<Candidate> best_candidates(const std::vector<Beam>& beams, const std::vector<std::vector<float>>& logits) {
  const std::size_t wanted = 2 * beams.size();
  std::vector<Candidate> all;
  for (std::size_t b = 0; b < logits.size(); ++b) {
    const double normaliser = log_sum_exp(logits[b]);
    std::vector<std::int32_t> ids(logits[b].size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
    const std::size_t kept = std::min(wanted, ids.size());
    std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end(), [&](auto x, auto y) {
      const float lx = logits[b][static_cast<std::size_t>(x)];
      const float ly = logits[b][static_cast<std::size_t>(y)];
      return lx > ly || (lx == ly && x < y);
    });
    for (std::size_t i = 0; i < kept; ++i) {
      const double logprob = static_cast<double>(logits[b][static_cast<std::size_t>(ids[i])]) - normaliser;
      all.push_back({beams[b].sum + logprob, b, ids[i]});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& x, const Candidate& y) { return x.sum > y.sum; });
  all.resize(std::min(all.size(), wanted));
  return all;
}

}  // namespace

BeamSearchResult beam_search(ExecContext& ctx, const LlamaModel& model, const KvCache& prompt, std::int64_t n_prompt,
                             std::span<const float> first_logits, const BeamSearchOptions& options) {
  const auto n_beams = static_cast<std::size_t>(options.num_beams);
  const auto is_end = [&](std::int32_t id) {
    return std::find(options.end_ids.begin(), options.end_ids.end(), id) != options.end_ids.end();
  };
  // Two sets of caches: the beams of one step read their parents' and write their own.
  std::vector<KvCache> current, next;
  for (std::size_t b = 0; b < n_beams; ++b) {
    for (auto* set : {&current, &next}) {
      set->emplace_back(model.config(), prompt.capacity(), prompt.type());
      set->back().copy_positions(prompt, 0, n_prompt);
    }
  }
  std::vector<Beam> beams(n_beams);
  // All beams are equal at first: only the first may be continued.
  std::vector<std::vector<float>> logits(1, std::vector<float>(first_logits.begin(), first_logits.end()));
  Finished finished(n_beams);
  bool done = false;
  std::size_t length = 0;  // of every running beam
  while (!done && static_cast<std::int64_t>(length) < options.max_new_tokens) {
    const std::vector<Candidate> candidates = best_candidates(beams, logits);
    std::vector<Beam> grown;
    std::vector<std::size_t> parents;
    ++length;
    for (std::size_t rank = 0; rank < candidates.size() && grown.size() < n_beams; ++rank) {
      const Candidate& c = candidates[rank];
      std::vector<std::int32_t> ids = beams[c.beam].ids;
      ids.push_back(c.id);
      if (is_end(c.id)) {
        if (rank < n_beams) finished.add(std::move(ids), c.sum, length, true);
      } else {
        grown.push_back({std::move(ids), c.sum});
        parents.push_back(c.beam);
      }
    }
    done = candidates.empty() || grown.empty() || finished.done(candidates.front().sum, length);
    if (done || static_cast<std::int64_t>(length) == options.max_new_tokens) {
      beams = std::move(grown);
      break;
    }
    // The answer's positions before this token lie at n_prompt .. n_prompt + length - 1 of the parents' caches.
    const auto n_answer = static_cast<std::int64_t>(length) - 1;
    for (std::size_t b = 0; b < grown.size(); ++b) {
      next[b].copy_positions(current[parents[b]], n_prompt, n_prompt + n_answer);
    }
    std::swap(current, next);
    beams = std::move(grown);
    logits.assign(beams.size(), std::vector<float>(static_cast<std::size_t>(model.config().vocab_size)));
    for (std::size_t b = 0; b < beams.size(); ++b) {
      const Workspace::Frame frame(ctx.workspace);
      const Rows x = ctx.workspace.rows(1, model.config().dim);
      model.embed(ctx, {&beams[b].ids.back(), 1}, x);
      model.forward(ctx, current[b].layers(), n_prompt + n_answer, x, x.rows);
      const auto vocab = static_cast<std::int64_t>(logits[b].size());
      model.logits(ctx, x, {logits[b].data(), 1, vocab, vocab});
    }
  }
  if (!done) {
    for (Beam& beam : beams) finished.add(std::move(beam.ids), beam.sum, length, false);
  }
  return finished.best();
}

}  // namespace vila
