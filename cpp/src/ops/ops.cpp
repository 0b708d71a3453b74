#include "ops/ops.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace vila::ops {
namespace {

using kernels::Range;

// Below this many elements a parallel region costs more than it saves.
constexpr std::int64_t kInlineElements = 16 * 1024;

// Below this many rows a product is bound by memory.
constexpr std::int64_t kFewRows = 4;

template <class F>
void for_rows(ExecContext& ctx, std::int64_t rows, std::int64_t cols, F&& f) {
  if (rows * cols <= kInlineElements) {
    f(Range{0, rows});
    return;
  }
  const std::int64_t pieces = 4 * ctx.pool.size();
  ctx.pool.parallel_for(rows, std::max<std::int64_t>(1, (rows + pieces - 1) / pieces),
                        [&](std::int64_t begin, std::int64_t end) {
                          f(Range{begin, end});
                        });
}

bool takes_head_dim(const kernels::KvLayout& cache) {
  return cache.head_dim <= (cache.type == kernels::KvType::int16 ? kernels::kMaxHeadDimS16 : kMaxHeadDim);
}

bool same_shape(const Rows& a, const Rows& b) { return a.rows == b.rows && a.cols == b.cols; }

}  // namespace

void Activations::quantize(const WeightFormat& format) {
  const std::int64_t group = format.group_columns(x_.cols);
  const std::int64_t k_padded = format.padded_k(x_.cols);
  if (group_ == group && k_padded_ == k_padded) return;
  group_ = group;
  k_padded_ = k_padded;
  a_group_ = format.group > 0 ? kernels::kActivationGroup : group;
  const std::int64_t groups = k_padded / a_group_;
  q_ = ctx_.workspace.allocate<std::int8_t>(x_.rows * k_padded);
  scale_ = ctx_.workspace.allocate<float>(x_.rows * groups);
  sum_ = ctx_.workspace.allocate<std::int32_t>(x_.rows * groups);
  weighted_ = ctx_.workspace.allocate<float>(x_.rows * (k_padded / group));
  const kernels::QuantizeArgs args{x_.data, x_.stride, q_, scale_, sum_, weighted_, x_.cols, k_padded, a_group_, group};
  for_rows(ctx_, x_.rows, k_padded, [&](Range rows) { ctx_.kernels.quantize_s8(args, rows); });
}

void linear_group(ExecContext& ctx, Activations& x, std::span<const LinearJob> jobs) {
  const Rows& a = x.rows();
  std::int64_t total_tiles = 0;
  for (const LinearJob& job : jobs) {
    const Weight& w = *job.weight;
    VILA_CHECK(w.k == a.cols && job.y.rows == a.rows && job.y.cols == w.n);
    VILA_CHECK(w.values != nullptr);
    if (w.format.is_integer()) x.quantize(w.format);
    total_tiles += w.format.padded_n(w.n) / kTileRows;
  }
  const auto run = [&](const LinearJob& job, Range tiles) {
    const Weight& w = *job.weight;
    if (w.format.is_integer()) {
      const kernels::MatmulQArgs args{x.q_,        x.scale_,  x.sum_,     x.weighted_, w.values, w.scales,
                                      w.zeros,     w.offsets, job.bias,   job.y.data,  a.rows,   w.n,
                                      x.k_padded_, x.group_,  x.a_group_, job.y.stride};
      (w.format.kind == WeightKind::w4p16x8 ? ctx.kernels.matmul_w4 : ctx.kernels.matmul_w8)(args, tiles);
    } else {
      const kernels::MatmulFArgs args{a.data, a.stride, w.values, job.bias, job.y.data, a.rows, w.n, w.k, job.y.stride};
      (w.format.kind == WeightKind::f32p16 ? ctx.kernels.matmul_f32 : ctx.kernels.matmul_f16)(args, tiles);
    }
  };
  // The jobs' tiles form one line; a piece that crosses a border between jobs is cut there. All jobs that need the int8
  // form agree on the group, because a second form would have replaced the first: that is checked here.
  for (const LinearJob& job : jobs) {
    if (job.weight->format.is_integer()) VILA_CHECK(job.weight->format.group_columns(a.cols) == x.group_);
  }
  // Pieces of a multiple of 4 tiles suit the register blocking of prefill; about 8 pieces a thread even out unequal
  // cores. Few rows take the smallest pieces: a thread reads on where its last one ended, and all wait for the last.
  const std::int64_t pieces = a.rows < kFewRows ? total_tiles : 8 * ctx.pool.size();
  const std::int64_t grain = round_up(std::max<std::int64_t>(1, total_tiles / pieces), 4);
  ctx.pool.parallel_for(total_tiles, grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t first = 0;
    for (const LinearJob& job : jobs) {
      const std::int64_t tiles = job.weight->format.padded_n(job.weight->n) / kTileRows;
      const Range range{std::max(begin - first, std::int64_t{0}), std::min(end - first, tiles)};
      if (range.begin < range.end) run(job, range);
      first += tiles;
    }
  });
}

void linear(ExecContext& ctx, Rows x, const Weight& weight, const float* bias, Rows y) {
  const Workspace::Frame frame(ctx.workspace);
  Activations activations(ctx, x);
  const LinearJob job{&weight, bias, y};
  linear_group(ctx, activations, {&job, 1});
}

void rms_norm(ExecContext& ctx, Rows x, const float* weight, float eps, Rows y) {
  VILA_CHECK(same_shape(x, y) && weight != nullptr);
  const kernels::NormArgs args{x.data, weight, nullptr, y.data, x.stride, y.stride, x.cols, eps};
  for_rows(ctx, x.rows, x.cols, [&](Range rows) { ctx.kernels.rms_norm(args, rows); });
}

void layer_norm(ExecContext& ctx, Rows x, const float* weight, const float* bias, float eps, Rows y) {
  VILA_CHECK(same_shape(x, y) && weight != nullptr);
  const kernels::NormArgs args{x.data, weight, bias, y.data, x.stride, y.stride, x.cols, eps};
  for_rows(ctx, x.rows, x.cols, [&](Range rows) { ctx.kernels.layer_norm(args, rows); });
}

void rope(ExecContext& ctx, Rows x, std::int64_t n_heads, std::int64_t first_position, const float* cos_table,
          const float* sin_table, std::int64_t head_dim) {
  VILA_CHECK(x.cols == n_heads * head_dim && head_dim % 2 == 0);
  const kernels::RopeArgs args{x.data, cos_table, sin_table, x.stride, n_heads, head_dim, first_position};
  for_rows(ctx, x.rows, x.cols, [&](Range rows) { ctx.kernels.rope(args, rows); });
}

void kv_append(ExecContext& ctx, Rows k, Rows v, std::int64_t first_position, const kernels::KvLayout& cache) {
  VILA_CHECK(same_shape(k, v) && k.cols == cache.n_kv_heads * cache.head_dim);
  VILA_CHECK(first_position >= 0 && first_position + k.rows <= cache.capacity && takes_head_dim(cache));
  const kernels::KvAppendArgs args{k.data, v.data, k.stride, v.stride, first_position, cache};
  for_rows(ctx, k.rows, k.cols, [&](Range rows) { ctx.kernels.kv_append(args, rows); });
}

void attention(ExecContext& ctx, Rows q, const kernels::KvLayout& cache, const AttentionShape& shape, Rows out) {
  VILA_CHECK(same_shape(q, out) && q.cols == shape.n_heads * cache.head_dim);
  VILA_CHECK(shape.n_heads % cache.n_kv_heads == 0 && takes_head_dim(cache));
  VILA_CHECK(shape.n_positions <= cache.capacity &&
             (!shape.causal || shape.first_position + q.rows <= shape.n_positions));
  const kernels::AttentionArgs args{
      q.data, out.data,    q.stride,    out.stride, q.rows, shape.n_heads, shape.first_position, shape.n_positions,
      cache,  shape.scale, shape.causal};
  // A piece is a multiple of the kernels' row blocking and small enough to balance threads; with more threads than KV
  // heads the queries of one that could share a pass are split.
  constexpr std::int64_t kQueryBlock = 48;
  const std::int64_t queries = args.n_queries();
  const std::int64_t threads = ctx.pool.size();
  const std::int64_t piece = std::min(kQueryBlock, (queries * cache.n_kv_heads + threads - 1) / threads);
  const std::int64_t pieces = (queries + piece - 1) / piece;
  ctx.pool.parallel_for(cache.n_kv_heads * pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % pieces * piece;
      ctx.kernels.attention(args, i / pieces, Range{first, std::min(first + piece, queries)});
    }
  });
}

void silu_mul(ExecContext& ctx, Rows gate, Rows up, Rows y) {
  VILA_CHECK(same_shape(gate, up) && same_shape(gate, y));
  for_rows(ctx, gate.rows, gate.cols, [&](Range rows) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) ctx.kernels.silu_mul(gate.row(r), up.row(r), y.row(r), y.cols);
  });
}

void unary(ExecContext& ctx, kernels::Unary op, Rows x) {
  for_rows(ctx, x.rows, x.cols, [&](Range rows) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) ctx.kernels.unary(op, x.row(r), x.row(r), x.cols);
  });
}

void add(ExecContext& ctx, Rows x, Rows y) {
  VILA_CHECK(same_shape(x, y));
  for_rows(ctx, x.rows, x.cols, [&](Range rows) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) ctx.kernels.add(x.row(r), y.row(r), x.row(r), x.cols);
  });
}

void scale_add(ExecContext& ctx, Rows x, const float* scale, Rows y) {
  VILA_CHECK(same_shape(x, y) && x.dense() && y.dense());
  for_rows(ctx, x.rows, x.cols,
           [&](Range rows) { ctx.kernels.scale_add(x.data, y.data, scale, x.data, rows, x.cols); });
}

void embed(ExecContext& ctx, const TensorView& table, std::span<const std::int32_t> ids, Rows out) {
  VILA_CHECK(table.shape.size() == 2 && table.shape[1] == out.cols &&
             out.rows == static_cast<std::int64_t>(ids.size()));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    VILA_CHECK(ids[i] >= 0 && ids[i] < table.shape[0]);
    const std::int64_t offset = ids[i] * out.cols;
    float* row = out.row(static_cast<std::int64_t>(i));
    if (table.dtype == DType::f16) {
      ctx.kernels.f16_to_f32(table.as<std::uint16_t>() + offset, row, out.cols);
    } else {
      std::memcpy(row, table.as<float>() + offset, static_cast<std::size_t>(out.cols) * sizeof(float));
    }
  }
}

}  // namespace vila::ops
