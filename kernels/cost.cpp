// What each launch costs by its shapes: the operations of its products, and its operands' bytes.
#include <algorithm>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "kernels/losses.h"
#include "kernels/low_rank.h"
#include "kernels/optimizer.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

double bytes_of(const TensorRef& x) {
  return x.present ? static_cast<double>(x.numel()) * static_cast<double>(size_of(x.dtype)) : 0.0;
}
/// Adding reads what stands there.
double bytes_of(const GradRef& x) { return bytes_of(x.to) * (x.add ? 2 : 1); }

template <class... T>
Cost moves(const T&... operands) {
  return {0.0, (0.0 + ... + bytes_of(operands))};
}

/// Sets the operations of products whose inputs are like `input`.
Cost with_flop(Cost c, double flop, const TensorRef& input) {
  c.flop = flop;
  c.bf16_flop = input.dtype == DType::bf16 ? flop : 0;
  return c;
}

template <class... T>
double product(T... extents) {
  return (2.0 * ... * static_cast<double>(extents));
}

/// Of one of attention's products: each pair of a query and a key that it sees, times the features of all heads.
double attention_product(const TensorRef& q, const TensorRef& k, bool causal) {
  const std::int64_t queries = q.dim(1), keys = k.dim(1);
  double pairs = static_cast<double>(queries) * static_cast<double>(keys);
  if (causal) {
    pairs = 0;
    for (std::int64_t i = 0; i < queries; ++i)
      pairs += static_cast<double>(std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys));
  }
  return 2.0 * pairs * static_cast<double>(q.dim(0) * q.dim(2));
}

double low_rank_product(const TensorRef& x, const TensorRef& e) {
  return product(x.dim(0), x.dim(1), x.dim(2), e.dim(1));
}

}  // namespace

Cost cost_of(const Gemm& g) {
  const std::int64_t rows = g.batched ? g.a.dim(1) : g.a.rows();
  return with_flop(moves(g.a, g.b, g.bias, g.c), product(g.c.to.numel(), g.transpose_a ? rows : g.a.cols()), g.a);
}
Cost cost_of(const ColumnSum& s) { return moves(s.x, s.y); }

Cost cost_of(const AttentionForward& a) {
  const double products = 2 * attention_product(a.q, a.k, a.causal);  // q k^T and p v
  return with_flop(moves(a.q, a.k, a.v, a.mask, a.samples, a.y, a.lse), products, a.q);
}
Cost cost_of(const AttentionBackward& a) {
  const Cost c = moves(a.q, a.k, a.v, a.mask, a.samples, a.y, a.lse, a.dy, a.dq, a.dk, a.dv);
  const bool through_p = a.dq || a.dk;  // then dp = dy v^T is needed, beside q k^T, which every gradient needs
  const int products = 1 + through_p + static_cast<bool>(a.dq) + static_cast<bool>(a.dk) + static_cast<bool>(a.dv);
  return with_flop(c, products * attention_product(a.q, a.k, a.causal), a.q);
}

Cost cost_of(const LowRankForward& l) {
  return with_flop(moves(l.x, l.e, l.rank, l.lengths, l.y), low_rank_product(l.x, l.e), l.x);
}
Cost cost_of(const LowRankBackward& l) {
  const int products = static_cast<bool>(l.dx) + static_cast<bool>(l.de);
  return with_flop(moves(l.x, l.e, l.rank, l.lengths, l.dy, l.dx, l.de), products * low_rank_product(l.x, l.e), l.x);
}

Cost cost_of(const Fill& f) { return moves(f.y); }
Cost cost_of(const Copy& c) { return moves(c.x, c.y); }
Cost cost_of(const Add& a) { return a.beta == 0 ? moves(a.a, a.y) : moves(a.a, a.b, a.y); }
Cost cost_of(const FindNonFinite& f) { return moves(f.x); }
Cost cost_of(const ActivationForward& a) { return moves(a.x, a.y); }
Cost cost_of(const ActivationBackward& a) { return moves(a.x, a.dy, a.dx, a.y); }
Cost cost_of(const DropoutApply& d) { return moves(d.x, d.samples, d.y); }

Cost cost_of(const LayerNormForward& n) {
  return moves(n.x, n.residual, n.weight, n.bias, n.samples, n.sum, n.y, n.mean, n.rstd);
}
Cost cost_of(const LayerNormBackward& n) {
  return moves(n.sum, n.weight, n.mean, n.rstd, n.samples, n.dy, n.dx, n.dresidual, n.dweight, n.dbias);
}

/// Of the tables only the rows that the ids name are read.
Cost cost_of(const EmbeddingForward& e) {
  Cost c = moves(e.word_ids, e.position_ids, e.type_ids, e.y);
  for (const TensorRef* table : {&e.word, &e.position, &e.type})
    if (table->present) c.bytes += bytes_of(e.y);
  return c;
}
/// Adding touches the rows that the ids name, setting writes them all.
Cost cost_of(const EmbeddingBackward& e) {
  Cost c = moves(e.ids, e.dy, e.rows);
  c.bytes += e.dtable.add ? 2 * bytes_of(e.dy) : bytes_of(e.dtable.to);
  return c;
}

Cost cost_of(const CrossEntropyForward& l) { return moves(l.logits, l.labels, l.all_labels, l.loss); }
Cost cost_of(const CrossEntropyBackward& l) { return moves(l.logits, l.labels, l.all_labels, l.dloss, l.dlogits); }
Cost cost_of(const KlForward& l) { return moves(l.student, l.teacher, l.loss); }
Cost cost_of(const KlBackward& l) { return moves(l.student, l.teacher, l.dloss, l.dstudent); }
Cost cost_of(const SquaredErrorForward& l) { return moves(l.student, l.teacher, l.mask, l.loss); }
Cost cost_of(const SquaredErrorBackward& l) { return moves(l.student, l.teacher, l.mask, l.dloss, l.dstudent); }

Cost cost_of(const AdamW& a) {
  Cost c = moves(a.norm);
  for (const AdamWSlot& s : *a.slots)
    if (s.rows.present) {  // at the least: the rows that have a gradient, which are no more than grad's
      c += moves(s.grad, s.rows, s.moved);
      c.bytes += 6 * bytes_of(s.grad);
    } else {
      c += moves(s.value, s.value, s.m, s.m, s.v, s.v, s.grad, s.moved, s.forward, s.backward);  // three are updated
    }
  return c;
}
Cost cost_of(const GradientNorm& n) {
  Cost c = moves(n.norm);
  for (const AdamWSlot& s : *n.slots) c += moves(s.grad);
  return c;
}

Cost cost_of(const Upload& u) { return moves(u.to, u.to); }  // read from the host, and written
Cost cost_of(const Download& d) { return moves(d.from, d.from); }

}  // namespace cald
