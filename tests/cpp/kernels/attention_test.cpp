// Attention: against double precision, grouped heads, causal or not, and the same bits on every table, for every split
// of the rows and every way of cutting a prompt into chunks.
#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/kernel_test.h"
#include "kernels/kv_test.h"
#include "reference/reference.h"
#include "support/random.h"

namespace vila::kernels {
namespace {

using reference::kRound;

struct Case {
  std::int64_t m, first, n_heads, n_kv_heads, dim;
  KvType type;
  bool causal;

  [[nodiscard]] std::string name() const {
    return "m" + std::to_string(m) + " first" + std::to_string(first) + " heads" + std::to_string(n_heads) + "/" +
           std::to_string(n_kv_heads) + " dim" + std::to_string(dim) + " " + name_of(type) + (causal ? " causal" : "");
  }
  [[nodiscard]] std::int64_t positions() const { return first + m; }
  [[nodiscard]] std::int64_t width() const { return n_heads * dim; }
  [[nodiscard]] std::int64_t queries() const { return m * (n_heads / n_kv_heads); }  // of one KV head
};

/// Changes keys and values [positions, Hkv * D] before they go into the cache.
using Change = void (*)(const Case&, std::vector<float>& k, std::vector<float>& v);

/// Queries and a filled cache; positions behind the last one stay NaN.
class Input {
 public:
  Input(const Case& c, std::uint64_t seed, float spread = 1.0F, Change change = nullptr)
      : case_(c), cache_(c.n_kv_heads, c.dim, c.positions() + 16, c.type), q_stride_(c.width() + 3) {
    testing_support::Random random(seed);
    q_ = random.normals(c.m * q_stride_);
    for (float& q : q_) q *= spread;
    const std::int64_t kv_width = c.n_kv_heads * c.dim;
    std::vector<float> k = random.normals(c.positions() * kv_width);
    std::vector<float> v = random.normals(c.positions() * kv_width);
    if (change != nullptr) change(c, k, v);
    compiled_kernels().back()->kv_append({k.data(), v.data(), kv_width, kv_width, 0, cache_.layout},
                                         {0, c.positions()});
  }

  AttentionArgs args(float* out, std::int64_t out_stride) const {
    AttentionArgs p{};
    p.q = q_.data();
    p.out = out;
    p.q_stride = q_stride_;
    p.out_stride = out_stride;
    p.m = case_.m;
    p.n_heads = case_.n_heads;
    p.first_position = case_.first;
    p.n_positions = case_.positions();
    p.cache = cache_.layout;
    p.scale = 1.0F / std::sqrt(static_cast<float>(case_.dim));
    p.causal = case_.causal;
    return p;
  }

 private:
  Case case_;
  TestCache cache_;
  std::int64_t q_stride_;
  std::vector<float> q_;
};

void attend(const KernelTable& table, const Case& c, const AttentionArgs& args, const std::vector<Range>& ranges) {
  for (std::int64_t kv_head = 0; kv_head < c.n_kv_heads; ++kv_head) {
    for (const Range range : ranges) table.attention(args, kv_head, range);
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::int64_t dim : {16, 20, 64, 72, 80, 128, 256}) {
    for (const std::int64_t first : {0, 1, 15, 63, 64, 100}) {
      for (const std::int64_t m : {1, 2, 5, 6, 12, 13, 70}) {
        const auto turn = static_cast<std::int64_t>(cases.size());
        KvType type = kKvTypes[static_cast<std::size_t>(turn % 7 % 4)];
        if (dim > kMaxHeadDimS16 && type == KvType::int16) type = KvType::f32;
        cases.push_back({m, first, turn % 3 == 0 ? 4 : 2, turn % 2 == 0 ? 2 : 1, dim, type, turn % 4 != 0});
      }
    }
  }
  // Every patch of a picture sees every patch; the last pair of positions may be half empty.
  for (const std::int64_t dim : {2, 27, 64, 72, 128}) {
    for (const std::int64_t positions : {1, 63, 65, 729}) {
      const std::int64_t m = std::min<std::int64_t>(positions, 13);
      cases.push_back({m, positions - m, 2, 2, dim, KvType::int16, false});
    }
  }
  return cases;
}

// Rounding to a whole number of steps moves by half a step, and a little more because the factor was rounded before.
constexpr double kHalfStep = 0.502;

// What the weights of an int16 cache add to the error of output d: each is a whole number of steps, 1 / 32767 of the
// highest product of weight and value scale in its tile.
double weight_steps(const reference::Attention& exact, const KvLayout& cache, std::int64_t kv_head, std::size_t d) {
  double sum = 0;
  for (std::int64_t first = 0; first < exact.seen; first += kAttentionBlock) {
    double highest = 0;
    double integers = 0;
    for (std::int64_t position = first; position < std::min(first + kAttentionBlock, exact.seen); ++position) {
      double largest = 0;
      for (std::int64_t i = 0; i < cache.head_dim; ++i) {
        largest = std::max(largest, std::abs(reference::cached_value(cache, kv_head, position, i)));
      }
      if (largest == 0) continue;
      const double scale = largest / 1023;
      highest = std::max(highest, exact.weights[static_cast<std::size_t>(position)] * scale);
      integers += std::abs(reference::cached_value(cache, kv_head, position, static_cast<std::int64_t>(d))) / scale;
    }
    sum += kHalfStep * highest / 32767 * integers;
  }
  return sum;
}

// A score carries D + 1 roundings, and one more for an int8 key's scale; the largest score moves by as much. A weight
// carries that, the rounding of the shifted score, exp (2 roundings), an int8 value's scale, and one rescaling per
// block of 64; sums of weights and of weighted values are chains. With int16 a score carries the steps of the query and
// 7 roundings: of the integer, four to the product of scales, and of score times that; and products of values have the
// steps of their weights, which move with the weights.
double bound_of(const reference::Attention& exact, const Case& c, const KvLayout& cache, std::int64_t kv_head,
                std::size_t d) {
  const auto blocks = static_cast<double>((exact.seen + kAttentionBlock - 1) / kAttentionBlock);
  const int scaled = cache.scaled() ? 1 : 0;
  double score = kRound * static_cast<double>(c.dim + 1 + scaled) * exact.score_magnitude;
  if (c.type == KvType::int16) {
    const double steps = kHalfStep * exact.query_magnitude / 4095 * exact.key_magnitude;
    score = steps + kRound * 7 * (exact.score_magnitude + steps);
  }
  const double weight =
      std::expm1(2 * score + kRound * (2 * exact.score_magnitude * (blocks + 1) + 5 * (blocks + 1) + scaled));
  const double chain = kRound * (static_cast<double>(exact.seen) + 3 * blocks + 10);
  const double bound = 1.01 * (2 * weight + 2 * chain) * exact.out[d].magnitude + 0x1p-149;
  if (c.type != KvType::int16) return bound;
  return bound + (1.01 + 2 * weight) * weight_steps(exact, cache, kv_head, d);
}

void expect_close(const KernelTable& table, const Case& c, const Input& input) {
  GuardedOutput out(c.m, c.width(), c.width() + 5);
  const AttentionArgs args = input.args(out.data(), c.width() + 5);
  attend(table, c, args, {{0, c.queries()}});
  ASSERT_TRUE(out.written_exactly()) << c.name();
  for (std::int64_t head = 0; head < c.n_heads; ++head) {
    const std::int64_t kv_head = head / (c.n_heads / c.n_kv_heads);
    for (std::int64_t m = 0; m < c.m; ++m) {
      const reference::Attention exact = reference::attention(args, head, m);
      for (std::int64_t d = 0; d < c.dim; ++d) {
        const auto i = static_cast<std::size_t>(d);
        ASSERT_NEAR(out.at(m, head * c.dim + d), exact.out[i].value, bound_of(exact, c, args.cache, kv_head, i))
            << c.name() << " row " << m << " column " << d;
      }
    }
  }
}

class Attention : public KernelTest {};

TEST_P(Attention, StaysWithinTheRoundingErrorOfTheReference) {
  std::uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    if (++seed % 5 != 1 && c.causal) continue;
    expect_close(table(), c, Input(c, seed));
    if (HasFatalFailure()) return;
  }
}

// A few positions a thousand times as large as the others, and a column of that size: the steps of int16 grow with
// them.
TEST_P(Attention, StaysWithinTheBoundWithOutliers) {
  const Change enlarge = [](const Case& c, std::vector<float>& k, std::vector<float>& v) {
    const std::int64_t width = c.n_kv_heads * c.dim;
    for (std::size_t i = 0; i < v.size(); ++i) {
      const auto position = static_cast<std::int64_t>(i) / width;
      if (position % 50 == 7) v[i] *= 1000.0F;
      if (position % 50 == 11) v[i] *= 1e-3F;
      if (position % 50 == 13) k[i] *= 10.0F;
      if (static_cast<std::int64_t>(i) % c.dim == 5) k[i] *= 30.0F;
    }
  };
  for (const KvType type : kKvTypes) {
    const Case c{7, 100, 2, 2, 72, type, false};
    expect_close(table(), c, Input(c, 11, 1.0F, enlarge));
    if (HasFatalFailure()) return;
  }
}

TEST_P(Attention, KeysOrValuesOfZeros) {
  const Change no_keys = [](const Case&, std::vector<float>& k, std::vector<float>&) {
    std::fill(k.begin(), k.end(), 0.0F);
  };
  const Change no_values = [](const Case&, std::vector<float>&, std::vector<float>& v) {
    std::fill(v.begin(), v.end(), 0.0F);
  };
  // The values of the first tile only: it adds nothing, and what other tiles add counts.
  const Change some_values = [](const Case& c, std::vector<float>&, std::vector<float>& v) {
    std::fill_n(v.begin(), kAttentionBlock * c.n_kv_heads * c.dim, 0.0F);
  };
  for (const KvType type : kKvTypes) {
    const Case c{5, 94, 2, 2, 72, type, false};
    for (const Change change : {no_keys, no_values, some_values}) {
      expect_close(table(), c, Input(c, 12, 1.0F, change));
      if (HasFatalFailure()) return;
    }
  }
}

// As large as the integers of int16 and their sums can be: 128 * 4095^2 and 64 * 1023 * 32767, of either sign.
TEST_P(Attention, TheLargestSumsOfInt16DoNotOverflow) {
  for (const float sign : {1.0F, -1.0F}) {
    TestCache cache(1, 128, 64, KvType::int16);
    const std::vector<float> k(64 * 128, sign * 2.0F);
    const std::vector<float> v(64 * 128, sign * 3.0F);
    table().kv_append({k.data(), v.data(), 128, 128, 0, cache.layout}, {0, 64});
    const std::vector<float> q(128, 1.0F);
    std::vector<float> out(128);
    table().attention({q.data(), out.data(), 128, 128, 1, 1, 0, 64, cache.layout, 1.0F, false}, 0, {0, 1});
    for (const float x : out) ASSERT_NEAR(x, sign * 3.0F, 3e-6) << sign;
  }
}

// One position of which a query holds much more than of all others: a wrapped sum would make it the least.
TEST_P(Attention, ALargestScoreOfInt16Wins) {
  TestCache cache(1, 128, 64, KvType::int16);
  std::vector<float> k(64 * 128, -1.0F);
  std::fill_n(k.begin() + 40 * 128, 128, 1.0F);
  testing_support::Random random(13);
  const std::vector<float> v = random.normals(64 * 128);
  table().kv_append({k.data(), v.data(), 128, 128, 0, cache.layout}, {0, 64});
  const std::vector<float> q(128, 1.0F);
  std::vector<float> out(128);
  table().attention({q.data(), out.data(), 128, 128, 1, 1, 0, 64, cache.layout, 1.0F, false}, 0, {0, 1});
  for (std::int64_t d = 0; d < 128; ++d) {
    const auto i = static_cast<std::size_t>(d);
    ASSERT_NEAR(out[i], reference::cached_value(cache.layout, 0, 40, d), 4 * kRound * std::abs(out[i])) << d;
  }
}

TEST_P(Attention, EqualsTheScalarTableBitForBit) {
  std::uint64_t seed = 500;
  for (const Case& c : all_cases()) {
    ++seed;
    const Input input(c, seed, seed % 7 == 0 ? 30.0F : 1.0F);
    GuardedOutput actual(c.m, c.width(), c.width());
    GuardedOutput expected(c.m, c.width(), c.width());
    attend(table(), c, input.args(actual.data(), c.width()), {{0, c.queries()}});
    attend(scalar(), c, input.args(expected.data(), c.width()), {{0, c.queries()}});
    ASSERT_TRUE(same_bits(actual.all(), expected.all())) << c.name();
  }
}

TEST_P(Attention, GivesTheSameBitsUnderEverySplitOfTheRows) {
  for (const KvType type : kKvTypes) {
    const Case c{37, 50, 2, 1, 80, type, type == KvType::f32 || type == KvType::int8};
    const Input input(c, 3);
    GuardedOutput whole(c.m, c.width(), c.width());
    attend(table(), c, input.args(whole.data(), c.width()), {{0, c.queries()}});
    for (const std::vector<Range>& ranges : range_splits(c.queries())) {
      GuardedOutput split(c.m, c.width(), c.width());
      attend(table(), c, input.args(split.data(), c.width()), ranges);
      ASSERT_TRUE(same_bits(split.all(), whole.all())) << c.name();
    }
  }
}

// A prompt in one piece, in chunks of any size, or token by token: later positions are not even in the cache then.
TEST_P(Attention, GivesTheSameBitsHoweverAPromptIsCutIntoChunks) {
  for (const KvType type : kKvTypes) {
    const Case c{150, 0, 4, 2, 64, type, true};
    testing_support::Random random(6);
    const std::int64_t kv_width = c.n_kv_heads * c.dim;
    const std::vector<float> q = random.normals(c.m * c.width());
    const std::vector<float> k = random.normals(c.m * kv_width);
    const std::vector<float> v = random.normals(c.m * kv_width);
    std::vector<float> whole;
    for (const std::int64_t chunk : {150, 64, 37, 13, 1}) {
      TestCache cache(c.n_kv_heads, c.dim, 160, type);
      std::vector<float> out(q.size());
      for (std::int64_t first = 0; first < c.m; first += chunk) {
        const std::int64_t rows = std::min(chunk, c.m - first);
        table().kv_append(
            {k.data() + first * kv_width, v.data() + first * kv_width, kv_width, kv_width, first, cache.layout},
            {0, rows});
        const AttentionArgs args{q.data() + first * c.width(),
                                 out.data() + first * c.width(),
                                 c.width(),
                                 c.width(),
                                 rows,
                                 c.n_heads,
                                 first,
                                 first + rows,
                                 cache.layout,
                                 0.125F,
                                 true};
        attend(table(), c, args, {{0, args.n_queries()}});
      }
      if (whole.empty()) whole = out;
      ASSERT_TRUE(same_bits(out, whole)) << "chunks of " << chunk;
    }
  }
}

// Scores far apart: all the weight on one position, whose value comes out exactly.
TEST_P(Attention, ASingleDominantPositionGivesItsValue) {
  for (const std::int64_t winner : {0, 63, 64, 129}) {
    TestCache cache(1, 32, 144, KvType::f32);
    std::vector<float> k(130 * 32, -1.0F);
    std::fill_n(k.begin() + winner * 32, 32, 1.0F);
    testing_support::Random random(7);
    const std::vector<float> v = random.normals(130 * 32);
    table().kv_append({k.data(), v.data(), 32, 32, 0, cache.layout}, {0, 130});
    const std::vector<float> q(32, 10.0F);
    std::vector<float> out(32);
    table().attention({q.data(), out.data(), 32, 32, 1, 1, 129, 130, cache.layout, 1.0F, true}, 0, {0, 1});
    EXPECT_TRUE(same_bits(out, std::vector<float>(v.begin() + winner * 32, v.begin() + (winner + 1) * 32))) << winner;
  }
}

// Rows of 127 and -127 are exact in int8, with scales of 1: the same bits as in f32.
TEST_P(Attention, Int8OfOneMagnitudeEqualsF32) {
  testing_support::Random random(8);
  std::vector<float> k = random.normals(100 * 32);
  for (float& x : k) x = x < 0 ? -127.0F : 127.0F;  // scale 1
  const std::vector<float> q = random.normals(32);
  std::vector<float> out[2];
  for (const KvType type : {KvType::f32, KvType::int8}) {
    TestCache cache(1, 32, 100, type);
    table().kv_append({k.data(), k.data(), 32, 32, 0, cache.layout}, {0, 100});
    std::vector<float>& result = out[type == KvType::int8 ? 1 : 0];
    result.resize(32);
    table().attention({q.data(), result.data(), 32, 32, 1, 1, 99, 100, cache.layout, 0.01F, true}, 0, {0, 1});
  }
  EXPECT_TRUE(same_bits(out[1], out[0]));
}

TEST_P(Attention, EqualScoresGiveTheMean) {
  TestCache cache(1, 16, 208, KvType::f32);
  const std::vector<float> k(200 * 16, 0.0F);
  std::vector<float> v(200 * 16);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i / 16);  // the position
  table().kv_append({k.data(), v.data(), 16, 16, 0, cache.layout}, {0, 200});
  const std::vector<float> q(16 * 200, 1.0F);
  std::vector<float> out(16 * 200);
  table().attention({q.data(), out.data(), 16, 16, 200, 1, 0, 200, cache.layout, 0.25F, true}, 0, {0, 200});
  for (std::size_t m = 0; m < 200; ++m) EXPECT_EQ(out[16 * m], static_cast<float>(m) / 2) << m;
}

VILA_FOR_EVERY_TABLE(Attention);

}  // namespace
}  // namespace vila::kernels
