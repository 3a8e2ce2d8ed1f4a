// Checks of settings: ranges, and what contradicts each other, each with its message.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "tests/train/usage_message.h"
#include "train/option_io.h"

namespace cald {
namespace {

/// Options made from flags over the defaults, checked.
std::string check_message(const std::vector<GivenOption>& given) {
  RunOptions o;
  apply_given(o, given);
  return usage_message([&] { validate(o); });
}

TEST(OptionCheck, RangesAreChecked) {
  const std::pair<GivenOption, const char*> cases[] = {
      {{"max-length", "2"}, "max-length is 2, wanted at least 3 tokens (a word between the two specials)"},
      {{"mixer-k", "0"}, "mixer-k is 0, wanted 1 to 1048576"},
      {{"mixer-std", "0"}, "mixer-std is 0, wanted more than 0"},
      {{"max-positions", "2"}, "max-positions is 2, wanted at least 3"},
      {{"a-ce", "-1"}, "a-ce is -1, wanted at least 0"},
      {{"a-kd", "-1"}, "a-kd is -1, wanted at least 0"},
      {{"a-ld", "-0.5"}, "a-ld is -0.5, wanted at least 0"},
      {{"temperature", "0"}, "temperature is 0, wanted more than 0"},
      {{"hybrid-stop", "101%"}, "hybrid-stop is 101%, wanted 0 steps or more, or 0% to 100%"},
      {{"hybrid-stop", "-5"}, "hybrid-stop is -5, wanted 0 steps or more, or 0% to 100%"},
      {{"steps", "-1"}, "steps is -1, wanted at least 0"},
      {{"epochs", "0"}, "epochs is 0, wanted more than 0"},
      {{"batch-size", "0"}, "batch-size is 0, wanted 1 to 1048576"},
      {{"accumulate", "0"}, "accumulate is 0, wanted 1 to 1048576"},
      {{"learning-rate", "-1e-5"}, "learning-rate is -1e-5, wanted at least 0"},
      {{"new-learning-rate", "-1"}, "new-learning-rate is -1, wanted at least 0"},
      {{"weight-decay", "-1"}, "weight-decay is -1, wanted at least 0"},
      {{"beta1", "1"}, "beta1 is 1, wanted at least 0 and below 1"},
      {{"beta2", "-0.1"}, "beta2 is -0.1, wanted at least 0 and below 1"},
      {{"epsilon", "0"}, "epsilon is 0, wanted more than 0"},
      {{"warmup", "-1%"}, "warmup is -1%, wanted 0 steps or more, or 0% to 100%"},
      {{"schedule-floor", "2"}, "schedule-floor is 2, wanted 0 to 1"},
      {{"clip", "-1"}, "clip is -1, wanted at least 0"},
      {{"teacher-learning-rate", "-1"}, "teacher-learning-rate is -1, wanted at least 0"},
      {{"teacher-interval", "0"}, "teacher-interval is 0, wanted at least 1"},
      {{"dropout", "1"}, "dropout is 1, wanted at least 0 and below 1"},
      {{"teacher-dropout", "-0.1"}, "teacher-dropout is -0.1, wanted at least 0 and below 1"},
      {{"evaluate-every", "0"}, "evaluate-every is 0, wanted 1 step or more, or more than 0% and up to 100%"},
      {{"eval-batch-size", "0"}, "eval-batch-size is 0, wanted 1 to 1048576"},
      {{"checkpoint-every", "0%"}, "checkpoint-every is 0%, wanted 1 step or more, or more than 0% and up to 100%"},
      {{"keep-waypoints", "-1"}, "keep-waypoints is -1, wanted at least 0"},
      {{"threads", "-1"}, "threads is -1, wanted 0 to 1024"},
      {{"threads", "1025"}, "threads is 1025, wanted 0 to 1024"},
      {{"micro-batches", "33"}, "micro-batches is 33, wanted at most batch-size (32)"},
      {{"mixer", ""}, "mixer is empty, wanted a mixer's name"},
      {{"layers", ""}, "layers is empty, wanted all, or a list such as 0,2,4-5"},
  };
  for (const auto& [given, message] : cases) EXPECT_EQ(check_message({given}), message);
}

TEST(OptionCheck, ContradictionsAreOneClearLineEach) {
  const GivenOption unguided{"mode", "unguided"}, target{"mode", "target"}, teacher{"teacher", "t"};
  const std::string guided = "belongs to the modes with a teacher (target, trajectory, waypoint); mode is ";
  EXPECT_EQ(check_message({unguided, teacher}), "teacher is given, but belongs to mode target; mode is unguided");
  EXPECT_EQ(check_message({target, teacher, {"waypoints", "w"}}),
            "waypoints is given, but belongs to mode waypoint; mode is target");
  EXPECT_EQ(check_message({{"student", "s"}}),
            "student is given, but belongs to the modes that convert; mode is finetune");
  EXPECT_EQ(check_message({unguided, {"hybrid-stop", "60%"}}), "hybrid-stop is given, but " + guided + "unguided");
  EXPECT_EQ(check_message({{"hybrid-stop", "60"}}), "hybrid-stop is given, but " + guided + "finetune");
  EXPECT_EQ(check_message({{"teacher-dropout", "0"}}), "teacher-dropout is given, but " + guided + "finetune");
  EXPECT_EQ(check_message({unguided, {"teacher-dtype", "bf16"}}), "teacher-dtype is given, but " + guided + "unguided");
  EXPECT_EQ(check_message({{"tf32", "true"}}), "tf32 is true, wanted false on device cpu");
  EXPECT_EQ(check_message({target, teacher, {"hybrid-stop-terms", "ld"}}),
            "hybrid-stop-terms is given, but belongs to runs with hybrid-stop");
  EXPECT_EQ(check_message({target, teacher, {"teacher-learning-rate", "1e-5"}}),
            "teacher-learning-rate is given, but belongs to mode trajectory; mode is target");
  EXPECT_EQ(check_message({target, teacher, {"teacher-interval", "4"}}),
            "teacher-interval is given, but belongs to mode trajectory; mode is target");
  EXPECT_EQ(check_message({unguided, {"keep-waypoints", "4"}}),
            "keep-waypoints is given, but belongs to mode finetune; mode is unguided");
  EXPECT_EQ(check_message({{"evaluate-every", "50%"}}), "evaluate-every is given, but belongs to runs with dev");
  EXPECT_EQ(check_message({unguided, {"start", "teacher"}}),
            "start is teacher, wanted model: only mode target has a trained teacher");
  EXPECT_EQ(check_message({target, {"start", "teacher"}, {"steps", "0"}}),
            "start is teacher, wanted also teacher: the directory of the fine-tuned transformer");
  EXPECT_EQ(check_message({target}),
            "mode is target, wanted also teacher: the directory of the fine-tuned transformer");
  EXPECT_EQ(check_message({{"mode", "waypoint"}}),
            "mode is waypoint, wanted also waypoints: the run directory of finetune --keep-waypoints");
  EXPECT_EQ(check_message({unguided, {"a-ce", "0"}}),
            "a-ce is 0, wanted more than 0: no other term of the loss has a weight");
  EXPECT_EQ(check_message({target, teacher, {"a-ce", "0"}, {"hybrid-stop", "60%"}}),
            "a-ce is 0, wanted more than 0: after hybrid-stop the task loss trains alone");
  EXPECT_EQ(check_message({{"schedule", "exponential"}, {"schedule-floor", "0"}}),
            "schedule-floor is 0, wanted more than 0: an exponential schedule cannot end at 0");
}

TEST(OptionCheck, WhatFitsTogetherPasses) {
  RunOptions o;
  validate(o);
  apply_given(o, {{"mode", "target"}, {"teacher", "t"}, {"hybrid-stop", "0"}, {"hybrid-stop-terms", "ld"}});
  validate(o);
  o = {};
  apply_given(o, {{"mode", "target"}, {"steps", "0"}});  // only converts
  validate(o);
  o = {};
  apply_given(o, {{"mode", "target"}, {"teacher", "t"}, {"a-ce", "0"}});
  validate(o);
  o = {};
  apply_given(o, {{"order", "given"}, {"bucket", "true"}});
  validate(o);
  o = {};
  apply_given(o, {{"tf32", "true"}, {"device", "cuda"}});
  validate(o);
}

TEST(OptionCheck, RequiredTextsAreNamed) {
  RunOptions o;
  o.train = "t.tsv";
  require_options(o, {"train"});
  EXPECT_EQ(usage_message([&] {
              require_options(o, {"train", "output"});
            }),
            "--output is missing, wanted run directory to write");
}

}  // namespace
}  // namespace cald
