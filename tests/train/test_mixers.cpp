// What every mixer of models/mixers/ must hold to, whatever it computes: the test finds new ones by itself.
#include <cmath>

#include "kernels/transfer.h"
#include "ops/losses.h"
#include "tests/train/golden_run.h"
#include "train/model_io.h"

namespace cald {
namespace {

/// A mixer, and options that take it another way than its defaults do, if it has one.
struct MixerCase {
  std::string name;
  nlohmann::json options = nlohmann::json::object();
  std::string what = name;
};

void PrintTo(const MixerCase& c, std::ostream* out) { *out << c.what; }

class EveryMixer : public ::testing::TestWithParam<MixerCase> {
 protected:
  /// A small converted model, every parameter random.
  std::unique_ptr<Encoder> model() {
    EncoderConfig c = EncoderConfig::from_json({{"model_type", "bert"},
                                                {"vocab_size", 50},
                                                {"hidden_size", 24},
                                                {"num_hidden_layers", 2},
                                                {"num_attention_heads", 3},
                                                {"intermediate_size", 40},
                                                {"max_position_embeddings", 32},
                                                {"type_vocab_size", 2}},
                                               "test");
    c.labels.clear();
    replace_mixers(c, "all", GetParam().name, GetParam().options);
    auto encoder = std::make_unique<Encoder>(c);
    encoder->parameters().allocate(heap_, MemClass::weights);
    encoder->parameters().set_gradients(heap_, Gradients::kept);
    for (Parameter& p : encoder->parameters().all()) {
      RandomStream random(5, stream_of(p.name));
      const bool weight_of_norm = p.name.ends_with("LayerNorm.weight");
      const double scale = p.shape.rank() == 1 ? 0.2 : 1 / std::sqrt(static_cast<double>(p.shape[-1]));
      for (std::int64_t i = 0; i < p.shape.numel(); ++i)
        p.value.data<float>()[i] = static_cast<float>(scale * random.normal() + (weight_of_norm ? 1 : 0));
    }
    return encoder;
  }

  /// Two samples of 7 and 4 tokens, padded to `seq`.
  static TokenBatch batch(std::int64_t seq) {
    TokenBatch b;
    b.batch = 2, b.seq = seq;
    b.lengths = {7, 4}, b.labels = {0, 0}, b.sample_ids = {0, 1};
    for (const std::int32_t length : b.lengths)
      for (std::int32_t s = 0; s < seq; ++s) {
        b.mask.push_back(s < length);
        b.input_ids.push_back(s < length ? 3 + (7 * s + length) % 40 : 0);
        b.type_ids.push_back(0);
      }
    return b;
  }

  /// The last hidden states, (B, S, D).
  std::vector<float> states(const Encoder& encoder, const TokenBatch& b) {
    Context c(exec_on(Device::cpu, 1), heap_);
    Tape tape(c, false);
    const LabelledInput in = make_input(c, b.batch, b.seq, &b, encoder.config());
    const Tensor h = encoder.forward(tape, in.encoder, {}, false).states.back();
    std::vector<float> values(static_cast<std::size_t>(h.shape().numel()));
    c.launch(Download{h, values.data()});
    c.synchronize();
    return values;
  }

  HeapAllocator heap_;
};

TEST_P(EveryMixer, PadsChangeNothing) {
  const auto encoder = model();
  const std::vector<float> tight = states(*encoder, batch(7)), wide = states(*encoder, batch(12));
  const std::size_t width = 24;
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t s = 0; s < (b == 0 ? 7u : 4u); ++s)
      for (std::size_t d = 0; d < width; ++d)
        // States of LayerNorm are of size 1; sums over up to 40 terms in another order, through two layers.
        EXPECT_NEAR(tight[(b * 7 + s) * width + d], wide[(b * 12 + s) * width + d], 1e-5) << b << " " << s << " " << d;
}

/// The mean over a fixed pattern of the states of all samples, and with `backward` the parameters' gradients.
double pattern_loss(Context& c, Encoder& encoder, const TokenBatch& b, bool backward) {
  Tape tape(c, backward);
  const LabelledInput in = make_input(c, b.batch, b.seq, &b, encoder.config());
  const Tensor h = encoder.forward(tape, in.encoder, {}, false).states.back();
  Tensor target = c.like(h);
  for (std::int64_t i = 0; i < h.shape().numel(); ++i) target.data<float>()[i] = std::sin(static_cast<float>(3 * i));
  const Tensor loss = tape.apply(SquaredError{target, in.encoder.mask}, h);
  double sum = 0;
  std::vector<float> values(static_cast<std::size_t>(h.shape().numel()));
  c.launch(Download{h, values.data()});
  c.synchronize();
  for (std::int64_t i = 0; i < h.shape().numel(); ++i) {
    const double d = static_cast<double>(values[static_cast<std::size_t>(i)]) - target.data<float>()[i];
    if (b.mask[static_cast<std::size_t>(i / 24)]) sum += d * d;
  }
  if (backward) tape.backward(loss);
  return sum / (11.0 * 24.0);
}

TEST_P(EveryMixer, GradientsAgreeWithFiniteDifferences) {
  const auto encoder = model();
  const TokenBatch b = batch(9);
  Context c(exec_on(Device::cpu, 1), heap_);
  for (Parameter& p : encoder->parameters().all()) p.has_grad = false;
  pattern_loss(c, *encoder, b, true);
  int checked = 0;
  for (Parameter& p : encoder->parameters().all()) {
    if (p.name.find(".attention.self.") == std::string::npos) continue;
    ASSERT_TRUE(p.has_grad) << p.name;
    // Along a random direction, so that each element counts.
    std::vector<float> direction, value(p.value.data<float>(), p.value.data<float>() + p.shape.numel());
    RandomStream random(11, stream_of(p.name));
    double slope = 0;
    for (std::int64_t i = 0; i < p.shape.numel(); ++i) {
      direction.push_back(random.normal());
      slope += static_cast<double>(direction.back()) * p.grad.data<float>()[i];
    }
    const double step = 2e-3;
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      for (std::size_t i = 0; i < value.size(); ++i)
        p.value.data<float>()[i] = static_cast<float>(value[i] + (side ? step : -step) * direction[i]);
      loss[side] = pattern_loss(c, *encoder, b, false);
    }
    std::copy(value.begin(), value.end(), p.value.data<float>());
    // A loss of size 1 whose states have some 1e-6 of rounding, averaged over 264 of them: below 1e-6 / step.
    EXPECT_NEAR((loss[1] - loss[0]) / (2 * step), slope, 5e-4 + 0.02 * std::abs(slope)) << p.name;
    ++checked;
  }
  EXPECT_GE(checked, 12);
}

TEST_P(EveryMixer, ConvertsTrainsAndComesBackFromItsFiles) {
  TempFolder folder;
  RunOptions o = golden_options(read_golden("bert_unguided"), folder / "run");
  o.student.clear();
  o.mixer = GetParam().name;
  o.steps = 3;
  o.warmup = {0, false};
  train(o);
  for (const nlohmann::json& line : read_lines(folder / "run/metrics.jsonl"))
    EXPECT_TRUE(std::isfinite(line.at("loss").get<double>()));
  const auto once = load_encoder(ModelDir(folder / "run/model"), heap_, Exec{});
  EXPECT_EQ(once->config().mixers[0].name, GetParam().name);
  save_model(*once, folder / "again", folder / "run/model", {});
  const auto twice = load_encoder(ModelDir(folder / "again"), heap_, Exec{});
  EXPECT_EQ(states(*once, batch(8)), states(*twice, batch(8)));
}

TEST_P(EveryMixer, AnUnknownOptionIsNamed) {
  try {
    find_mixer(GetParam().name).check_options({{"no-such-option", 1}});
    FAIL() << "the option was taken";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("no-such-option"), std::string::npos) << e.what();
  }
}

std::vector<MixerCase> cases() {
  std::vector<MixerCase> all;
  for (const MixerType& m : all_mixers()) all.push_back({m.name});
  // Fewer slots than tokens: the sequence is projected first.
  all.push_back({"linformer", {{"k", 3}}, "linformer_few_slots"});
  all.push_back({"linformer", {{"k", 3}, {"share", "key-value"}}, "linformer_few_shared_slots"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, EveryMixer, ::testing::ValuesIn(cases()),
                         [](const auto& param) { return param.param.what; });

/// Where RoBERTa's positions are extended, so is each mixer's table by token: the rows that tokens had come again.
TEST(ExtendedMixer, RepeatsTheRowsOfTokens) {
  TempFolder folder;
  HeapAllocator heap;
  const auto convert = [&](const std::string& from, const std::string& to, std::optional<std::int64_t> positions) {
    RunOptions o;
    o.mode = Mode::unguided;
    (positions ? o.student : o.model) = from;
    o.model = kGolden + "models/roberta_h24";
    o.steps = 0, o.threads = 1;
    o.max_positions = positions;
    if (!positions) o.mixer_k = 5;
    o.output = folder / to;
    resolve_preset(o);
    train(o);
    return load_encoder(ModelDir(o.output + "/model"), heap, Exec{});
  };
  const auto plain = convert("", "plain", std::nullopt);
  const std::int64_t tokens = plain->config().max_tokens();
  ASSERT_LT(tokens, plain->config().max_positions);
  const auto longer = convert(folder / "plain/model", "longer", 2 * tokens);
  ASSERT_EQ(longer->config().max_tokens(), 2 * tokens);
  const std::string name = "roberta.encoder.layer.0.attention.self.E";
  const float* e = plain->parameters().find(name)->value.data<float>();
  const float* extended = longer->parameters().find(name)->value.data<float>();
  for (std::int64_t i = 0; i < 2 * tokens * 5; ++i) EXPECT_EQ(extended[i], e[i % (tokens * 5)]) << i;
}

/// A step takes several batches, and may go on into the next epoch.
TEST(Epochs, AreThatManyPassesOverTheData) {
  RunOptions o = golden_options(read_golden("bert_finetune"), "unset");
  o.steps.reset();
  o.warmup = {0, false};
  o.batch_size = 1, o.accumulate = 1, o.epochs = 1;
  HeapAllocator heap;
  Progress progress = quiet();
  const std::int64_t examples = Trainer(o, heap, progress).total_steps();
  o.accumulate = examples - 1, o.epochs = 3;
  EXPECT_EQ(Trainer(o, heap, progress).total_steps(), 4);  // 3 n batches of n - 1 at a time
}

}  // namespace
}  // namespace cald
