// One case for each launch, or for each way in which a step uses it. A new launch needs one too: a test compares them
// with the headers of kernels/.
#include <cmath>

#include "bench/kernel_kit.h"
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

using Kit = KernelKit;
using Cases = std::vector<KernelCase>;

constexpr Dropout kDropout{0.1f, {1, 2, 3}};

Shape hidden(const StepShape& s) { return {s.batch, s.seq, s.hidden}; }
Shape inner(const StepShape& s) { return {s.batch, s.seq, s.ffn}; }

template <class Args>
std::string name_of_case(const char* which) {
  return std::string(Args::name) + "/" + which;
}

/// The three products of y = x W^T + b.
void add_linear(Cases& cases, const std::string& which, std::int64_t StepShape::*in, std::int64_t StepShape::*out) {
  const auto x = [in](Kit& k, const StepShape& s) { return k.factors({s.batch, s.seq, s.*in}); };
  const auto y = [out](Kit& k, const StepShape& s) { return k.factors({s.batch, s.seq, s.*out}); };
  const auto w = [in, out](Kit& k, const StepShape& s, Packing p) { return k.weight({s.*out, s.*in}, p); };
  cases.push_back({"gemm/" + which + "_y", [=](Kit& k, const StepShape& s) {
                     const TensorRef b = k.values({s.*out});
                     k.time(Gemm{x(k, s), w(k, s, Packing::forward), b, {y(k, s), false}, false, true});
                   }});
  cases.push_back({"gemm/" + which + "_dx", [=](Kit& k, const StepShape& s) {
                     k.time(Gemm{y(k, s), w(k, s, Packing::backward), {}, {x(k, s), false}});
                   }});
  cases.push_back({"gemm/" + which + "_dw", [=](Kit& k, const StepShape& s) {
                     k.time(Gemm{y(k, s), x(k, s), {}, {k.values({s.*out, s.*in}), false}, true});
                   }});
}

void add_products(Cases& cases) {
  add_linear(cases, "hidden", &StepShape::hidden, &StepShape::hidden);
  add_linear(cases, "ffn_in", &StepShape::hidden, &StepShape::ffn);
  add_linear(cases, "ffn_out", &StepShape::ffn, &StepShape::hidden);
  cases.push_back({"column_sum/ffn", [](Kit& k, const StepShape& s) {
                     k.time(ColumnSum{k.factors(inner(s)), {k.values({s.ffn}), false}});
                   }});
}

/// Full attention, or over the slots to which keys and values were projected.
void add_attention(Cases& cases, const std::string& which, bool slots, const Dropout& dropout) {
  const auto keys = [slots](const StepShape& s) { return Shape{s.batch, slots ? s.slots : s.seq, s.hidden}; };
  const auto scale = [](const StepShape& s) {
    return 1.0f / std::sqrt(static_cast<float>(s.hidden) / static_cast<float>(s.heads));
  };
  cases.push_back({"attention/" + which, [=](Kit& k, const StepShape& s) {
                     const TensorRef q = k.factors(hidden(s)), key = k.factors(keys(s)), value = k.factors(keys(s));
                     const TensorRef mask = k.constant({s.batch, keys(s)[1]}, 1), samples = k.counted({s.batch});
                     const TensorRef y = k.factors(hidden(s)), lse = k.values({s.batch, s.heads, s.seq});
                     k.time(AttentionForward{q, key, value, mask, samples, y, lse, static_cast<int>(s.heads), scale(s),
                                             false, dropout});
                   }});
  cases.push_back({"attention_backward/" + which, [=](Kit& k, const StepShape& s) {
                     const TensorRef q = k.factors(hidden(s)), key = k.factors(keys(s)), value = k.factors(keys(s));
                     const TensorRef mask = k.constant({s.batch, keys(s)[1]}, 1), samples = k.counted({s.batch});
                     const TensorRef y = k.factors(hidden(s)), lse = k.positive({s.batch, s.heads, s.seq});
                     const TensorRef dy = k.factors(hidden(s)), dq = k.factors(hidden(s)), dk = k.factors(keys(s)),
                                     dv = k.factors(keys(s));
                     k.time(AttentionBackward{q,
                                              key,
                                              value,
                                              mask,
                                              samples,
                                              y,
                                              lse,
                                              dy,
                                              {dq, false},
                                              {dk, false},
                                              {dv, false},
                                              static_cast<int>(s.heads),
                                              scale(s),
                                              false,
                                              dropout});
                   }});
}

void add_low_rank(Cases& cases) {
  cases.push_back({"low_rank/slots", [](Kit& k, const StepShape& s) {
                     const TensorRef x = k.factors(hidden(s)), e = k.values({s.seq, s.slots});
                     const TensorRef rank = k.counted({s.batch, s.seq}),
                                     lengths = k.constant({s.batch}, static_cast<std::int32_t>(s.seq));
                     k.time(LowRankForward{x, e, rank, lengths, k.factors({s.batch, s.slots, s.hidden})});
                   }});
  cases.push_back({"low_rank_backward/slots", [](Kit& k, const StepShape& s) {
                     const TensorRef x = k.factors(hidden(s)), e = k.values({s.seq, s.slots});
                     const TensorRef rank = k.counted({s.batch, s.seq}),
                                     lengths = k.constant({s.batch}, static_cast<std::int32_t>(s.seq));
                     k.time(LowRankBackward{x,
                                            e,
                                            rank,
                                            lengths,
                                            k.factors({s.batch, s.slots, s.hidden}),
                                            {k.factors(hidden(s)), false},
                                            {k.values({s.seq, s.slots}), false}});
                   }});
}

void add_layer_norm(Cases& cases) {
  cases.push_back({"layer_norm/residual_dropout", [](Kit& k, const StepShape& s) {
                     const TensorRef mean = k.values({s.batch * s.seq}), rstd = k.positive({s.batch * s.seq});
                     k.time(LayerNormForward{k.factors(hidden(s)), k.values(hidden(s)), k.values({s.hidden}),
                                             k.values({s.hidden}), k.counted({s.batch}), k.values(hidden(s)),
                                             k.values(hidden(s)), mean, rstd, 1e-12f, kDropout});
                   }});
  cases.push_back({"layer_norm_backward/residual_dropout", [](Kit& k, const StepShape& s) {
                     const TensorRef mean = k.values({s.batch * s.seq}), rstd = k.positive({s.batch * s.seq});
                     k.time(LayerNormBackward{k.values(hidden(s)),
                                              k.values({s.hidden}),
                                              mean,
                                              rstd,
                                              k.counted({s.batch}),
                                              k.values(hidden(s)),
                                              {k.factors(hidden(s)), false},
                                              {k.values(hidden(s)), false},
                                              {k.values({s.hidden}), false},
                                              {k.values({s.hidden}), false},
                                              kDropout});
                   }});
}

void add_elementwise(Cases& cases) {
  const auto add = [&](const std::string& name, auto run) { cases.push_back({name, run}); };
  add("activation/gelu", [](Kit& k, const StepShape& s) {
    k.time(ActivationForward{k.factors(inner(s)), k.factors(inner(s)), Activation::gelu});
  });
  add("activation_backward/gelu", [](Kit& k, const StepShape& s) {
    const TensorRef x = k.factors(inner(s)), dy = k.factors(inner(s)), dx = k.factors(inner(s));
    k.time(ActivationBackward{x, dy, {dx, false}, Activation::gelu, k.factors(inner(s))});
  });
  add("dropout/hidden", [](Kit& k, const StepShape& s) {
    k.time(DropoutApply{k.values(hidden(s)), k.counted({s.batch}), {k.values(hidden(s)), false}, kDropout});
  });
  add("add/hidden", [](Kit& k, const StepShape& s) {
    k.time(Add{k.values(hidden(s)), k.values(hidden(s)), k.values(hidden(s))});
  });
  add("copy/hidden", [](Kit& k, const StepShape& s) { k.time(Copy{k.values(hidden(s)), k.values(hidden(s))}); });
  add("fill/hidden", [](Kit& k, const StepShape& s) { k.time(Fill{k.values(hidden(s)), 1.0f}); });
  add("find_non_finite/hidden", [](Kit& k, const StepShape& s) {
    k.time(FindNonFinite{k.values(hidden(s)), k.constant({1}, 0)});
  });
  add("upload/ids", [](Kit& k, const StepShape& s) {
    const std::vector<std::int32_t> host(static_cast<std::size_t>(s.batch * s.seq));
    k.time(Upload{host.data(), k.counted({s.batch, s.seq})});
  });
  add("download/logits", [](Kit& k, const StepShape& s) {
    std::vector<float> host(static_cast<std::size_t>(2 * s.batch));
    k.time(Download{k.values({s.batch, 2}), host.data()});
  });
}

void add_embedding(Cases& cases) {
  cases.push_back({"embedding/three_tables", [](Kit& k, const StepShape& s) {
                     const Shape ids{s.batch, s.seq};
                     const TensorRef word = k.values({s.vocab, s.hidden}), position = k.values({s.seq, s.hidden});
                     k.time(EmbeddingForward{k.drawn(ids, s.vocab), k.counted(ids), k.constant(ids, 0), word, position,
                                             k.values({2, s.hidden}), k.values(hidden(s))});
                   }});
  cases.push_back({"embedding_backward/words", [](Kit& k, const StepShape& s) {
                     k.time(EmbeddingBackward{k.drawn({s.batch, s.seq}, s.vocab),
                                              k.values(hidden(s)),
                                              {k.values({s.vocab, s.hidden}), false}});
                   }});
  cases.push_back({"embedding_backward/positions", [](Kit& k, const StepShape& s) {
                     k.time(EmbeddingBackward{
                         k.counted({s.batch, s.seq}), k.values(hidden(s)), {k.values({s.seq, s.hidden}), false}});
                   }});
}

void add_losses(Cases& cases) {
  const auto add = [&](const std::string& name, auto run) { cases.push_back({name, run}); };
  const auto logits = [](Kit& k, const StepShape& s) { return k.values({s.batch, 2}); };
  const auto labels = [](Kit& k, const StepShape& s) { return k.drawn({s.batch}, 2); };
  add("cross_entropy/logits", [=](Kit& k, const StepShape& s) {
    k.time(CrossEntropyForward{logits(k, s), labels(k, s), k.values({1})});
  });
  add("cross_entropy_backward/logits", [=](Kit& k, const StepShape& s) {
    k.time(CrossEntropyBackward{logits(k, s), labels(k, s), k.values({1}), {logits(k, s), false}});
  });
  add("kl/logits", [=](Kit& k, const StepShape& s) {
    k.time(KlForward{logits(k, s), logits(k, s), k.values({1}), 2.0f, 4.0f});
  });
  add("kl_backward/logits", [=](Kit& k, const StepShape& s) {
    k.time(KlBackward{logits(k, s), logits(k, s), k.values({1}), {logits(k, s), false}, 2.0f, 4.0f});
  });
  add("squared_error/states", [](Kit& k, const StepShape& s) {
    k.time(SquaredErrorForward{k.values(hidden(s)), k.values(hidden(s)), {}, k.values({1})});
  });
  add("squared_error_backward/states", [](Kit& k, const StepShape& s) {
    k.time(SquaredErrorBackward{
        k.values(hidden(s)), k.values(hidden(s)), {}, k.values({1}), {k.values(hidden(s)), false}});
  });
}

/// Over the matrices of one layer.
void add_optimizer(Cases& cases) {
  const auto slots = [](Kit& k, const StepShape& s, DType moments = DType::f32) {
    std::vector<AdamWSlot> all;
    const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
      const Shape shape{rows, cols};
      all.push_back(
          {k.values(shape), k.values(shape), k.values(shape, moments), k.positive(shape, moments), 1e-5f, 0.0f});
    };
    for (int i = 0; i < 4; ++i) matrix(s.hidden, s.hidden);
    matrix(s.ffn, s.hidden);
    matrix(s.hidden, s.ffn);
    return all;
  };
  cases.push_back({"adamw/layer", [=](Kit& k, const StepShape& s) {
                     const auto all = slots(k, s);
                     k.time(AdamW{&all, 3, 0.9, 0.999, 1e-8f, 0.0f, {}});
                   }});
  cases.push_back({"adamw/layer_bf16_moments", [=](Kit& k, const StepShape& s) {
                     const auto all = slots(k, s, DType::bf16);
                     k.time(AdamW{&all, 3, 0.9, 0.999, 1e-8f, 0.0f, {}});
                   }});
  cases.push_back({"gradient_norm/layer", [=](Kit& k, const StepShape& s) {
                     const auto all = slots(k, s);
                     k.time(GradientNorm{&all, k.values({1})});
                   }});
}

}  // namespace

std::vector<KernelCase> kernel_cases() {
  Cases cases;
  add_products(cases);
  add_attention(cases, "full", false, {});
  add_attention(cases, "full_dropout", false, kDropout);
  add_attention(cases, "slots_dropout", true, kDropout);
  add_low_rank(cases);
  add_layer_norm(cases);
  add_elementwise(cases);
  add_embedding(cases);
  add_losses(cases);
  add_optimizer(cases);
  return cases;
}

}  // namespace cald
