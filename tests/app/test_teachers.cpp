// Teachers that do not fit their students: refused in one line, or made to fit.
#include "tests/app/edit_model.h"

namespace cald {
namespace {

const std::string kModel = " '" + kGolden + "models/bert_h36' ";
constexpr const char* kTeacher = "steps/models/bert_finetuned/waypoints/2";

/// Texts of some 60 tokens.
std::string long_texts() {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "film plot ";
  return "sentence\tlabel\n" + text + "good\t0\n" + text + "bad\t1\n";
}

TEST(Teachers, HavePositionsForTheTexts) {
  TempFolder f;
  f.put("long.tsv", long_texts());
  const std::string longer = "--train long.tsv --max-positions 64 --max-length 64 --mixer-k 4 --steps 2 --output ";
  const std::string error = "the teacher has positions for 33 tokens, but max-length is 64";
  expect_refused(
      f, {{"convert" + kModel + "--mode target --teacher '" + kGolden + kTeacher + "' " + longer + "run", 1, error},
          {"convert" + kModel + "--mode waypoint --waypoints '" + kGolden + "steps/models/bert_finetuned' " + longer +
               "run",
           1, error}});
  // One that learns is extended with its student.
  const Result r = cald(f, "convert" + kModel + "--mode trajectory " + longer + "run");
  EXPECT_EQ(r.code, 0) << r.err;
}

TEST(Teachers, NumberTheirClassesAsTheStudentDoes) {
  TempFolder f;
  f.put("train.tsv", "sentence\tlabel\na good film\tLABEL_0\nthe plot is bad\tLABEL_1\na film\tLABEL_2\n");
  copy_model(f, kTeacher, "teacher");
  edit_json(f, "teacher/config.json", [](auto& j) {
    j["id2label"] = {{"0", "LABEL_1"}, {"1", "LABEL_0"}, {"2", "LABEL_2"}};
    j["label2id"] = {{"LABEL_1", 0}, {"LABEL_0", 1}, {"LABEL_2", 2}};
  });
  const std::string run = "--train train.tsv --mixer-k 4 --steps 2 --max-length 20 --output run";
  expect_refused(f, {{"convert" + kModel + "--start model --mode target --teacher teacher " + run, 1,
                      "the teacher numbers its classes in another order than the student"}});
}

TEST(Teachers, OfARunThatHasNotEndedAreRefused) {
  TempFolder f;
  f.put("train.tsv", "sentence\tlabel\na good film\t0\nthe plot is bad\t1\n");
  const std::string run = "--train train.tsv --steps 4 --max-length 20 --output ";
  ASSERT_EQ(cald(f, "finetune" + kModel + "--keep-waypoints 2 " + run + "teacher").code, 0);
  fs::remove_all(f / "teacher/waypoints/2");
  expect_refused(f, {{"convert" + kModel + "--mode waypoint --waypoints teacher --mixer-k 4 " + run + "run", 1,
                      "teacher: has 1 of its 2 waypoints: the run has not ended"}});
}

}  // namespace
}  // namespace cald
