// Safetensors: every dtype there and back, exact conversions, and refusal of broken or hostile files.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "engine/base/rng.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace {

/// A file with this header text and as many data bytes.
std::string file_text(std::string_view header, std::size_t data_bytes) {
  const std::uint64_t n = header.size();
  std::string s(reinterpret_cast<const char*>(&n), 8);
  s += header;
  for (std::size_t i = 0; i < data_bytes; ++i) s += static_cast<char>(i);
  return s;
}

/// Opens a file and reads whatever it holds.
void read_everything(const std::string& path) {
  const SafetensorsFile f(path);
  for (const TensorInfo& t : f.tensors()) {
    const auto n = static_cast<std::size_t>(t.numel());
    if (t.dtype[0] == 'F' || t.dtype == "BF16")
      f.read_f32(t, std::vector<float>(n).data());
    else
      f.read_i64(t, std::vector<std::int64_t>(n).data());
  }
}

std::vector<float> f32s(const SafetensorsFile& f, const std::string& name) {
  std::vector<float> v(static_cast<std::size_t>(f.find(name)->numel()));
  f.read_f32(*f.find(name), v.data());
  return v;
}

std::vector<std::int64_t> i64s(const SafetensorsFile& f, const std::string& name) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(f.find(name)->numel()));
  f.read_i64(*f.find(name), v.data());
  return v;
}

TEST(Safetensors, RoundTripsEveryDtype) {
  TempFolder dir;
  const double f64[] = {1.5, -2.0, 0x1p-130, 1e300};
  const float f32[] = {0.1f, -0.0f, 3e38f};
  const std::uint16_t f16[] = {0x3C00, 0xC000}, bf16[] = {0x3F80, 0xC040};
  const std::int64_t i64[] = {INT64_MIN, INT64_MAX};
  const std::int32_t i32[] = {INT32_MIN, 7};
  const std::int16_t i16[] = {-300, 300};
  const std::int8_t i8[] = {-128, 127, 3};
  const std::uint8_t u8[] = {255, 0, 1}, yes_no[] = {1, 0, 1, 1, 0};
  struct Row {
    const char *name, *dtype;
    std::vector<std::int64_t> shape;
    const void* data;
  };
  const std::vector<Row> rows{{"a", "BOOL", {5}, yes_no}, {"b", "U8", {3, 1}, u8}, {"c", "I8", {3}, i8},
                              {"d", "I16", {2}, i16},     {"e", "I32", {2}, i32},  {"f", "I64", {1, 2}, i64},
                              {"g", "BF16", {2}, bf16},   {"h", "F16", {2}, f16},  {"i", "F32", {3}, f32},
                              {"j", "F64", {2, 2}, f64},  {"k", "F32", {}, f32},   {"l", "F32", {4, 0, 2}, nullptr}};
  SafetensorsWriter w(dir / "x");
  for (auto r = rows.rbegin(); r != rows.rend(); ++r) w.declare(r->name, r->dtype, r->shape);
  for (const Row& r : rows) w.write(r.name, r.data);
  w.commit();

  const SafetensorsFile f(dir / "x");
  ASSERT_EQ(f.tensors().size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TensorInfo& t = f.tensors()[i];
    EXPECT_EQ(t.name, rows[i].name);
    EXPECT_EQ(t.dtype, rows[i].dtype);
    EXPECT_EQ(t.shape, rows[i].shape);
    EXPECT_EQ(f.find(t.name), &t);
    if (t.end > t.begin) {
      EXPECT_EQ(std::memcmp(f.bytes(t), rows[i].data, t.end - t.begin), 0) << t.name;
    }
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(f.bytes(t)) % safetensors_element_size(t.dtype), 0u) << t.name;
  }
  EXPECT_EQ(f.find("aa"), nullptr);
  EXPECT_EQ(f.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(f32s(f, "j"), (std::vector<float>{1.5f, -2.0f, 0x1p-130f, INFINITY}));
  EXPECT_EQ(f32s(f, "i"), (std::vector<float>{0.1f, -0.0f, 3e38f}));
  EXPECT_EQ(f32s(f, "h"), (std::vector<float>{1.0f, -2.0f}));
  EXPECT_EQ(f32s(f, "g"), (std::vector<float>{1.0f, -3.0f}));
  EXPECT_EQ(f32s(f, "k"), std::vector<float>{0.1f});
  EXPECT_EQ(f32s(f, "l"), std::vector<float>{});
  EXPECT_EQ(i64s(f, "f"), (std::vector<std::int64_t>{INT64_MIN, INT64_MAX}));
  EXPECT_EQ(i64s(f, "e"), (std::vector<std::int64_t>{INT32_MIN, 7}));
  EXPECT_EQ(i64s(f, "d"), (std::vector<std::int64_t>{-300, 300}));
  EXPECT_EQ(i64s(f, "c"), (std::vector<std::int64_t>{-128, 127, 3}));
  EXPECT_EQ(i64s(f, "b"), (std::vector<std::int64_t>{255, 0, 1}));
  EXPECT_EQ(i64s(f, "a"), (std::vector<std::int64_t>{1, 0, 1, 1, 0}));
  EXPECT_EQ(error_of([&] { i64s(f, "h"); }), dir / "x: tensor 'h': is F16, wanted I64, I32, I16, I8, U8 or BOOL");
  EXPECT_EQ(error_of([&] { f32s(f, "f"); }), dir / "x: tensor 'f': is I64, wanted F32, F16, BF16 or F64");
}

TEST(Safetensors, EveryHalfConvertsExactly) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const float got = f16_to_f32(h);
    ASSERT_EQ(std::signbit(got), h >= 0x8000) << i;
    if (exponent == 31 && mantissa) {
      ASSERT_TRUE(std::isnan(got)) << i;
    } else {
      const double want = exponent == 31  ? INFINITY
                          : exponent == 0 ? std::ldexp(mantissa, -24)
                                          : std::ldexp(1024 + mantissa, exponent - 25);
      ASSERT_EQ(std::fabs(static_cast<double>(got)), want) << i;
    }
    // bfloat16: 8 bits of exponent, 7 of mantissa.
    const int e = (h >> 7) & 255, m = h & 127;
    const float b = bf16_to_f32(h);
    ASSERT_EQ(std::signbit(b), h >= 0x8000) << i;
    if (e == 255 && m) {
      ASSERT_TRUE(std::isnan(b)) << i;
    } else {
      const double want = e == 255 ? INFINITY : e == 0 ? std::ldexp(m, -133) : std::ldexp(128 + m, e - 134);
      ASSERT_EQ(std::fabs(static_cast<double>(b)), want) << i;
    }
  }
}

TEST(Safetensors, LargeTensorsPassInPieces) {
  TempFolder dir;
  // Rows of 1001 elements, so that pieces of 1 MiB end within a row; stored and read with a pitch of 1010.
  constexpr std::int64_t kRows = 900, kCols = 1001, kPitch = 1010;
  std::vector<float> padded(kRows * kPitch, -1.0f), dense;
  for (std::int64_t r = 0; r < kRows; ++r)
    for (std::int64_t c = 0; c < kCols; ++c) {
      padded[static_cast<std::size_t>(r * kPitch + c)] = static_cast<float>(r * kCols + c);
      dense.push_back(static_cast<float>(r * kCols + c));
    }
  SafetensorsWriter w(dir / "x");
  w.declare("padded", "F32", {kRows, kCols});
  w.declare("dense", "F32", {kRows, kCols});
  w.write("padded", padded.data(), kPitch);
  w.write("dense", dense.data());
  w.commit();
  const SafetensorsFile f(dir / "x");
  EXPECT_EQ(f32s(f, "padded"), dense);
  EXPECT_EQ(f32s(f, "dense"), dense);
  std::vector<float> out(padded.size(), -1.0f);
  f.read_f32(*f.find("dense"), out.data(), kPitch);
  EXPECT_EQ(out, padded);
  EXPECT_CONTAINS(error_of([&] { f.read_f32(*f.find("dense"), out.data(), 1000); }), "tensor 'dense': rows of 1001");

  copy_tensors(f, {"dense"}, dir / "y");
  const SafetensorsFile g(dir / "y");
  EXPECT_EQ(g.tensors().size(), 1u);
  EXPECT_EQ(f32s(g, "dense"), dense);
  EXPECT_EQ(error_of([&] { copy_tensors(f, {"none"}, dir / "z"); }), dir / "x: tensor 'none': is missing");
  EXPECT_EQ(dir.names(), (std::set<std::string>{"x", "y"}));
}

TEST(Safetensors, UnalignedDataIsRead) {
  TempFolder dir;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"I16","shape":[2],"data_offsets":[1,5]}})";
  for (const char* space : {"", " ", "  ", "       "}) {
    const SafetensorsFile f(dir.put("x", file_text(header + space, 5)));
    EXPECT_EQ(i64s(f, "b"), (std::vector<std::int64_t>{0x0201, 0x0403}));
  }
}

TEST(Safetensors, SameBytesInWhateverOrder) {
  TempFolder dir;
  const std::vector<std::string> names{"b", "a", "weights.\"x\"\n", "\xC3\xA4"};
  const float v[] = {1, 2};
  for (const bool reverse : {false, true}) {
    SafetensorsWriter w(dir / (reverse ? "x" : "y"));
    w.set_metadata("step", "12");
    auto order = names;
    if (reverse) std::reverse(order.begin(), order.end());
    for (const auto& n : order) w.declare(n, n == "b" ? "F32" : "I8", {n == "b" ? 2 : 8});
    std::reverse(order.begin(), order.end());
    for (const auto& n : order) w.write(n, v);
    w.commit();
  }
  EXPECT_EQ(content_of(dir / "x"), content_of(dir / "y"));
  const SafetensorsFile f(dir / "x");
  for (const auto& n : names) EXPECT_NE(f.find(n), nullptr) << n;
  EXPECT_EQ(f.metadata().at("step"), "12");
}

TEST(Safetensors, WriterRefusesMisuseAndLeavesNothing) {
  TempFolder dir;
  const float v[] = {1, 2};
  {
    SafetensorsWriter w(dir / "x");
    w.declare("a", "F32", {2});
    EXPECT_CONTAINS(error_of([&] { w.declare("a", "F32", {2}); }), "x: tensor 'a': declared twice");
    EXPECT_CONTAINS(error_of([&] { w.declare("b", "F33", {2}); }), "x: tensor 'b': unknown dtype 'F33'");
    EXPECT_CONTAINS(error_of([&] { w.declare("b", "F32", {-2}); }), "tensor 'b': shape has the extent -2");
    EXPECT_CONTAINS(error_of([&] { w.declare("__metadata__", "F32", {2}); }), "the format reserves this name");
    EXPECT_CONTAINS(error_of([&] { w.write("c", v); }), "tensor 'c': written but not declared");
    EXPECT_CONTAINS(error_of([&] { w.commit(); }), "x: tensor 'a': declared but not written");
    w.write("a", v);
    EXPECT_CONTAINS(error_of([&] { w.write("a", v); }), "tensor 'a': written twice");
    EXPECT_CONTAINS(error_of([&] { w.declare("d", "F32", {2}); }), "tensor 'd': declared after the first write");
  }
  {
    SafetensorsWriter w(dir / "x");
    w.declare("\xFF", "F32", {2});
    EXPECT_CONTAINS(error_of([&] { w.write("\xFF", v); }), "is not UTF-8");
  }
  EXPECT_EQ(dir.names(), std::set<std::string>{});
  SafetensorsWriter none(dir / "none");
  none.commit();
  EXPECT_EQ(SafetensorsFile(dir / "none").tensors().size(), 0u);
}

struct Hostile {
  std::string header;
  std::size_t data_bytes;
  const char* message;
};

/// One tensor 'w' with this inside.
std::string w(const std::string& inside) { return "{\"w\":{" + inside + "}}"; }

const std::string kTwo = R"("dtype":"U8","shape":[2],"data_offsets":[0,2])";

TEST(Safetensors, RefusesHostileHeaders) {
  TempFolder dir;
  const std::vector<Hostile> table{
      {"", 0, "does not begin with '{'"},
      {" {}", 0, "does not begin with '{'"},
      {"\xEF\xBB\xBF{}", 0, "does not begin with '{'"},
      {"[]", 0, "does not begin with '{'"},
      {"{", 0, "the header is not JSON: parse error"},
      {"{}}", 0, "the header is not JSON: parse error"},
      {"{} x", 0, "the header is not JSON: parse error"},
      {std::string("{}\0{}", 5), 0, "a NUL byte at offset 2"},
      {"{\"\xFF\":1}", 0, "ill-formed UTF-8 byte; last read: '\"\xEF\xBF\xBD'"},
      {"{\"w\":{" + kTwo + "},}", 2, "the header is not JSON"},
      {w(R"("dtype":"U8","shape":[1e999],"data_offsets":[0,2])"), 2, "the header is not JSON"},
      {"{\"w\":1}", 0, "tensor 'w': must be described by an object, not 1"},
      {"{\"w\":[]}", 0, "tensor 'w': must be described by an object, not an array"},
      {"{\"w\":null}", 0, "tensor 'w': must be described by an object, not null"},
      {"{\"w\":{" + kTwo + "},\"w\":{" + kTwo + "}}", 2, "tensor 'w': stands twice in the header"},
      {w(kTwo + ",\"shape\":[2]"), 2, "tensor 'w': shape stands twice"},
      {w(kTwo + ",\"stride\":[2]"), 2, "tensor 'w': unknown key 'stride'"},
      {w(R"("shape":[2],"data_offsets":[0,2])"), 2, "tensor 'w': dtype is missing"},
      {w(R"("dtype":"U8","data_offsets":[0,2])"), 2, "tensor 'w': shape is missing"},
      {w(R"("dtype":"U8","shape":[2])"), 2, "tensor 'w': data_offsets is missing"},
      {w(R"("dtype":"u8","shape":[2],"data_offsets":[0,2])"), 2, "tensor 'w': unknown dtype 'u8'"},
      {w(R"("dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2])"), 2, "tensor 'w': unknown dtype 'F8_E4M3'"},
      {w(R"("dtype":8,"shape":[2],"data_offsets":[0,2])"), 2, "tensor 'w': dtype must be a string, not 8"},
      {w(R"("dtype":"U8","shape":2,"data_offsets":[0,2])"), 2,
       "tensor 'w': shape and data_offsets must be arrays, not 2"},
      {w(R"("dtype":"U8","shape":[[2]],"data_offsets":[0,2])"), 2, "tensor 'w': shape must hold whole numbers"},
      {w(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])"), 2, "tensor 'w': shape must hold whole numbers from 0"},
      {w(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])"), 2, "tensor 'w': shape must hold whole numbers"},
      {w(R"("dtype":"U8","shape":["2"],"data_offsets":[0,2])"), 2, "tensor 'w': shape must hold whole numbers"},
      {w(R"("dtype":"U8","shape":[true],"data_offsets":[0,2])"), 2, "tensor 'w': shape must hold whole numbers"},
      {w(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,2])"), 2, "2^63 - 1, not 9223372036854775808"},
      {w(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,2])"), 2, "tensor 'w': shape has more than 8"},
      {w(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0, "tensor 'w': shape overflows"},
      {w(R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"), 0, "tensor 'w': shape overflows"},
      {w(R"("dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,0])"), 0, "tensor 'w': shape overflows"},
      {w(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), 0, "tensor 'w': shape overflows"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[0])"), 2, "tensor 'w': data_offsets must hold two numbers, not 1"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[0,2,2])"), 2, "data_offsets must hold two numbers, not more"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[-1,1])"), 2, "data_offsets must hold whole numbers >= 0, not -1"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[0,2.5])"), 2, "data_offsets must hold whole numbers >= 0"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":{})"), 2, "must be arrays, not an object"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])"), 2, "tensor 'w': data_offsets run backwards"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[0,3])"), 2, "data_offsets 0 to 3 pass the end of the file's 2"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[18446744073709551614,18446744073709551615])"), 2, "pass the end"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[0,18446744073709551616])"), 2, "data_offsets must hold whole"},
      {w(R"("dtype":"F16","shape":[2],"data_offsets":[0,2])"), 2, "span 2 bytes, but F16 [2] takes 4"},
      {w(R"("dtype":"U8","shape":[],"data_offsets":[0,2])"), 2, "span 2 bytes, but U8 [] takes 1"},
      {w(R"("dtype":"U8","shape":[2],"data_offsets":[1,3])"), 3, "no tensor covers the bytes 0 to 1 before it"},
      {w(kTwo), 3, "no tensor covers the last 1 bytes of the file"},
      {"{}", 1, "no tensor covers the last 1 bytes of the file"},
      {R"({"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor 'w': data_offsets 1 to 3 overlap"},
      {R"({"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2, "data_offsets 0 to 2 overlap"},
      {R"({"v":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "tensor 'w': no tensor covers the bytes 1 to 2"},
      {R"({"__metadata__":[]})", 0, "__metadata__ must be an object, not an array"},
      {R"({"__metadata__":"pt"})", 0, "__metadata__ must be an object, not the string 'pt'"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ must hold strings only, not 1"},
      {R"({"__metadata__":{"a":{}}})", 0, "__metadata__ must hold strings only, not an object"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "__metadata__ has the key 'a' twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ stands twice"},
      {std::string("{\"a\\nb\":") + "1}", 0, "tensor 'a\\x0ab': must be"},
      {"{\"" + std::string(100000, 'n') + "\":1}", 0, "nnn...': must be described by an object"},
      {"{\"w\":" + std::string(100000, '['), 0, "tensor 'w': must be described by an object, not an array"},
      {w("\"dtype\":" + std::string(100000, '{')), 0, "tensor 'w': dtype must be a string, not an object"},
  };
  for (const Hostile& h : table) {
    const std::string path = dir.put("x", file_text(h.header, h.data_bytes));
    const std::string message = error_of([&] { read_everything(path); });
    EXPECT_CONTAINS(message, h.message) << h.header.substr(0, 200);
    EXPECT_EQ(message.find(path + ": "), 0u) << message;
    EXPECT_LT(message.size(), path.size() + 400);
  }
  // The frame of the table is a good file, so it is the fault in each row that is refused.
  EXPECT_EQ(error_of([&] { read_everything(dir.put("x", file_text(w(kTwo), 2))); }), "no error");
  EXPECT_EQ(error_of([&] { read_everything(dir.put("x", file_text(R"({"__metadata__":{"a":"1"}})", 0))); }),
            "no error");
}

TEST(Safetensors, RefusesWrongHeaderLengths) {
  TempFolder dir;
  const auto length = [](std::uint64_t n) { return std::string(reinterpret_cast<const char*>(&n), 8); };
  const auto open = [&](const std::string& text) { return error_of([&] { SafetensorsFile f(dir.put("x", text)); }); };
  EXPECT_EQ(open(""), dir / "x: has 0 bytes, too short for a safetensors file");
  EXPECT_CONTAINS(open(length(0)), "does not begin with '{'");
  EXPECT_CONTAINS(open(length(3) + "{}"), "cut short: the header's 3 bytes pass the end of the 10 byte file");
  EXPECT_CONTAINS(open(length(100'000'000) + "{}"), "cut short: the header's 100000000 bytes");
  EXPECT_CONTAINS(open(length(100'000'001) + "{}"), "its header would have 100000001 bytes");
  EXPECT_CONTAINS(open(length(UINT64_MAX) + "{}"), "its header would have 18446744073709551615 bytes");
  EXPECT_CONTAINS(open("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "is a Git LFS pointer");
  EXPECT_CONTAINS(error_of([&] { SafetensorsFile f(dir / "none"); }), "none: cannot open: No such file or directory");
}

/// A small good file: two tensors and metadata.
std::string small_file(const TempFolder& dir) {
  SafetensorsWriter out(dir / "small");
  out.declare("layer.weight", "F32", {2, 3});
  out.declare("ids", "I64", {2});
  const float weight[] = {1, 2, 3, 4, 5, 6};
  const std::int64_t ids[] = {101, 102};
  out.write("layer.weight", weight);
  out.write("ids", ids);
  out.commit();
  return content_of(dir / "small");
}

TEST(Safetensors, TruncatedAnywhereIsAnError) {
  TempFolder dir;
  const std::string good = small_file(dir);
  EXPECT_EQ(error_of([&] { read_everything(dir.put("x", good)); }), "no error");
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_NE(error_of([&] { read_everything(dir.put("x", good.substr(0, n))); }), "no error") << n;
  EXPECT_NE(error_of([&] { read_everything(dir.put("x", good + "x")); }), "no error");
}

TEST(Safetensors, FlippedBytesNeverCrash) {
  TempFolder dir;
  const std::string good = small_file(dir);
  RandomStream random(1, 2);
  std::size_t refused = 0;
  constexpr int kRounds = 4000;
  for (int round = 0; round < kRounds; ++round) {
    std::string bad = good;
    for (std::uint32_t flips = 1 + random.below(3); flips > 0; --flips)
      bad[random.below(static_cast<std::uint32_t>(bad.size()))] = static_cast<char>(random.below(256));
    refused += error_of([&] { read_everything(dir.put("x", bad)); }) != "no error";
  }
  // Flips in the data or in a name are no damage that could be seen; most others are.
  EXPECT_GT(refused, kRounds / 3u);
  EXPECT_LT(refused, static_cast<std::size_t>(kRounds));
}

TEST(Safetensors, AFullDiskLeavesNothingBehind) {
  const float v[] = {1, 2};
  SafetensorsWriter full("/dev/full");
  full.declare("a", "F32", {2});
  EXPECT_EQ(error_of([&] { full.write("a", v); }), "/dev/full: cannot write: No space left on device");
}

}  // namespace
}  // namespace cald
