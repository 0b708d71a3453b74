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

/// Queries and a filled cache; positions behind the last one stay NaN.
class Input {
 public:
  Input(const Case& c, std::uint64_t seed, float spread = 1.0F)
      : case_(c), cache_(c.n_kv_heads, c.dim, c.positions() + 16, c.type), q_stride_(c.width() + 3) {
    testing_support::Random random(seed);
    q_ = random.normals(c.m * q_stride_);
    for (float& q : q_) q *= spread;
    const std::int64_t kv_width = c.n_kv_heads * c.dim;
    const std::vector<float> k = random.normals(c.positions() * kv_width);
    const std::vector<float> v = random.normals(c.positions() * kv_width);
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
        const KvType type = kKvTypes[static_cast<std::size_t>(turn % 5 % 3)];
        cases.push_back({m, first, turn % 3 == 0 ? 4 : 2, turn % 2 == 0 ? 2 : 1, dim, type, turn % 4 != 0});
      }
    }
  }
  return cases;
}

// A score carries D + 1 roundings, and one more for an int8 key's scale; the largest score moves by as much. A weight
// carries that, the rounding of the shifted score, exp (2 roundings), an int8 value's scale, and one rescaling per
// block of 64; sums of weights and of weighted values are chains.
double bound_of(const reference::Attention& exact, const Case& c, std::size_t d) {
  const auto blocks = static_cast<double>((exact.seen + kAttentionBlock - 1) / kAttentionBlock);
  const int scaled = c.type == KvType::int8 ? 1 : 0;
  const double score = kRound * static_cast<double>(c.dim + 1 + scaled) * exact.score_magnitude;
  const double weight = 2 * score + kRound * (2 * exact.score_magnitude * (blocks + 1) + 5 * (blocks + 1) + scaled);
  const double chain = kRound * (static_cast<double>(exact.seen) + 3 * blocks + 10);
  return 1.01 * (2 * weight + 2 * chain) * exact.out[d].magnitude + 0x1p-149;
}

class Attention : public KernelTest {};

TEST_P(Attention, StaysWithinTheRoundingErrorOfTheReference) {
  std::uint64_t seed = 0;
  for (const Case& c : all_cases()) {
    if (++seed % 4 != 1) continue;
    const Input input(c, seed);
    GuardedOutput out(c.m, c.width(), c.width() + 5);
    const AttentionArgs args = input.args(out.data(), c.width() + 5);
    attend(table(), c, args, {{0, c.queries()}});
    ASSERT_TRUE(out.written_exactly()) << c.name();
    for (std::int64_t head = 0; head < c.n_heads; ++head) {
      for (std::int64_t m = 0; m < c.m; ++m) {
        const reference::Attention exact = reference::attention(args, head, m);
        for (std::int64_t d = 0; d < c.dim; ++d) {
          const auto i = static_cast<std::size_t>(d);
          ASSERT_NEAR(out.at(m, head * c.dim + d), exact.out[i].value, bound_of(exact, c, i))
              << c.name() << " row " << m;
        }
      }
    }
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
    const Case c{37, 50, 2, 1, 80, type, type != KvType::f16};
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
