// Model directories whose parts do not fit together, or do not fit the command: each is refused in one line.
#include <algorithm>
#include <limits>

#include "data/safetensors.h"
#include "tests/app/edit_model.h"

namespace cald {
namespace {

constexpr const char* kBert = "models/bert_h36";
const std::string kTeacher = "steps/models/bert_finetuned/waypoints/2";
constexpr const char* kData = "sentence\tlabel\na good film\t1\nthe plot is bad\t0\n";

/// Refusals of predict, for copies of a model that `edit` has changed.
struct EditedModel {
  const char* name;
  std::function<void(const TempFolder&)> edit;
  std::string message;
};

void expect_predict_refuses(const std::vector<EditedModel>& models) {
  for (const EditedModel& m : models) {
    TempFolder f;
    copy_model(f, kBert, "m");
    m.edit(f);
    SCOPED_TRACE(m.name);
    expect_refused(f, {{"predict m 'a good film'", 1, m.message}});
  }
}

std::function<void(const TempFolder&)> with_config(const std::string& key, const nlohmann::json& value) {
  return [=](const TempFolder& f) { edit_json(f, "m/config.json", [&](auto& j) { j[key] = value; }); };
}

TEST(Models, ATokenWithoutARowOfTheEmbeddingTableIsNamed) {
  expect_predict_refuses({
      {"longer vocabulary", [](const TempFolder& f) { f.put("m/vocab.txt", content_of(f / "m/vocab.txt") + "zork\n"); },
       "m/vocab.txt: the token 'zork' has the id 96, but the embedding table has 96 rows"},
      {"added token", [](const TempFolder& f) { f.put("m/added_tokens.json", R"({"zork": 40000000})"); },
       "m/added_tokens.json: the token 'zork' has the id 40000000"},
      {"pad", with_config("pad_token_id", 1000000000), "key 'pad_token_id' is 1000000000, wanted 0 to 95"},
      {"negative pad", with_config("pad_token_id", -1), "key 'pad_token_id' is -1, wanted 0 to 95"},
  });
  TempFolder f;
  copy_model(f, "models/roberta_h24", "r");
  f.put("good.tsv", kData);
  edit_json(f, "r/tokenizer.json", [](auto& j) { j["added_tokens"].back()["id"] = 123456789; });
  expect_refused(f, {{"predict r 'a good film'", 1, "has the id 123456789, but the embedding table has 300 rows"},
                     {"evaluate r good.tsv", 1, "has the id 123456789"},
                     {"finetune r --train good.tsv --steps 1 --output run", 1, "has the id 123456789"}});
}

TEST(Models, ATypeOfTokensWithoutARowIsNamed) {
  TempFolder f;
  copy_model(f, kBert, "m");
  edit_json(f, "m/config.json", [](auto& j) { j["type_vocab_size"] = 1; });
  const SafetensorsFile whole(kGolden + kBert + "/model.safetensors");
  SafetensorsWriter cut(f / "m/model.safetensors");
  const auto shape_of = [](const TensorInfo& t) {
    auto shape = t.shape;
    if (t.name == "bert.embeddings.token_type_embeddings.weight") shape[0] = 1;
    return shape;
  };
  for (const TensorInfo& t : whole.tensors()) cut.declare(t.name, t.dtype, shape_of(t));
  for (const TensorInfo& t : whole.tensors()) cut.write(t.name, whole.bytes(t));
  cut.commit();
  EXPECT_EQ(cald(f, "predict m 'a good film'").code, 0);
  const Result r = cald(f, "predict m 'a good film' --pair 'not bad'");
  expect_one_line_error(r, 1, "a token of type 1, but the model's type_vocab_size is 1", "a pair");
}

TEST(Models, AnEmptyLastLineOfTheVocabularyIsNoToken) {
  TempFolder f;
  copy_model(f, kBert, "m");
  f.put("m/vocab.txt", content_of(f / "m/vocab.txt") + "\n");
  EXPECT_EQ(cald(f, "predict m 'a good film'").code, 0);
}

TEST(Models, ValuesOfTheConfigurationAreInTheirRanges) {
  expect_predict_refuses({
      {"dropout", with_config("hidden_dropout_prob", 2), "'hidden_dropout_prob' is 2, wanted at least 0 and below 1"},
      {"attention's dropout", with_config("attention_probs_dropout_prob", -0.5), "'attention_probs_dropout_prob' is"},
      {"head's dropout", with_config("classifier_dropout", 1.0), "'classifier_dropout' is 1.0"},
      {"epsilon", with_config("layer_norm_eps", -1), "'layer_norm_eps' is -1, wanted more than 0"},
      {"fraction", with_config("hidden_size", 36.5), "'hidden_size' is 36.5, wanted a whole number"},
      {"truth", with_config("num_hidden_layers", true), "'num_hidden_layers' is true, wanted a whole number"},
      {"layers", with_config("num_hidden_layers", 1000000000), "'num_hidden_layers' is 1000000000, wanted 1 to 4096"},
      {"text", with_config("layer_norm_eps", "x"), "'layer_norm_eps' is \"x\", wanted a number"},
  });
}

TEST(Models, WeightsThatAreNotFiniteAreNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect_predict_refuses({
      {"nan", [=](const TempFolder& f) { fill_tensor(f, "m", "classifier.weight", nan); },
       "m: tensor 'classifier.weight' holds nan at element 0"},
      {"overflow", [](const TempFolder& f) { fill_tensor(f, "m", "bert.embeddings.LayerNorm.weight", 3e38f); },
       "text: example 1: the first op with a value that is not finite is layer_norm in evaluate/embeddings"},
  });
  TempFolder f;
  f.put("good.tsv", kData);
  copy_model(f, kBert, "m");
  fill_tensor(f, "m", "bert.embeddings.LayerNorm.weight", 3e38f);
  expect_refused(f, {{"evaluate m good.tsv", 1, "good.tsv: example 1: the first op"}});
}

TEST(Models, ALabelStaysWithinItsFieldAndLine) {
  TempFolder f;
  copy_model(f, kBert, "m");
  edit_json(f, "m/config.json", [](auto& j) { j["id2label"] = {{"0", "a\tb"}, {"1", "c\nd"}, {"2", "e"}}; });
  const Result r = cald(f, "predict m 'a good film'");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;
  EXPECT_CONTAINS(r.out, "\ta\\x09b=");
  EXPECT_CONTAINS(r.out, "\tc\\x0ad=");
}

TEST(Models, TheTeacherIsTheModelFineTuned) {
  TempFolder f;
  f.put("good.tsv", kData);
  copy_model(f, kTeacher, "teacher");
  copy_model(f, "models/roberta_h24", "roberta");
  copy_model(f, "models/bert_h24", "other");
  const std::string rest = " --mode target --teacher teacher --train good.tsv --mixer-k 4 --steps 1 --output run";
  expect_refused(f, {{"convert roberta" + rest, 1, "the teacher's model_type is bert, but that of roberta is roberta"},
                     {"convert other" + rest, 1, "teacher: the teacher's "}});
}

TEST(Models, WhatIsConvertedAlreadyIsNoTransformer) {
  TempFolder f;
  f.put("good.tsv", kData);
  copy_model(f, kTeacher, "teacher");
  ASSERT_EQ(cald(f, "convert teacher --mode unguided --mixer-k 4 --steps 0 --output done").code, 0);
  ASSERT_EQ(cald(f, "convert teacher --mode unguided --mixer-k 4 --layers 0 --steps 0 --output part").code, 0);
  const std::string rest = " --train good.tsv --mixer-k 4 --steps 1 --output run";
  const std::string already = "is already converted (linformer, k = 4)";
  expect_refused(
      f, {{"convert done/model --mode unguided" + rest, 1, "done/model: " + already},
          {"convert done/model --mode trajectory" + rest, 1, "done/model: " + already},
          {"convert done/model --mode trajectory --student done/model" + rest, 1, "done/model: " + already},
          {"convert done/model --mode target --teacher teacher" + rest, 1, "done/model: " + already},
          {"convert teacher --mode target --start model --teacher done/model" + rest, 1, "done/model: " + already},
          {"convert teacher --mode target --student done/model --teacher done/model" + rest, 1, already},
          {"convert part/model --mode unguided --layers 0,1" + rest, 2, "layer 0 is already converted"}});
  EXPECT_EQ(cald(f, "convert part/model --mode unguided --layers 1" + rest).code, 0);
}

TEST(Models, AStudentKeepsItsMixer) {
  TempFolder f;
  f.put("good.tsv", kData);
  copy_model(f, kTeacher, "teacher");
  ASSERT_EQ(cald(f, "convert teacher --mode unguided --mixer-k 4 --steps 0 --output student").code, 0);
  const std::string run =
      "convert teacher --mode unguided --student student/model --train good.tsv --steps 1 --output ";
  expect_refused(f, {{run + "run --mixer-k 8", 2, "--mixer-k is 8, but the student student/model has k = 4"},
                     {run + "run --mixer-share layerwise", 2,
                      "--mixer-share is layerwise, but the student student/model has share = none"}});
  ASSERT_EQ(cald(f, run + "same --mixer-k 4 --mixer-share none").code, 0);
  const Result unsaid = cald(f, run + "run");
  ASSERT_EQ(unsaid.code, 0) << unsaid.err;
  EXPECT_EQ(content_of(f / "run/model/model.safetensors"), content_of(f / "same/model/model.safetensors"));
  EXPECT_EQ(cald(f, "convert --recipe run/recipe.json --output again").code, 0);
}

TEST(Models, ATrainedModelSaysHowLongItsInputsWere) {
  TempFolder f;
  f.put("good.tsv", kData);
  const std::string model = "'" + kGolden + kBert + "'", run = " --train good.tsv --steps 1 --output run";
  const std::string text = "'the film is good the film is good the film is good the film is good'";
  ASSERT_EQ(cald(f, "finetune " + model + run + " --max-length 7").code, 0);
  const auto config = nlohmann::json::parse(content_of(f / "run/model/tokenizer_config.json"));
  EXPECT_EQ(config.at("model_max_length"), 7);
  const std::string as_trained = cald(f, "predict run/model " + text).out;
  EXPECT_EQ(as_trained, cald(f, "predict run/model --max-length 7 " + text).out);
  EXPECT_NE(as_trained, cald(f, "predict run/model --max-length 30 " + text).out);
  // What is only converted was trained with what its source says: nothing, or 7.
  ASSERT_EQ(cald(f, "convert " + model + " --mode unguided --mixer-k 4 --steps 0 --output fresh").code, 0);
  EXPECT_FALSE(fs::exists(f / "fresh/model/tokenizer_config.json"));
  ASSERT_EQ(cald(f, "convert run/model --mode unguided --mixer-k 4 --steps 0 --output kept").code, 0);
  EXPECT_EQ(content_of(f / "kept/model/tokenizer_config.json"), content_of(f / "run/model/tokenizer_config.json"));
  // transformers' way of saying that there is no limit.
  edit_json(f, "run/model/tokenizer_config.json", [](auto& j) { j["model_max_length"] = 1e30; });
  EXPECT_EQ(cald(f, "predict run/model " + text).out, cald(f, "predict run/model --max-length 33 " + text).out);
  edit_json(f, "run/model/tokenizer_config.json", [](auto& j) { j["model_max_length"] = -1; });
  expect_refused(f, {{"predict run/model " + text, 1, "key 'model_max_length' is -1"}});
}

}  // namespace
}  // namespace cald
