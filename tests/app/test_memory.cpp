// The memory that the whole process takes, against what was promised before step 1.
#include "tests/app/formula_model.h"
#include "tests/app/run_program.h"

namespace cald {
namespace {

TEST(Program, ResidentMemoryStaysUnderThePlanAndTheDataBy128MiB) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer's own memory counts too";
#endif
  TempFolder f;
  const std::string model = with_weights(kGolden + "models/bert_h768", f);
  fs::copy(kGolden + "models/bert_h36/vocab.txt", model);
  std::string rows = "sentence\tlabel\n";
  for (int i = 0; i < 48; ++i)
    rows += "a very long and dull film of the sea, not a good story at all!\t" + std::to_string(i % 3) + "\n";
  f.put("train.tsv", rows);
  for (const std::string command : {"convert --mode unguided --mixer-k 8", "convert --mode trajectory --mixer-k 8",
                                    "finetune --drift --eval-batch-size 48"}) {
    const Result r = cald(f, command + " --model '" + model +
                                 "' --train train.tsv --dev train.tsv --steps 2 --evaluate-every 2"
                                 " --batch-size 16 --max-length 40 --output run");
    ASSERT_EQ(r.code, 0) << r.err;
    const auto plan = nlohmann::json::parse(content_of(f / "run/plan.json"));
    const double promised = plan.at("peak_bytes"), resident = plan.at("resident_peak_bytes");
    EXPECT_LE(resident, promised + static_cast<double>(rows.size()) + (128 << 20)) << command;
    EXPECT_GE(resident, 0.5 * promised) << command << ": the plan is far too high";
    fs::remove_all(f / "run");
  }
}

}  // namespace
}  // namespace cald
