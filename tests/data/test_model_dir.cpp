// Model directories: configuration, one weight file or shards, and what is refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/json_text.h"
#include "data/model_dir.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace fs = std::filesystem;
namespace {

/// A weight file with tensors of one f32 each, valued by their position in `names` plus `first`.
void put_weights(const std::string& path, const std::vector<std::string>& names, float first = 0) {
  SafetensorsWriter w(path);
  for (const auto& n : names) w.declare(n, "F32", {1});
  for (const auto& n : names) {
    w.write(n, &first);
    ++first;
  }
  w.commit();
}

float value(const ModelDir& m, const std::string& name) {
  float v = -1;
  m.at(name).read_f32(&v);
  return v;
}

/// A directory with config.json and two shards, {a, b} and {c}, but no index yet.
struct Sharded {
  TempFolder dir;
  Sharded() {
    dir.put("config.json", R"({"model_type":"bert"})");
    put_weights(dir / "one.safetensors", {"a", "b"});
    put_weights(dir / "two.safetensors", {"c"}, 2);
  }
  std::string open(const std::string& index) {
    dir.put("model.safetensors.index.json", index);
    return error_of([&] { ModelDir m(dir.path()); });
  }
};

std::string map_of(const std::string& inside) { return "{\"metadata\":{},\"weight_map\":{" + inside + "}}"; }
const std::string kGoodMap = R"("a":"one.safetensors","b":"one.safetensors","c":"two.safetensors")";

TEST(ModelDir, OneFile) {
  TempFolder dir;
  dir.put("config.json", R"({"hidden_size":384,"layer_norm_eps":1e-12})");
  dir.put("vocab.txt", "[PAD]\n");
  put_weights(dir / "model.safetensors", {"y", "x"});
  const ModelDir m(dir.path() + "/");
  EXPECT_EQ(m.path(), dir.path());
  EXPECT_EQ(m.config()["hidden_size"], 384);
  ASSERT_EQ(m.tensors().size(), 2u);
  EXPECT_EQ(m.tensors()[0].name(), "x");
  EXPECT_EQ(m.tensors()[0].dtype(), "F32");
  EXPECT_EQ(m.tensors()[0].shape(), std::vector<std::int64_t>{1});
  EXPECT_EQ(value(m, "y"), 0.0f);
  EXPECT_EQ(value(m, "x"), 1.0f);
  EXPECT_FALSE(m.find("z"));
  EXPECT_EQ(error_of([&] { m.at("z"); }), dir.path() + ": the weights have no tensor 'z'");
  EXPECT_EQ(m.vocab_txt(), dir / "vocab.txt");
  EXPECT_EQ(m.tokenizer_json(), "");
}

TEST(ModelDir, Shards) {
  Sharded s;
  EXPECT_EQ(s.open(map_of(kGoodMap)), "no error");
  ModelDir first(s.dir.path());
  const ModelDir m(std::move(first));
  ASSERT_EQ(m.tensors().size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(m.tensors()[static_cast<std::size_t>(i)].name(), std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(value(m, std::string(1, static_cast<char>('a' + i))), static_cast<float>(i));
  }
}

TEST(ModelDir, TheSingleFileWinsOverAnIndex) {
  Sharded s;
  put_weights(s.dir / "model.safetensors", {"only"});
  EXPECT_EQ(s.open("broken"), "no error");
}

TEST(ModelDir, RefusesBadIndexes) {
  Sharded s;
  const std::string where = s.dir / "model.safetensors.index.json: ";
  const struct {
    std::string index;
    const char* message;
  } table[] = {
      {"", "not JSON: parse error"},
      {"[]", "its top level must be a JSON object, not array"},
      {"{}", "wanted an object 'weight_map'"},
      {R"({"weight_map":[]})", "wanted an object 'weight_map'"},
      {R"({"weight_map":{}})", "wanted an object 'weight_map'"},
      {map_of(R"("a":1)"), "weight_map of tensor 'a': must be a file name, not number"},
      {map_of(R"("a":null)"), "weight_map of tensor 'a': must be a file name, not null"},
      {map_of(R"("a":"")"), "must be a plain file name"},
      {map_of(R"("a":"../x.safetensors")"), "must be a plain file name in the index's folder, not '../x.safetensors'"},
      {map_of(R"("a":"/etc/passwd")"), "must be a plain file name in the index's folder, not '/etc/passwd'"},
      {map_of(R"("a":"sub/x.safetensors")"), "must be a plain file name"},
      {map_of(R"("a":"..")"), "must be a plain file name"},
      {map_of(R"("a":"..\\x")"), "must be a plain file name"},
      {map_of(R"("a":"one.safetensors\u0000")"), "must be a plain file name"},
      {map_of(R"("a":".")"), "the shard '.' is not there"},
      {map_of(kGoodMap + R"(,"d":"three.safetensors")"),
       "weight_map of tensor 'd': the shard 'three.safetensors' is not"},
      {map_of(kGoodMap + R"(,"d":"two.safetensors")"), "tensor 'd' is not in its shard 'two.safetensors'"},
      {map_of(kGoodMap + R"(,"a":"two.safetensors")"), "key 'a' stands twice"},
  };
  for (const auto& row : table) {
    const std::string message = s.open(row.index);
    EXPECT_CONTAINS(message, row.message) << row.index;
    EXPECT_EQ(message.find(where.substr(0, where.size() - 1)), 0u) << message;
  }
  EXPECT_EQ(s.open(map_of(R"("a":"one.safetensors","c":"two.safetensors")")),
            s.dir / "one.safetensors: tensor 'b' is not in the index's weight_map");
  EXPECT_EQ(s.open(map_of(R"("a":"one.safetensors","b":"two.safetensors","c":"two.safetensors")")),
            s.dir / "one.safetensors: tensor 'b' lies here, but the index's weight_map has it in 'two.safetensors'");
  s.dir.put("two.safetensors", "broken");
  EXPECT_EQ(s.open(map_of(kGoodMap)), s.dir / "two.safetensors: has 6 bytes, too short for a safetensors file");
}

TEST(ModelDir, RefusesBadDirectories) {
  TempFolder dir;
  const auto open = [&](const std::string& path) { return error_of([&] { ModelDir m(path); }); };
  EXPECT_EQ(open(dir / "none"), dir / "none: no such model directory");
  EXPECT_EQ(open(""), ": no such model directory");
  EXPECT_CONTAINS(open(dir.put("file", "")), "file: is not a directory");
  EXPECT_EQ(open(dir.path()), dir.path() + ": not a model directory, it has no config.json");
  fs::create_directory(dir / "model");
  dir.put("model/config.json", "{}");
  EXPECT_CONTAINS(open(dir.path()), "it has no config.json; the model of a run lies in " + dir.path() + "/model");
  const std::string bad[] = {"", "{", "[1]", "{\"a\":1,\"a\":2}", std::string("{}\0", 3), std::string(100000, '[')};
  for (const std::string& config : bad) {
    dir.put("config.json", config);
    EXPECT_EQ(open(dir.path()).find(dir / "config.json: "), 0u) << open(dir.path());
  }
  dir.put("config.json", "{}");
  EXPECT_EQ(open(dir.path()),
            dir.path() + ": has no weights; wanted model.safetensors or model.safetensors.index.json");
  dir.put("pytorch_model-00001-of-00002.bin", "");
  const std::string message = open(dir.path());
  EXPECT_CONTAINS(message, "has weights as pytorch_model.bin only");
  EXPECT_CONTAINS(message, "python3 -c \"import glob, torch, safetensors.torch");
}

TEST(ModelDir, CopiesTheTokenizerFilesThatExist) {
  TempFolder from, to;
  from.put("vocab.txt", "[PAD]\n\xC3\xA4\n");
  from.put("tokenizer_config.json", "{}");
  from.put("config.json", "{}");
  EXPECT_EQ(copy_tokenizer_files(from.path(), to.path()),
            (std::vector<std::string>{"vocab.txt", "tokenizer_config.json"}));
  EXPECT_EQ(to.names(), (std::set<std::string>{"vocab.txt", "tokenizer_config.json"}));
  EXPECT_EQ(content_of(to / "vocab.txt"), "[PAD]\n\xC3\xA4\n");
}

TEST(JsonText, DepthAndLengthOfMessagesAreBounded) {
  const std::string deep = std::string(60, '[') + std::string(60, ']');
  EXPECT_TRUE(parse_json("x", deep).is_array());
  EXPECT_EQ(error_of([] { parse_json("x", std::string(70, '[') + std::string(70, ']')); }),
            "x: nested more than 64 deep");
  const std::string message = error_of([] { parse_json("x", "{\"" + std::string(100000, 'k') + "\n"); });
  EXPECT_CONTAINS(message, "x: not JSON: parse error");
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(in_quotes("a\tb"), "'a\\x09b'");
  EXPECT_EQ(in_quotes("a\xFF\"b"), "'a\xEF\xBF\xBD\"b'");
  // Cut at the end of a character, not within one.
  EXPECT_EQ(in_quotes(std::string(119, 'a') + "\xC3\xA4"), "'" + std::string(119, 'a') + "...'");
}

}  // namespace
}  // namespace cald
